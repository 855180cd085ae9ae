//! The log: text on a terminal, a dm-worker's form in a cluster, JSON elsewhere, fields in the journal; one level, changeable
//! while running.
//!
//! Our own lines follow the level. Those of the libraries are shown from `warn` up, at any level: a driver's debug
//! lines may hold statements, and so rows.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::fstat;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{LogConfig, LogFilter, LogFormat, LogLevel, LogTarget};

use super::output::Output;
use super::unified::Unified;

/// How long the end of the process waits for the last lines.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

type Filtered = tracing_subscriber::layer::Layered<reload::Layer<Targets, Registry>, Registry>;
type FormatLayer = Box<dyn Layer<Filtered> + Send + Sync>;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The file or the journal cannot be opened.
    #[error("open log {place}: {source}")]
    Open {
        /// Which.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is one already in this process.
    #[error("the log is set up already")]
    AlreadySetUp,
}

/// The running log. Dropping it writes out what is queued.
#[derive(Debug)]
pub struct Logging {
    level: LevelHandle,
    output: Option<Output>,
}

/// Changes the level of the running log. Clones change the same log.
#[derive(Debug, Clone)]
pub struct LevelHandle {
    filter: reload::Handle<Targets, Registry>,
    current: Arc<Mutex<LogFilter>>,
}

impl Logging {
    /// Sets the process's log up. Call it once.
    pub fn start(config: &LogConfig) -> Result<Self, LoggingError> {
        let (output, format) = open(config)?;
        let (filter, level) = LevelHandle::new(&config.level);
        let subscriber = tracing_subscriber::registry().with(filter).with(format);
        subscriber.try_init().map_err(|_| LoggingError::AlreadySetUp)?;
        Ok(Logging { level, output })
    }

    /// The handle for the admin socket and for reloads.
    pub fn level(&self) -> &LevelHandle {
        &self.level
    }

    /// Opens a log file anew, after it was moved away.
    pub fn reopen(&self) {
        if let Some(output) = &self.output {
            output.reopen();
        }
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(output) = &self.output {
            output.flush(FLUSH_LIMIT);
        }
    }
}

impl LevelHandle {
    fn new(level: &LogFilter) -> (reload::Layer<Targets, Registry>, Self) {
        let (layer, filter) = reload::Layer::new(targets(level));
        (layer, LevelHandle { filter, current: Arc::new(Mutex::new(level.clone())) })
    }

    /// What is written now.
    pub fn get(&self) -> LogFilter {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it, for every line from now on.
    pub fn set(&self, level: &LogFilter) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails only when the subscriber is gone, and then nobody sees a line anyway.
        if self.filter.reload(targets(level)).is_ok() {
            current.clone_from(level);
        }
    }
}

/// Our lines from their level up, those of libraries from `warn` up, or from the level where that is less.
fn targets(filter: &LogFilter) -> Targets {
    let ours = level_filter(filter.level);
    let targets = Targets::new()
        .with_default(ours.min(LevelFilter::WARN))
        // It calls its own orderly end an error; what matters of its errors comes back to us as results.
        .with_target("sled", LevelFilter::OFF)
        // Who changed what is kept at every level.
        .with_target("audit", LevelFilter::INFO)
        .with_target("dm_agent", ours);
    let modules = filter.modules.iter();
    modules.fold(targets, |targets, (module, level)| {
        targets.with_target(format!("dm_agent::{module}"), level_filter(*level))
    })
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        // There is nothing above an error here: what would be fatal ends the process with a line of its own.
        LogLevel::Error | LogLevel::Fatal => LevelFilter::ERROR,
    }
}

/// The place and form of lines: a file, the journal, or standard error.
fn open(config: &LogConfig) -> Result<(Option<Output>, FormatLayer), LoggingError> {
    if config.file.is_none() {
        let wanted = config.target == LogTarget::Journald;
        if wanted || (config.target == LogTarget::Auto && stderr_is_journal()) {
            match tracing_journald::layer() {
                Ok(layer) => {
                    let layer = layer.with_syslog_identifier("dm-agent".into()).with_field_prefix(Some("DM".into()));
                    return Ok((None, layer.boxed()));
                }
                Err(source) if wanted => return Err(LoggingError::Open { place: "journal".into(), source }),
                // systemd takes lines from standard error as well.
                Err(_) => {}
            }
        }
    }
    let output = Output::start(config.file.as_deref()).map_err(|source| {
        let place = config.file.as_ref().map_or_else(|| "thread".into(), |path| path.display().to_string());
        LoggingError::Open { place, source }
    })?;
    let terminal = config.file.is_none() && io::stderr().is_terminal();
    let format = format_layer(config.format, terminal, output.clone());
    Ok((Some(output), format))
}

fn format_layer(format: LogFormat, terminal: bool, output: Output) -> FormatLayer {
    // Errors of writing must not be printed: that would panic on the same closed pipe.
    let layer = fmt::layer().with_writer(move || output.clone()).log_internal_errors(false).with_ansi(terminal);
    match format {
        LogFormat::Auto if terminal => layer.boxed(),
        LogFormat::Text => layer.boxed(),
        LogFormat::Unified => layer.with_ansi(false).fmt_fields(Unified).event_format(Unified).boxed(),
        // The span list holds the innermost span, too.
        LogFormat::Json | LogFormat::Auto => layer.json().flatten_event(true).with_current_span(false).boxed(),
    }
}

/// Whether standard error is the socket that systemd named in `$JOURNAL_STREAM`, and not something it was sent to since.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stat| is_stream(&stream, stat.st_dev, stat.st_ino))
}

fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(left, right)| left.parse() == Ok(device) && right.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(format: LogFormat, level: &str, act: impl FnOnce(&LevelHandle)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let level = LogFilter::parse(level).unwrap();
        let config = LogConfig { level, format, file: Some(path.clone()), target: LogTarget::Auto };
        let (output, format) = open(&config).unwrap();
        let (filter, level) = LevelHandle::new(&config.level);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter).with(format), || act(&level));
        output.unwrap().flush(Duration::from_secs(10));
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn lines_have_fields_and_spans() {
        let json = logged(LogFormat::Auto, "info", |_| {
            let _span = tracing::info_span!("task", task = "t1", source = "s1").entered();
            tracing::info!(gtid = "a:1", "parked");
        });
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&line["message"], &line["gtid"], &line["spans"][0]["task"]),
            (&"parked".into(), &"a:1".into(), &"t1".into())
        );
        let text = logged(LogFormat::Text, "info", |_| tracing::info!(gtid = "a:1", "parked"));
        assert!(text.contains("INFO") && text.contains("parked") && text.contains("gtid=\"a:1\""), "{text}");
        assert!(!text.contains('\u{1b}'), "no colours in a file");
    }

    /// What reads a dm-worker's log reads this one: TiDB's unified form.
    #[test]
    fn a_clusters_lines_have_the_form_of_a_dm_workers() {
        let text = logged(LogFormat::Unified, "debug", |_| {
            let _span = tracing::info_span!("task", role = "pipeline", place = "a b").entered();
            let exit = "position: (mysql-bin.000001, 4), gtid-set: ";
            tracing::info!(task = "t=1", unit = "binlog replication", exitPoint = %exit, "compare [both]\nends");
            tracing::debug!(rows = 3, "counted");
        });
        let lines: Vec<_> = text.lines().collect();
        let form = regex::Regex::new(
            r"^\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{3} \+00:00\] \[(INFO|DEBUG)\] \[logging\.rs:\d+\] \[",
        );
        let form = form.unwrap();
        assert!(lines.len() == 2 && lines.iter().all(|line| form.is_match(line)), "{text}");
        let first = r#"["compare [both]\nends"] [task="t=1"] [unit="binlog replication"] [exitPoint="position: (mysql-bin.000001, 4), gtid-set: "] [role=pipeline] [place="a b"]"#;
        assert!(lines[0].ends_with(first), "{text}");
        assert!(lines[1].ends_with(r#"[counted] [rows=3] [role=pipeline] [place="a b"]"#), "{text}");
    }

    #[test]
    fn the_level_changes_while_running() {
        let text = logged(LogFormat::Text, "warn", |level| {
            tracing::info!("first");
            level.set(&LogFilter::parse("debug").unwrap());
            assert_eq!(level.get().to_string(), "debug");
            tracing::debug!("second");
            tracing::info!(target: "mysql_async", "third");
            tracing::warn!(target: "mysql_async", "fourth");
            level.set(&LogFilter::parse("fatal").unwrap());
            tracing::warn!("fifth");
            tracing::error!("sixth");
        });
        let seen: Vec<_> =
            ["first", "second", "third", "fourth", "fifth", "sixth"].map(|word| text.contains(word)).into();
        assert_eq!(seen, [false, true, false, true, false, true], "{text}");
    }

    #[test]
    fn a_module_can_have_a_level_of_its_own() {
        let text = logged(LogFormat::Text, "warn,relay=debug,apply=error", |_| {
            tracing::debug!(target: "dm_agent::relay::storage", "first");
            tracing::info!(target: "dm_agent::task", "second");
            tracing::warn!(target: "dm_agent::apply::lane", "third");
            tracing::error!(target: "dm_agent::apply::lane", "fourth");
        });
        let seen: Vec<_> = ["first", "second", "third", "fourth"].map(|word| text.contains(word)).into();
        assert_eq!(seen, [true, false, false, true], "{text}");
    }

    #[test]
    fn the_journal_is_known_by_its_stream() {
        assert!(is_stream("8:1234", 8, 1234));
        for stream in ["", "8", "8:", "8:1235", "9:1234", "x:y"] {
            assert!(!is_stream(stream, 8, 1234), "{stream}");
        }
    }

    #[test]
    fn an_impossible_file_is_named() {
        let config = LogConfig { file: Some("/nowhere/log".into()), ..LogConfig::default() };
        let error = open(&config).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("open log /nowhere/log: No such file"), "{error}");
    }
}
