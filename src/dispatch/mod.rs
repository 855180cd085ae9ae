//! Groups: compaction, keys, lanes and barriers.
