//! The tables in `dm_meta`: names, definitions, and the SQL that reads and writes them.
//!
//! A leaf: texts and plain rows, no connection. `<task>_syncer_checkpoint` and `<task>_onlineddl` are DM's to the letter
//! (`tests/golden/meta`), so that a stock dm-worker can take the source over; `<task>_agent_lane`, `<task>_agent_ddl`
//! and `<task>_agent_mapping` are ours, and `<task>_agent_snapshot…` those of a copy. The lane table's row `-1` repeats what we wrote last into DM's row, which is how
//! someone else's hand in it is noticed.

mod copy;
mod names;
mod online;
mod rows;

pub use copy::{AGAIN, COPY_SLOT, ChunkMark};
pub use names::MetaTables;
pub use online::{OnlineDdl, OnlineDdlPlaces, StatementPlace};
pub use rows::{DdlIntent, DmRow, LaneRow, SHADOW_LANE, SafeNote, StoredMark};
