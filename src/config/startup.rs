//! From the command line and the file it names to a [`WorkerConfig`], or to dm-worker's words why not.
//!
//! Flags go before the file, the file before defaults. What dm-worker has a text for is refused with that text,
//! exactly, on one line of standard output and with exit code 2, because deployment tools match on it; everything that
//! is wrong, with its remedy, follows on the lines below it.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{join_addresses, listen_problems};
use super::agent::{AgentConfig, Environment};
use super::database::Security;
use super::flags::{self, FlagError, Flags};
use super::kept::Kept;
use super::keys;
use super::log::{LogConfig, LogFilter, LogFormat};
use super::node::Node;
use super::section::{Problem, Report, Section, root};
use super::worker::WorkerConfig;
use crate::model::VERSION_LINES;

/// The commented file that `--print-sample-config` prints.
pub const SAMPLE: &str = include_str!("../../config/dm-agent.toml");

const HEAD: &str = "parse cmd flags err: ";

/// What a command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run the daemon.
    Run(Box<WorkerConfig>),
    /// Print this and exit with 0.
    Print(String),
}

/// Why the daemon does not start. The exit code is 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", stdout.trim_end())]
pub struct StartError {
    /// For standard output: dm-worker's line, then what is wrong in detail.
    pub stdout: String,
    /// For standard error: the usage, where a flag is wrong.
    pub stderr: String,
}

impl StartError {
    fn new(announcement: &str, headline: &str, details: &[String]) -> Self {
        let mut stdout = String::new();
        if !announcement.is_empty() {
            stdout.push_str(&format!("{announcement}\n"));
        }
        stdout.push_str(&format!("{headline}\n"));
        details.iter().for_each(|detail| stdout.push_str(&format!("  {detail}\n")));
        StartError { stdout, stderr: String::new() }
    }

    fn of_flag(error: FlagError) -> Self {
        match error {
            FlagError::Stray(argument) => Self::new("", &format!("{HEAD}'{argument}' is an invalid flag"), &[]),
            FlagError::Flag(text) => {
                let headline = format!("{HEAD}parse dm-worker config flag set");
                StartError {
                    stderr: format!("{}\n{}", text.trim_end(), flags::help()),
                    ..Self::new("", &headline, &[])
                }
            }
        }
    }
}

impl Invocation {
    /// Reads a command line without the program's name, and the file it names.
    pub fn from_command_line(arguments: Vec<String>, environment: Environment) -> Result<Self, StartError> {
        let flags = flags::parse(&arguments).map_err(StartError::of_flag)?;
        if flags.help {
            return Ok(Invocation::Print(flags::help()));
        }
        if flags.version {
            return Ok(Invocation::Print(format!("{VERSION_LINES}\n")));
        }
        if flags.print_sample_config {
            return Ok(Invocation::Print(SAMPLE.to_owned()));
        }
        load(arguments, environment).map(|config| Invocation::Run(Box::new(config)))
    }
}

impl WorkerConfig {
    /// Reads the same command line and file again, for a reload. Nothing of `self` changes.
    pub fn reload(&self) -> Result<WorkerConfig, StartError> {
        load(self.arguments.clone(), self.environment.clone())
    }
}

/// Reads the configuration that a command line gives.
fn load(arguments: Vec<String>, environment: Environment) -> Result<WorkerConfig, StartError> {
    let flags = flags::parse(&arguments).map_err(StartError::of_flag)?;
    let config_file = flags.config_file.clone().map(PathBuf::from);
    let tree = Ok(read_tree(flags)?);
    let report = Report::strict();
    let mut reading = Reading { addresses: Vec::new(), bad_level: None, announcement: String::new() };
    let section = root(&tree, &[keys::WORKER], &report);
    let config = reading.read(section, arguments, environment, config_file.clone());
    let (problems, unknown) = report.into_parts();
    match reading.headline(config_file.is_some(), &unknown, &problems) {
        None => Ok(config),
        Some(headline) => {
            let mut details: Vec<String> = problems.iter().map(Problem::to_string).collect();
            details.extend(reading.addresses.iter().filter(|text| !headline.ends_with(text.as_str())).cloned());
            details.extend(reading.bad_level.iter().map(|text| format!("log-level: {text}")));
            // dm-worker announces the name when everything but the level has been found good.
            let announcement = if headline.starts_with(HEAD) { "" } else { &reading.announcement };
            Err(StartError::new(announcement, &headline, &details))
        }
    }
}

/// The file's tree with the flags put over it.
fn read_tree(flags: Flags) -> Result<Node, StartError> {
    let mut entries = match &flags.config_file {
        None => Vec::new(),
        Some(path) => {
            let decode = |reason: String| {
                StartError::new("", &format!("{HEAD}toml decode file"), &[format!("{path}: {reason}")])
            };
            let text = std::fs::read_to_string(path).map_err(|error| decode(error.to_string()))?;
            match Node::from_toml(&text).map_err(|error| decode(error.to_string()))? {
                Node::Table(entries) => entries,
                other => return Err(decode(format!("must be a table of keys, not {}", other.kind()))),
            }
        }
    };
    for (key, value) in flags.values {
        put(&mut entries, key, value);
    }
    if !flags.agent_values.is_empty() {
        let index = entries.iter().position(|(key, _)| key == "agent").unwrap_or_else(|| {
            entries.push(("agent".to_owned(), Node::Table(Vec::new())));
            entries.len() - 1
        });
        if let Some((_, Node::Table(agent))) = entries.get_mut(index) {
            flags.agent_values.into_iter().for_each(|(key, value)| put(agent, key, value));
        }
    }
    Ok(Node::Table(entries))
}

fn put(entries: &mut Vec<(String, Node)>, key: String, value: Node) {
    match entries.iter_mut().find(|(known, _)| *known == key) {
        Some((_, place)) => *place = value,
        None => entries.push((key, value)),
    }
}

/// What dm-worker has its own words for, apart from the other problems.
struct Reading {
    addresses: Vec<String>,
    bad_level: Option<String>,
    announcement: String,
}

impl Reading {
    fn read(
        &mut self,
        section: Section<'_>,
        arguments: Vec<String>,
        environment: Environment,
        config_file: Option<PathBuf>,
    ) -> WorkerConfig {
        let text = |key| section.text(key).unwrap_or_default();
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let seconds = |key, default| Duration::from_secs(section.int(key, 1..=2_592_000u64).unwrap_or(default));
        let join = read_join(&section);
        let mut addresses = (text("worker-addr"), text("advertise-addr"));
        // An agent that stands alone needs no address.
        if !join.is_empty() || !addresses.0.is_empty() {
            self.addresses = listen_problems(&addresses.0, &addresses.1);
            if addresses.1.is_empty() {
                addresses.1.clone_from(&addresses.0);
            }
        }
        let mut name = text("name");
        if name.is_empty() && !addresses.0.is_empty() {
            name.clone_from(&addresses.1);
            self.announcement =
                format!("worker name is not given, we will set AdvertiseAddr {name} as the worker name");
        }
        let name = given(name).unwrap_or_else(|| environment.host_name.clone());
        let worker = (!join.is_empty()).then_some(name.as_str());
        let agent = match section.section("agent", &[keys::AGENT]) {
            Some(table) => {
                let agent = AgentConfig::read(&table, &environment, worker);
                table.finish();
                agent
            }
            None => AgentConfig::read(&section.empty_child("agent", &[keys::AGENT]), &environment, worker),
        };
        let mut log = LogConfig { target: agent.log_target, ..self.read_log(&section) };
        if log.format != LogFormat::Json && !join.is_empty() {
            // As a dm-worker's: whatever reads its log goes on.
            log.format = LogFormat::Unified;
        }
        let config = WorkerConfig {
            name,
            log,
            join,
            worker_addr: given(addresses.0),
            advertise_addr: given(addresses.1),
            keepalive_ttl: seconds("keepalive-ttl", 60),
            relay_keepalive_ttl: seconds("relay-keepalive-ttl", 1800),
            security: Security::read_keys(&section),
            agent,
            config_file,
            announcement: self.announcement.clone(),
            kept: Kept::read(&section, keys::WORKER),
            arguments,
            environment,
        };
        section.finish();
        config
    }

    fn read_log(&mut self, section: &Section<'_>) -> LogConfig {
        let word = section.text("log-level").filter(|word| !word.is_empty());
        let level = word.as_deref().map_or_else(|| Ok(LogFilter::default()), LogFilter::parse);
        self.bad_level = level.as_ref().err().cloned();
        LogConfig {
            level: level.unwrap_or_default(),
            format: section
                .choice("log-format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])
                .unwrap_or_default(),
            file: section.text("log-file").filter(|file| !file.is_empty()).map(PathBuf::from),
            ..LogConfig::default()
        }
    }

    /// dm-worker's text for the first thing it would have complained about; `None` if all is well.
    fn headline(&self, from_file: bool, unknown: &[String], problems: &[Problem]) -> Option<String> {
        if problems.len() > unknown.len() {
            let text = if from_file { "toml decode file" } else { "worker config is not valid" };
            return Some(format!("{HEAD}{text}"));
        }
        if !unknown.is_empty() {
            return Some(format!("{HEAD}worker config contains unknown configuration options: {}", unknown.join(",")));
        }
        if let Some(text) = self.addresses.first() {
            return Some(format!("{HEAD}{text}"));
        }
        self.bad_level.as_ref().map(|_| "init logger error init logger failed".to_owned())
    }
}

/// The masters; a list is taken as well as dm-worker's text with commas.
fn read_join(section: &Section<'_>) -> Vec<String> {
    let list = section.texts("join").unwrap_or_default().join(",");
    let (good, bad) = join_addresses(&list);
    for entry in bad {
        section.problem(
            "join",
            format!("{entry:?} is not an address; give the masters as `host:port`, separated by commas"),
        );
    }
    good
}
