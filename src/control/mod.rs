//! The outside: admin socket, worker RPC, master, HTTP.
