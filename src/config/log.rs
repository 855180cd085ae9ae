//! What a configuration says about the log.

use std::fmt;
use std::path::PathBuf;

use super::agent::LogTarget;
use super::section::nearest_name;

/// DM's levels of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the variants are DM's words
pub enum LogLevel {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
    Fatal,
}

impl LogLevel {
    const WORDS: [(&str, LogLevel); 5] = [
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
        ("fatal", LogLevel::Fatal),
    ];

    /// Reads DM's word, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, level)| *level)
    }

    /// DM's word.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, level)| *level == self).map_or("", |(word, _)| word)
    }
}

/// Modules that can have a level of their own: those at the top of the crate, and what is below them.
pub const LOG_MODULES: &[&str] = &[
    "apply",
    "binlog",
    "checkpoint",
    "clock",
    "config",
    "control",
    "ctl",
    "daemon",
    "decode",
    "dispatch",
    "downstream",
    "error",
    "meta",
    "model",
    "mysql",
    "pipeline",
    "relay",
    "row",
    "runtime",
    "schema",
    "snapshot",
    "store",
    "supervisor",
    "task",
    "tls",
    "transform",
    "upstream",
];

/// Which lines are written: those from a level up, and for single modules from another one up.
///
/// Written as `info,relay=debug,apply::lane=warn`. Only modules of the agent: lines of libraries may hold statements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFilter {
    /// Everywhere else.
    pub level: LogLevel,
    /// Path below the crate (`relay::storage`) and level.
    pub modules: Vec<(String, LogLevel)>,
}

impl LogFilter {
    /// Reads a level, `module=level`, or several of these with commas. An error says which part is wrong, and what to
    /// give.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut filter = LogFilter::default();
        let level = |word: &str, part: &str| {
            let known = "give `debug`, `info`, `warn`, `error` or `fatal`";
            LogLevel::parse(word.trim()).ok_or_else(|| format!("{part:?} is not a log level; {known}"))
        };
        for part in text.split(',').map(str::trim) {
            let Some((module, word)) = part.split_once('=') else {
                filter.level = level(part, part)?;
                continue;
            };
            let path = module.trim().strip_prefix("dm_agent::").unwrap_or(module.trim());
            let top = path.split("::").next().unwrap_or_default();
            if !LOG_MODULES.contains(&top) {
                let remedy = match nearest_name(top, LOG_MODULES) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("give one of {}", LOG_MODULES.join(", ")),
                };
                return Err(format!("{part:?}: `{top}` is not a module of the agent; {remedy}"));
            }
            filter.modules.push((path.to_owned(), level(word, part)?));
        }
        Ok(filter)
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.level.as_str())?;
        self.modules.iter().try_for_each(|(module, level)| write!(f, ",{module}={}", level.as_str()))
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Text.
    Text,
    /// Text as a dm-worker writes it.
    Unified,
    /// One JSON object a line.
    Json,
}

/// Where the log goes, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogConfig {
    /// Which lines are written.
    pub level: LogFilter,
    /// Their form; the journal has its own.
    pub format: LogFormat,
    /// Append here; `None` for the target.
    pub file: Option<PathBuf>,
    /// Where they go without a file.
    pub target: LogTarget,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_printed() {
        for (text, printed) in [
            ("info", "info"),
            ("WARN", "warn"),
            ("info,relay=debug", "info,relay=debug"),
            ("relay=debug", "info,relay=debug"),
            (" error , dm_agent::apply::lane = info", "error,apply::lane=info"),
        ] {
            assert_eq!(LogFilter::parse(text).unwrap().to_string(), printed);
        }
        for (text, said) in [
            ("", "\"\" is not a log level"),
            ("loud", "\"loud\" is not a log level; give `debug`"),
            ("info,relay=loud", "\"relay=loud\" is not a log level"),
            ("info,realy=debug", "`realy` is not a module of the agent; did you mean `relay`?"),
            ("mysql_async=debug", "`mysql_async` is not a module of the agent; give one of apply, "),
            ("info,", "\"\" is not a log level"),
        ] {
            let error = LogFilter::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn the_modules_are_those_of_the_crate() {
        let lib = include_str!("../lib.rs");
        let modules: Vec<_> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
        assert_eq!(modules, LOG_MODULES);
    }
}
