//! Lanes: statements, positions, the fence, retries, DDL.
