//! Boot order, signals, shutdown order, sd_notify, logging.
