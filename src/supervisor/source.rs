//! One source of the agent: its relay log, its receiver, and what is known of the server behind it.
//!
//! Its settings can be replaced while it is there: whoever needs a connection takes them anew. A receiver that ended
//! without being told to is started again.

mod known;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::horizon::Horizon;
use super::records::protected;
use crate::config::SourceConfig;
use crate::error::{Code, Failure};
use crate::model::{Flavor, Location};
use crate::pipeline::{Receive, ReceiveSpec, ReceiveState, check, receive, start_of};
use crate::relay::{Relay, RelayConfig, RelayError, Retention};
use crate::runtime::{Owned, spawn};
use crate::store::{CheckpointDb, Namespace};
use crate::task::{Pulse, RelayKeeper};

/// How long a task waits for the relay log to reach its place, before it parks and tries again.
const REACH: Duration = Duration::from_secs(20);
/// A receiver that broke off by a fault of ours is not started again sooner.
const AFTER_FAULT: Duration = Duration::from_secs(15);
/// How far the horizon moves before it is stored again, in seconds.
const REMEMBER: f64 = 10.0;

/// How its relay log is kept.
#[derive(Debug, Clone)]
pub struct RelayLimits {
    /// Directory of all relay logs.
    pub dir: PathBuf,
    /// Bytes of one relay log.
    pub budget: u64,
    /// Bytes to leave free.
    pub floor: u64,
}

/// What can be replaced while the source is there.
pub struct Settings {
    /// Its configuration.
    pub config: SourceConfig,
    /// How it is received from; its connection is in here.
    pub receive: ReceiveSpec,
}

/// A source.
pub struct Source {
    /// Its id.
    pub id: String,
    /// Its dialect.
    pub flavor: Flavor,
    /// Its relay log.
    pub relay: Relay,
    settings: RwLock<Arc<Settings>>,
    limits: RelayLimits,
    db: CheckpointDb,
    state: watch::Sender<ReceiveState>,
    receiver: Mutex<Option<Owned<()>>>,
    /// The receiver broke off by a fault of ours.
    faulted: Mutex<Option<SystemTime>>,
    paused: Mutex<bool>,
    free: watch::Sender<u64>,
    look: Mutex<Option<Owned<()>>>,
    /// One at a time moves the relay log's start.
    moving: tokio::sync::Mutex<()>,
    /// Subtasks that need the relay log.
    tasks: AtomicUsize,
    horizon: Mutex<Horizon>,
    /// As it was stored last.
    remembered: Mutex<Horizon>,
    /// Where the relay log ended when it was opened.
    opened_at: u64,
}

impl Source {
    /// Opens its relay log and starts looking at it; receives nothing yet.
    pub async fn open(
        config: SourceConfig,
        receive: ReceiveSpec,
        limits: RelayLimits,
        db: CheckpointDb,
    ) -> Result<Arc<Source>, Failure> {
        let (id, flavor) = (config.source_id.clone(), receive.flavor);
        let mut relay_config = RelayConfig::new(limits.dir.join(directory(&id)), flavor);
        relay_config.budget_bytes = limits.budget;
        relay_config.free_floor_bytes = limits.floor;
        let purge = &config.purge;
        relay_config.retention =
            Some(Retention { interval: purge.interval, expires: purge.expires, remain_bytes: purge.remain_space });
        let relay = Relay::open(relay_config).await.map_err(|error| Failure::from(&error))?;
        // What is remembered only serves the status: unreadable is as good as nothing.
        let mut horizon = db.get::<Horizon>(Namespace::Relay, &id).await.ok().flatten().unwrap_or_default();
        if horizon.identity.is_empty() {
            horizon.identity = relay.state().identity;
        }
        let opened_at = relay.state().received_lsn.0;
        let source = Arc::new(Source {
            id,
            flavor,
            relay,
            settings: RwLock::new(Arc::new(Settings { config, receive })),
            limits,
            db,
            state: watch::channel(ReceiveState::default()).0,
            receiver: Mutex::new(None),
            faulted: Mutex::new(None),
            paused: Mutex::new(false),
            free: watch::channel(u64::MAX).0,
            look: Mutex::new(None),
            moving: tokio::sync::Mutex::new(()),
            tasks: AtomicUsize::new(0),
            remembered: Mutex::new(horizon.clone()),
            horizon: Mutex::new(horizon),
            opened_at,
        });
        Ok(source)
    }

    /// Who looks at it now and then, for as long as it is there.
    pub fn look_by(&self, look: Owned<()>) {
        *lock(&self.look) = Some(look);
    }

    /// What holds now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the settings; whatever is connected is connected anew with them.
    pub async fn set_settings(&self, settings: Settings) {
        let _moving = self.moving.lock().await;
        let receiving = lock(&self.receiver).is_some();
        self.stop_receiving().await;
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        if receiving {
            self.start_receiving();
        }
    }

    /// One more subtask needs the relay log.
    pub fn task_added(&self) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
    }

    /// One subtask less does.
    pub fn task_removed(&self) {
        // Never below none, whatever order commands come in.
        let _ = self.tasks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tasks| tasks.checked_sub(1));
    }

    /// Starts to receive, if the relay log has a beginning and nobody paused it.
    pub fn start_receiving(&self) {
        let mut receiver = lock(&self.receiver);
        if receiver.is_none() && !*lock(&self.paused) && self.relay.state().start.is_some() {
            self.state.send_modify(|state| (state.doing, state.stranger) = (Receive::Connecting, None));
            let (spec, relay, state) = (self.settings().receive.clone(), self.relay.clone(), self.state.clone());
            *receiver = Some(spawn("receive", receive(spec, relay, state)));
        }
    }

    /// Stops receiving; returns when the relay log has no writer.
    pub async fn stop_receiving(&self) {
        let receiver = lock(&self.receiver).take();
        if let Some(receiver) = receiver {
            receiver.abort();
            // Aborted: there is nothing to be learned from how it ended.
            let _ = receiver.await;
        }
    }

    /// Whatever stopped the receiver, a task that needs it gets it back. One that broke off is told of, and waits a while.
    pub(super) async fn revive(&self) {
        let ended = lock(&self.receiver).take_if(|receiver| receiver.is_finished());
        if let Some(ended) = ended {
            let why = ended.await.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
            let failure = Failure::new(Code::NotSet, "the receiver broke off by a fault of the agent itself")
                .cause(why)
                .workaround("Please report it with the agent's log; receiving is tried again by itself.");
            tracing::error!(source = %self.id, error = %failure, "receiver");
            self.state.send_modify(|state| state.doing = Receive::Stopped { failure });
            *lock(&self.faulted) = Some(SystemTime::now());
        }
        let waits = lock(&self.faulted).is_some_and(|at| at.elapsed().is_ok_and(|since| since < AFTER_FAULT));
        if !waits && self.tasks.load(Ordering::Relaxed) > 0 && self.moving.try_lock().is_ok() {
            *lock(&self.faulted) = None;
            self.start_receiving();
        }
    }

    /// Connects anew at once, instead of after the present pause.
    pub async fn kick(&self) {
        if !matches!(self.state.borrow().doing, Receive::Running) {
            *lock(&self.faulted) = None;
            self.stop_receiving().await;
            self.start_receiving();
        }
    }

    /// What was received.
    pub(super) fn received(&self) -> Option<Location> {
        self.relay.state().received.map(|received| received.0)
    }

    /// Opens the stream anew: it tells nothing any more, alive as it looks.
    pub(super) async fn reconnect(&self) {
        if matches!(self.state.borrow().doing, Receive::Running) && lock(&self.receiver).is_some() {
            tracing::warn!(source = %self.id, "the source lacks what it sent, so the stream is opened anew");
            self.stop_receiving().await;
            self.start_receiving();
        }
    }

    /// pause-relay and resume-relay.
    pub async fn set_paused(&self, paused: bool) {
        *lock(&self.paused) = paused;
        if paused { self.stop_receiving().await } else { self.start_receiving() }
    }

    /// Makes the relay log hold `location`: begins it anew where it starts later, receives on where it ends earlier (a
    /// crash cost its last moments).
    pub async fn reach_back_to(&self, location: &Location) -> Result<(), Failure> {
        let _moving = self.moving.lock().await;
        let state = self.relay.state();
        let alone = self.tasks.load(Ordering::Relaxed) <= 1;
        let too_late = !state.start.as_ref().is_some_and(|start| location.covers(start));
        let too_early = !state.received.as_ref().is_some_and(|received| received.0.covers(location));
        if too_late && !alone {
            // Others need what would be dropped: only a source that can give all of it again may replace it.
            let settings = self.settings();
            check(&settings.receive, &start_of(&settings.receive, location)).await?;
        }
        // A gap that nobody needs is not fetched.
        if too_late || (too_early && alone) {
            tracing::info!(source = %self.id, %location, "the relay log begins anew (will try purge whole relay dir for new relay log)");
            self.stop_receiving().await;
            let identity = lock(&self.horizon).identity.clone();
            self.relay.start_at(location.clone(), &identity).await.map_err(|error| Failure::from(&error))?;
            self.forget_horizon();
        }
        self.start_receiving();
        let mut changes = self.relay.changes();
        let reached = async {
            while !self.relay.state().received.is_some_and(|received| received.0.covers(location)) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(REACH, reached).await.map_err(|_| {
            let doing = match &self.state.borrow().doing {
                Receive::Retrying { failure, .. } | Receive::Stopped { failure } => failure.to_string(),
                _ => "receiving has not come as far yet".to_owned(),
            };
            Failure::new(Code::StreamStart, format!("the relay log does not reach {location}")).cause(doing)
        })
    }

    /// Ends everything and removes the relay log where `forget` says so.
    pub async fn close(&self, forget: bool) -> Result<(), Failure> {
        drop(lock(&self.look).take());
        self.stop_receiving().await;
        self.relay.close().await.map_err(|error| Failure::from(&error))?;
        if forget {
            remove_relay_dir(&self.limits, &self.id).await;
        }
        Ok(())
    }

    pub(super) fn relay_dir(&self) -> PathBuf {
        self.limits.dir.clone()
    }

    pub(super) fn set_free_bytes(&self, free: u64) {
        self.free.send_replace(free);
    }
}

/// Removes the relay log of a source that is gone.
pub(super) async fn remove_relay_dir(limits: &RelayLimits, source_id: &str) {
    let dir = limits.dir.join(directory(source_id));
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
    if let Ok(Err(error)) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the relay log of a removed source stays on disk");
    }
}

/// A directory name for any source id.
pub(super) fn directory(source_id: &str) -> String {
    source_id
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02x}"),
        })
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while holding one of these, and each value is whole at any instant.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tonic::async_trait]
impl RelayKeeper for Source {
    async fn reach_back(&self, location: Location) -> Result<(), Failure> {
        self.reach_back_to(&location).await
    }

    async fn repair(&self, damage: RelayError) -> Result<(), Failure> {
        let RelayError::Damaged { lsn, at, .. } = damage else { return Err(Failure::from(&damage)) };
        let _moving = self.moving.lock().await;
        // The stream that is open goes on behind the damage: another one must begin at it.
        self.stop_receiving().await;
        self.relay.drop_from(lsn, *at).await.map_err(|error| Failure::from(&error))?;
        self.forget_horizon();
        self.start_receiving();
        Ok(())
    }

    fn release(&self, task: &str) {
        self.relay.release(&protected(task, &self.id));
    }

    fn pulse(&self) -> Pulse {
        self.refresh(&self.relay.state());
        let lag = self.receive_lag();
        let stranger = self.state.borrow().stranger.clone();
        let horizon = lock(&self.horizon);
        Pulse { offset: horizon.offset, reached: horizon.reached, lag, stranger }
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
