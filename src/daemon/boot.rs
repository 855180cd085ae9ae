//! Boot order, and what a reload does.
//!
//! ```text
//! harden ─► log ─► signals ─► lock ─► socket, runtime ─► store, sources, tasks ─► cluster, READY ─► orders ─► STOPPING
//! ```
//! The log comes before everything that may have something to say, the signals before everything that takes long, the
//! lock before the first look into the state directory. All of it is done before the runtime exists. What comes behind it may
//! take long after a crash: the service manager is told so, and an order to stop is followed at once.

use std::process::ExitCode;
use std::time::Duration;

use crate::config::{StartError, WorkerConfig};
use crate::control::PortError;
use crate::control::master::JoinError;

use super::hardening::harden;
use super::lock::{LockError, StateLock};
use super::logging::{Logging, LoggingError};
use super::notify::Notifier;
use super::service::{Prepared, Service, ServiceError, open_store};
use super::signals::{Hangup, Order, SignalWatch};

/// Exit code of a configuration that cannot be run, as dm-worker's. Restarting does not help.
const EXIT_CONFIG: u8 = 2;

/// What every later step stands on. Fields are dropped in this order: the lock goes before the last log line.
#[derive(Debug)]
pub struct Foundation {
    /// As it is now: reloads change it.
    pub config: WorkerConfig,
    /// Orders by signal.
    pub signals: SignalWatch,
    /// The way to the service manager.
    pub notifier: Notifier,
    /// The right to use the state directory.
    pub lock: StateLock,
    /// The log.
    pub logging: Logging,
    /// The order to stop came while sources and tasks were being loaded.
    stop_at_once: bool,
}

/// Why the process cannot even begin.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The log cannot be written.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The state directory cannot be used, or is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The agent itself cannot start.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The system refused something that always works.
    #[error("{action}: {source}")]
    System {
        /// What was asked of it.
        action: &'static str,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
}

impl Foundation {
    /// Lays it. Call it once, first, without other threads.
    pub fn lay(config: WorkerConfig) -> Result<Self, BootError> {
        let system = |action| move |source| BootError::System { action, source };
        harden(config.agent.allow_core_dump).map_err(system("switch core dumps off"))?;
        let logging = Logging::start(&config.log)?;
        let hangup = if config.joins() { Hangup::Stops } else { Hangup::Reloads };
        let signals = SignalWatch::start(hangup).map_err(system("take signals over"))?;
        let lock = StateLock::acquire(&config.agent.state_dir)?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            name = config.name,
            state_dir = %config.agent.state_dir.display(),
            admin_socket = %config.agent.admin_socket.display(),
            masters = config.join.len(),
            "start"
        );
        for note in config.notes() {
            tracing::warn!(note, "option without effect");
        }
        Ok(Foundation { config, signals, notifier: Notifier::of_process(), lock, logging, stop_at_once: false })
    }

    /// Takes over from file and flags what can change while running: log level, log file (opened anew), secret key.
    /// The caller tells the service manager before and after.
    pub fn reload(&mut self) -> Result<(), StartError> {
        self.logging.reopen();
        let new = self.config.reload()?;
        self.logging.level().set(&new.log.level);
        self.config.log.level.clone_from(&new.log.level);
        self.config.agent.secret_key.clone_from(&new.agent.secret_key);
        if new != self.config {
            tracing::warn!("other changes of the configuration take effect at a restart");
        }
        tracing::info!(level = %new.log.level, "configuration reloaded");
        Ok(())
    }
}

/// Starting and draining may take twice this beyond what the service manager was told, said anew while they go on.
const STEP: Duration = Duration::from_secs(10);
/// How often the service manager hears of the state.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// How the daemon's life ended.
enum End {
    /// Told to stop.
    Told,
    /// A part of it died that it cannot be without.
    Died,
    /// The cluster does not take this worker in.
    Refused(JoinError),
}

/// Runs the daemon until it is told to stop.
pub fn run(config: WorkerConfig) -> ExitCode {
    let mut foundation = match Foundation::lay(config) {
        Ok(foundation) => foundation,
        Err(error) => return refuse(&error),
    };
    match start(&mut foundation) {
        Ok(Some(service)) => live(&mut foundation, service),
        Ok(None) => {
            tracing::info!("stop: told so while starting");
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&BootError::Service(error)),
    }
}

/// From the foundation to a service that is loaded; `None` where an order to stop came before the store was open.
fn start(foundation: &mut Foundation) -> Result<Option<Service>, ServiceError> {
    let level = foundation.logging.level().clone();
    let prepared = Prepared::new(&foundation.config)?;
    let state_dir = foundation.config.agent.state_dir.clone();
    let opened = prepared.runtime().block_on(unless_told(foundation, "opening the store", open_store(&state_dir)));
    let Some(db) = opened else { return Ok(None) };
    let mut service = Service::start(prepared, db?, &foundation.config, level)?;
    let load = service.load();
    match service.runtime().block_on(unless_told(foundation, "loading sources and tasks", load)) {
        Some(loaded) => {
            if let Err(error) = loaded.and_then(|()| service.join(&foundation.config)) {
                service.end();
                return Err(error);
            }
        }
        // What is loaded is drained like any other.
        None => foundation.stop_at_once = true,
    }
    Ok(Some(service))
}

/// Does something that may take long, unless an order to stop comes first.
async fn unless_told<T>(foundation: &mut Foundation, doing: &str, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    foundation.notifier.status(doing);
    loop {
        foundation.notifier.extend_timeout(2 * STEP);
        tokio::select! {
            biased;
            order = foundation.signals.next() => {
                if order != Some(Order::Reload) {
                    return None;
                }
            }
            done = &mut work => return Some(done),
            () = tokio::time::sleep(STEP) => {}
        }
    }
}

fn live(foundation: &mut Foundation, mut service: Service) -> ExitCode {
    let end = if foundation.stop_at_once {
        End::Told
    } else {
        foundation.notifier.ready(&service.status_line());
        tracing::info!("ready");
        let data = service.runtime().handle().clone();
        data.block_on(serve(foundation, &mut service))
    };
    service.close();
    foundation.notifier.stopping("draining");
    match end {
        End::Told | End::Refused(_) => match service.runtime().block_on(drain(foundation, &service)) {
            true => service.end(),
            false => service.abandon(),
        },
        End::Died => service.abandon(),
    }
    tracing::info!("stop (dm-worker exit)");
    match end {
        End::Told => ExitCode::SUCCESS,
        End::Died => ExitCode::FAILURE,
        End::Refused(error) => refuse(&BootError::Service(error.into())),
    }
}

/// Until an order to stop comes, or there is no use in going on.
async fn serve(foundation: &mut Foundation, service: &mut Service) -> End {
    let beat = foundation.notifier.watchdog_interval().map_or(STATUS_INTERVAL, |limit| limit.min(STATUS_INTERVAL));
    loop {
        tokio::select! {
            biased;
            error = service.refused() => return End::Refused(error),
            order = foundation.signals.next() => match order {
                Some(Order::Reload) => reload(foundation, service).await,
                Some(Order::Drain | Order::Abort) | None => return End::Told,
            },
            () = tokio::time::sleep(beat) => {
                if let Some(part) = service.dead() {
                    tracing::error!(part, "a part of the daemon has died, so it ends");
                    return End::Died;
                }
                foundation.notifier.status(&service.status_line());
                match service.stuck() {
                    None => foundation.notifier.alive(),
                    // Without a watchdog nobody acts on it but who reads this.
                    Some(part) => tracing::error!(part, "it has not moved for a long time; the watchdog is not told that all is well"),
                }
            }
        }
    }
}

async fn reload(foundation: &mut Foundation, service: &Service) {
    foundation.notifier.reloading();
    match foundation.reload() {
        Ok(()) => service.set_secret_key(foundation.config.agent.secret_key.clone()).await,
        Err(error) => tracing::error!(%error, "reload configuration"),
    }
    foundation.notifier.ready(&service.status_line());
}

/// Drains; false when a second order said at once.
async fn drain(foundation: &mut Foundation, service: &Service) -> bool {
    let drained = crate::runtime::spawn("drain", service.drain());
    tokio::pin!(drained);
    loop {
        foundation.notifier.extend_timeout(2 * STEP);
        foundation.notifier.alive();
        tokio::select! {
            _ = &mut drained => return true,
            order = foundation.signals.next() => {
                if order != Some(Order::Reload) {
                    tracing::warn!("told a second time to stop: not draining any further");
                    return false;
                }
            }
            () = tokio::time::sleep(STEP) => {}
        }
    }
}

/// Says why on standard error, and in the log if that is elsewhere.
fn refuse(error: &BootError) -> ExitCode {
    tracing::error!(%error, "start");
    match error {
        // dm-worker's words; tools match on them.
        BootError::Logging(error) => {
            super::print(&mut std::io::stdout(), &format!("init logger error init logger failed\n  {error}\n"));
            ExitCode::from(EXIT_CONFIG)
        }
        BootError::Lock(LockError::Held { .. }) | BootError::System { .. } => {
            super::print(&mut std::io::stderr(), &format!("dm-agent: {error}\n"));
            ExitCode::FAILURE
        }
        BootError::Service(
            ServiceError::Store(_)
            | ServiceError::Load(_)
            | ServiceError::System(..)
            | ServiceError::Join(JoinError::Port(PortError::Listen(..)) | JoinError::System(_)),
        ) => {
            super::print(&mut std::io::stderr(), &format!("dm-agent: {error}\n"));
            ExitCode::FAILURE
        }
        BootError::Lock(_) | BootError::Service(_) => {
            super::print(&mut std::io::stderr(), &format!("dm-agent: {error}\n"));
            ExitCode::from(EXIT_CONFIG)
        }
    }
}
