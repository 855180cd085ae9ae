//! Room for others on a source: the gate, who watches them, and what follows from both.
//!
//! The copy's engine holds one for as long as rows are copied. Whoever works beside the source's users behind it, a group of the
//! replay at a time, has another, asks it for its turn, and is told how large a group should be.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::gate::{Gate, Pass, Width};
use super::governor::FIRST;
use super::others::{Others, Watch, watch};
use super::piece::Piece;
use super::source::Source;
use super::spec::{CopyOptions, CopySpec};

/// What a small group should take: many statements and a COMMIT, of which none takes long.
const AIM: Duration = Duration::from_millis(6);
/// Changes of one: to begin with, at least, and at most.
const CHANGES: (u64, u64, u64) = (400, 200, 5000);
/// Rows of one of its statements: what takes about half a millisecond.
const STATEMENT: usize = 64;
/// Connections to the source that fail before it is done without who watches; and statements of others that tell at first.
/// A copy that cannot be read does nothing anyway, and may have taken all connections there are; and the agent itself begins to
/// receive just when it first looks. A replay needs no source.
const OF_COPY: (u32, u64) = (5, 50);
const OF_REPLAY: (u32, u64) = (1, 10);

/// See the top of the file.
pub struct Room {
    pub(super) gate: Arc<Gate>,
    others: Arc<Others>,
    changes: Piece,
    /// With it the watch ends.
    halt: watch::Sender<bool>,
}

/// How large a group should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Row changes.
    pub changes: u64,
    /// Connections that share them.
    pub connections: usize,
    /// Rows of one statement.
    pub statement_rows: usize,
}

/// Stands for a group that is at work.
#[derive(Debug)]
pub struct Turn {
    _pass: Pass,
    begun: Instant,
}

impl Room {
    /// Open wide where nobody is to be made room for. Until it is known whether there are others it is narrow.
    pub(super) fn new(options: &CopyOptions) -> Self {
        Room {
            gate: Arc::new(Gate::new(if yields(options) { Width::Narrow(FIRST) } else { Width::Wide })),
            others: Arc::default(),
            changes: Piece::new(AIM, CHANGES.0, CHANGES.1, CHANGES.2),
            halt: watch::channel(false).0,
        }
    }

    /// For the replay behind a copy, with so many connections; `None` where it is not to yield.
    pub fn for_replay(spec: &CopySpec, connections: usize) -> Option<Self> {
        if !yields(&spec.options) {
            return None;
        }
        let room = Room::new(&spec.options);
        room.watch(&Source::new(&spec.source), &spec.options, connections, OF_REPLAY);
        Some(room)
    }

    /// Watches for others while a copy reads and writes.
    pub(super) fn watch_copy(&self, source: &Source, options: &CopyOptions) {
        if yields(options) {
            self.watch(source, options, options.readers + options.writers, OF_COPY);
        }
    }

    fn watch(&self, source: &Source, options: &CopyOptions, most: usize, (failures, at_first): (u32, u64)) {
        let made = Watch {
            source: source.clone(),
            gate: Arc::clone(&self.gate),
            others: Arc::clone(&self.others),
            floor: f64::from(options.yield_floor) / 100.0,
            most: most as f64,
            failures,
            at_first,
        };
        watch(made, self.halt.subscribe());
    }

    /// The turn of a group where it has come; else when to ask again.
    pub fn turn(&self) -> Result<Turn, Instant> {
        self.gate.pass().map(|pass| Turn { _pass: pass, begun: Instant::now() })
    }

    /// How large the next group should be; `None` where that does not matter.
    pub fn part(&self) -> Option<Part> {
        let Width::Narrow(level) = self.gate.width() else { return None };
        let wider = level.max(1.0);
        let changes = self.changes.size() as f64 * wider * wider;
        Some(Part { changes: changes as u64, connections: wider as usize, statement_rows: STATEMENT * wider as usize })
    }

    /// A group of so many changes is done.
    pub fn done(&self, turn: Turn, part: Part, changes: u64) {
        if part.connections == 1 {
            self.changes.took(changes, turn.begun.elapsed());
            self.gate.bill(self.changes.work());
        }
    }

    /// Whatever others feel, no less than so many connections at a time; below one, than this share of the time.
    pub fn keep_above(&self, level: f64) {
        self.others.keep_above(level);
        self.gate.at_least(level);
    }

    /// To whom it yields and how far: their statements a second, and the level. `None` where there are none.
    pub fn yields_to(&self) -> Option<(u64, f64)> {
        match (self.gate.width(), self.others.rate()) {
            (Width::Narrow(level), others) if others > 0 => Some((others, level)),
            _ => None,
        }
    }
}

/// Whether room is to be made at all.
fn yields(options: &CopyOptions) -> bool {
    options.yield_floor < 100
}
