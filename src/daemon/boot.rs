//! Boot order, and what a reload does.
//!
//! ```text
//! harden ─► log ─► signals ─► lock ─► (runtime, store, sockets) ─► READY ─► orders ─► STOPPING
//! ```
//! The log comes before everything that may have something to say, the signals before everything that takes long, the
//! lock before the first look into the state directory. All of it is done before the runtime exists.

use std::process::ExitCode;

use crate::config::{StartError, WorkerConfig};

use super::hardening::harden;
use super::lock::{LockError, StateLock};
use super::logging::{Logging, LoggingError};
use super::notify::Notifier;
use super::signals::{Order, SignalWatch};

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
        let signals = SignalWatch::start().map_err(system("take signals over"))?;
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
        Ok(Foundation { config, signals, notifier: Notifier::of_process(), lock, logging })
    }

    /// Takes over from file and flags what can change while running: log level, log file (opened anew), secret key.
    /// The caller tells the service manager before and after.
    pub fn reload(&mut self) -> Result<(), StartError> {
        self.logging.reopen();
        let new = self.config.reload()?;
        self.logging.level().set(new.log.level);
        self.config.log.level = new.log.level;
        self.config.agent.secret_key.clone_from(&new.agent.secret_key);
        if new != self.config {
            tracing::warn!("other changes of the configuration take effect at a restart");
        }
        tracing::info!(level = new.log.level.as_str(), "configuration reloaded");
        Ok(())
    }
}

/// Runs the daemon until it is told to stop.
pub fn run(config: WorkerConfig) -> ExitCode {
    let mut foundation = match Foundation::lay(config) {
        Ok(foundation) => foundation,
        Err(error) => return refuse(&error),
    };
    foundation.notifier.ready("no task");
    while let Some(order) = foundation.signals.blocking_next() {
        match order {
            Order::Reload => {
                foundation.notifier.reloading();
                if let Err(error) = foundation.reload() {
                    tracing::error!(%error, "reload configuration");
                }
                foundation.notifier.ready("no task");
            }
            Order::Drain | Order::Abort => break,
        }
    }
    foundation.notifier.stopping("stopping");
    tracing::info!("stop");
    ExitCode::SUCCESS
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
        BootError::Lock(_) => {
            super::print(&mut std::io::stderr(), &format!("dm-agent: {error}\n"));
            ExitCode::from(EXIT_CONFIG)
        }
    }
}
