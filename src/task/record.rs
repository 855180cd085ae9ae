//! What is kept of a subtask on this machine: why it is parked, and where it was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::status::{BegunDdl, Park, ParkReason};
use crate::error::Failure;
use crate::meta::StoredMark;

/// Stored under the subtask's key. Locations are for the status only: what a restart goes on from is stored downstream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ParkRecord {
    /// Why it is parked.
    pub parks: BTreeMap<ParkReason, Park>,
    /// What it failed with.
    pub failures: Vec<Failure>,
    /// Applied for certain.
    pub applied: Option<StoredMark>,
    /// In DM's row.
    pub flushed: Option<StoredMark>,
    /// The source's clock at the oldest change that waited, seconds since the epoch; `None` when nothing did.
    #[serde(default)]
    pub waiting_since: Option<f64>,
    /// DDL that was sent downstream and of whose end nothing is known.
    #[serde(default)]
    pub ddl: Option<BegunDdl>,
}
