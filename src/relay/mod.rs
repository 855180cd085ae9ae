//! The relay log: what was received, raw and durable, until every task has applied it.
