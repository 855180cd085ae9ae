//! Whether others use the source while it is copied, and what they feel of it.
//!
//! Asked on a thread and a connection of its own, so that what it measures is the source and the way to it, and not how busy the
//! copy is. Others are whoever has sent the source more than a few statements a second beside ours. Without them the gate is
//! wide; with them a tiny statement is timed over and over, and the gate follows what [`Governor`] makes of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::watch;
use tokio::time::Instant;

use super::gate::{Gate, Width};
use super::governor::{Beside, Governor};
use super::patience::within;
use super::source::Source;

/// Statements of others a second from which on they count, and how many looks without them until they do not.
const MANY: f64 = 20.0;
const LOOKS: u32 = 2;
/// Between the first two looks, and between all others.
const FIRST: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_secs(1);
/// Between two timed statements.
const PROBE: Duration = Duration::from_millis(2);
/// Until the level is decided anew; and how long the copy rests in each such window so that it is known what is usual.
const WINDOW: Duration = Duration::from_millis(300);
const REST: Duration = Duration::from_millis(30);
/// How long it rests before it knows anything.
const FIRST_REST: Duration = Duration::from_millis(250);
/// What waits no longer for an answer, and the pause before a new connection.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);

/// What is known, for whoever looks.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Statements of theirs a second.
    rate: AtomicU64,
    /// What the level is to be at least, whatever they feel: the bits of a number.
    at_least: AtomicU64,
}

impl Others {
    pub fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// The level is to be so high at least from now on.
    pub fn keep_above(&self, level: f64) {
        self.at_least.store(level.to_bits(), Ordering::Relaxed);
    }
}

/// What a watch is made of.
pub(super) struct Watch {
    pub source: Source,
    pub gate: Arc<Gate>,
    pub others: Arc<Others>,
    /// Bounds of the level.
    pub floor: f64,
    pub most: f64,
    /// Connections that fail one after the other, until it is done without.
    pub failures: u32,
    /// The first look is a short one: so many statements say something then.
    pub at_first: u64,
}

/// Watches until `halt` says so, or its sender is gone.
pub(super) fn watch(watch: Watch, mut halt: watch::Receiver<bool>) {
    let gate = Arc::clone(&watch.gate);
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                tokio::select! {
                    _ = halt.wait_for(|halt| *halt) => {}
                    () = watch.run() => {}
                }
            }),
            Err(error) => given_up(&watch.gate, &error),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("copy-watch".to_owned()).spawn(run) {
        given_up(&gate, &error);
    }
}

/// Without it the copy goes on as if it were alone.
fn given_up(gate: &Gate, error: &dyn std::fmt::Display) {
    tracing::warn!(%error, "nobody watches whether others use the source: the copy does not yield");
    gate.set(Width::Wide);
}

impl Watch {
    async fn run(self) {
        let mut failed = 0;
        loop {
            match self.source.connect().await {
                Ok(mut conn) => {
                    failed = 0;
                    if let Err(error) = self.look(&mut conn).await {
                        tracing::debug!(%error, "the watch for others on the source begins anew");
                    }
                }
                // Readers have the same trouble, and tell it; but they may be as many as the source lets in.
                Err(error) => {
                    failed += 1;
                    if failed == self.failures {
                        given_up(&self.gate, &error);
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Until the connection fails.
    async fn look(&self, conn: &mut Conn) -> Result<(), mysql_async::Error> {
        let mut seen = self.statements(conn).await?;
        tokio::time::sleep(FIRST).await;
        loop {
            if self.are_there(conn, &mut seen).await? {
                self.yield_to_others(conn, &mut seen).await?;
            } else {
                self.gate.set(Width::Wide);
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// As long as there are others.
    async fn yield_to_others(&self, conn: &mut Conn, seen: &mut Seen) -> Result<(), mysql_async::Error> {
        let mut governor = Governor::new(self.floor, self.most);
        self.gate.set(Width::Narrow(governor.level()));
        self.gate.rest(FIRST_REST);
        let (mut window, mut alone) = (Instant::now(), 0);
        while alone < LOOKS {
            let (took, beside) = self.probe(conn).await?;
            governor.took(took, beside);
            if window.elapsed() >= WINDOW {
                governor.keep_above(self.floor.max(f64::from_bits(self.others.at_least.load(Ordering::Relaxed))));
                self.gate.set(Width::Narrow(governor.decide()));
                self.gate.rest(if governor.knows() { REST } else { FIRST_REST });
                window = Instant::now();
            }
            if seen.at.elapsed() >= LOOK {
                alone = if self.are_there(conn, seen).await? { 0 } else { alone + 1 };
            }
            tokio::time::sleep(PROBE).await;
        }
        Ok(())
    }

    async fn probe(&self, conn: &mut Conn) -> Result<(Duration, Beside), mysql_async::Error> {
        let before = self.gate.at_work();
        let began = Instant::now();
        self.source.count(1);
        within(PATIENCE, conn.query_drop("DO 0")).await?;
        let took = began.elapsed();
        let rest = before.0 == 0 && before == self.gate.at_work();
        Ok((took, if rest { Beside::Rest } else { Beside::Work }))
    }

    /// Whether others have used the source since the last look.
    async fn are_there(&self, conn: &mut Conn, seen: &mut Seen) -> Result<bool, mysql_async::Error> {
        let now = self.statements(conn).await?;
        let others = now.all.saturating_sub(seen.all).saturating_sub(now.ours - seen.ours);
        let time = now.at - seen.at;
        let rate = others as f64 / time.as_secs_f64().max(0.001);
        *seen = now;
        self.others.rate.store(rate as u64, Ordering::Relaxed);
        Ok(rate >= MANY && (others >= self.at_first || time >= LOOK))
    }

    async fn statements(&self, conn: &mut Conn) -> Result<Seen, mysql_async::Error> {
        self.source.count(1);
        let ours = self.source.counted();
        let row: Option<(String, u64)> =
            within(PATIENCE, conn.query_first("SHOW GLOBAL STATUS LIKE 'Questions'")).await?;
        Ok(Seen { at: Instant::now(), all: row.map_or(0, |(_, all)| all), ours })
    }
}

/// Statements that the source has had: all, and those of ours.
struct Seen {
    at: Instant,
    all: u64,
    ours: u64,
}
