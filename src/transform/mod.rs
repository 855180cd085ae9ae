//! What is replicated and under which name: block-allow list, routes, for rows and for DDL.
