//! The daemon's command line: dm-worker's flags, `-x` and `--x` alike, and two of our own.
//!
//! dm-worker's flags are Go's: one dash or two before any name, a value behind `=` or as the next argument, no letters
//! run together. They are rewritten to clap's form first, by the definitions given to clap, so there is one list.

use clap::{Arg, ArgAction, Command};

use super::node::Node;
use super::section::nearest_name;

/// What is wrong with a command line, in Go's words where it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FlagError {
    /// The text for standard error, above the usage.
    Flag(String),
    /// An argument that is no flag.
    Stray(String),
}

/// What a command line asks for.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub help: bool,
    pub version: bool,
    pub print_sample_config: bool,
    pub config_file: Option<String>,
    /// Top-level keys of the file that flags replace.
    pub values: Vec<(String, Node)>,
    /// Keys of `[agent]` that flags replace.
    pub agent_values: Vec<(String, Node)>,
}

/// Flags of `[agent]`; every other one with a value is a top-level key of the file.
const AGENT_FLAGS: &[&str] = &["state-dir", "admin-socket"];
const NUMBER_FLAGS: &[&str] = &["keepalive-ttl", "relay-keepalive-ttl"];

/// The definition of every flag.
pub(super) fn command() -> Command {
    let value = |name: &'static str, place: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(place).action(ArgAction::Set).help(help)
    };
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let heading = "With a dm-master";
    Command::new("dm-agent")
        .about("Follows MySQL and MariaDB binlogs, applies them exactly once, and parks on pause.")
        .long_about(
            "Follows MySQL and MariaDB binlogs, applies them exactly once, and parks on pause.\n\nWith --join it is a \
             worker of a TiDB Data Migration cluster; without, it stands alone and dm-agentctl drives it over its admin \
             socket. Flags come before the configuration file. Every flag may be written with one dash or two.",
        )
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args([
            value("config", "FILE", "Configuration file: dm-worker.toml's keys and a table [agent]"),
            value("name", "NAME", "Name of this worker [default: the advertised address, or the host's name]"),
            value("log-level", "LEVEL", "debug, info, warn, error or fatal [default: info]").short('L'),
            value("log-file", "FILE", "Write the log there; SIGUSR1 opens it anew [default: standard error or the journal]"),
            value("log-format", "FORMAT", "text or json [default: text on a terminal and with join, else json]"),
            switch("redact-info-log", "Taken for dm-worker's sake: row data is never logged"),
            value("state-dir", "DIR", "Where everything is kept that must outlive the process"),
            value("admin-socket", "PATH", "The socket that dm-agentctl talks to"),
            value("join", "ADDRESSES", "dm-master addresses, host:port, separated by commas").help_heading(heading),
            value("worker-addr", "ADDRESS", "Address to listen on, host:port").help_heading(heading),
            value("advertise-addr", "ADDRESS", "Address that masters dial [default: worker-addr]").help_heading(heading),
            value("keepalive-ttl", "SECONDS", "How long the cluster waits for a silent worker [default: 60]").help_heading(heading),
            value("relay-keepalive-ttl", "SECONDS", "The same while a relay log is assigned [default: 1800]").help_heading(heading),
            value("ssl-ca", "FILE", "Certificate authorities to trust, PEM").help_heading(heading),
            value("ssl-cert", "FILE", "Our certificate, PEM").help_heading(heading),
            value("ssl-key", "FILE", "Its private key, PEM").help_heading(heading),
            value("cert-allowed-cn", "NAMES", "Common names that may connect, separated by commas").help_heading(heading),
            switch("print-sample-config", "Print a commented configuration file and exit"),
            switch("version", "Print the version and exit").short('V'),
            switch("help", "Print this and exit").short('h'),
        ])
}

/// What `--help` prints.
pub(super) fn help() -> String {
    command().render_long_help().to_string()
}

/// Reads a command line without the program's name.
pub(super) fn parse(arguments: &[String]) -> Result<Flags, FlagError> {
    let command = command();
    let rewritten = to_clap(&command, arguments)?;
    let matches = command.try_get_matches_from(rewritten).map_err(|error| FlagError::Flag(error.to_string()))?;
    let mut flags = Flags {
        help: matches.get_flag("help"),
        version: matches.get_flag("version"),
        print_sample_config: matches.get_flag("print-sample-config"),
        config_file: matches.get_one::<String>("config").cloned(),
        ..Flags::default()
    };
    if matches.get_flag("redact-info-log") {
        flags.values.push(("redact-info-log".into(), Node::Bool(true)));
    }
    for id in matches.ids().map(clap::Id::as_str).filter(|id| *id != "config") {
        let Ok(Some(value)) = matches.try_get_one::<String>(id) else { continue };
        let entry = (id.to_owned(), value_node(id, value)?);
        if AGENT_FLAGS.contains(&id) { &mut flags.agent_values } else { &mut flags.values }.push(entry);
    }
    Ok(flags)
}

fn value_node(id: &str, value: &str) -> Result<Node, FlagError> {
    if NUMBER_FLAGS.contains(&id) {
        let number = value.parse::<i64>();
        return number.map(|number| Node::Int(number.into())).map_err(|_| {
            FlagError::Flag(format!("invalid value {value:?} for flag -{id}: give a whole number of seconds"))
        });
    }
    if id == "cert-allowed-cn" {
        return Ok(Node::List(value.split(',').map(|name| Node::text(name.trim())).collect()));
    }
    Ok(Node::text(value))
}

/// Rewrites Go's form to clap's: `--name=value`, `--switch`.
fn to_clap(command: &Command, arguments: &[String]) -> Result<Vec<String>, FlagError> {
    let mut rewritten = vec!["dm-agent".to_owned()];
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            return arguments.next().map_or(Ok(rewritten), |stray| Err(FlagError::Stray(stray.clone())));
        }
        let body = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')).unwrap_or_default();
        if body.is_empty() {
            return Err(FlagError::Stray(argument.clone()));
        }
        let (name, given) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        let flag = find(command, name).ok_or_else(|| FlagError::Flag(undefined(command, name)))?;
        let long = flag.get_long().unwrap_or(name);
        if flag.get_action().takes_values() {
            let value = given.or_else(|| arguments.next().map(String::as_str));
            let value = value.ok_or_else(|| FlagError::Flag(format!("flag needs an argument: -{name}")))?;
            rewritten.push(format!("--{long}={value}"));
        } else {
            match given.unwrap_or("true") {
                "true" | "1" => rewritten.push(format!("--{long}")),
                "false" | "0" => {}
                other => {
                    return Err(FlagError::Flag(format!(
                        "invalid boolean value {other:?} for -{name}: give true or false"
                    )));
                }
            }
        }
    }
    Ok(rewritten)
}

fn find<'c>(command: &'c Command, name: &str) -> Option<&'c Arg> {
    let mut letters = name.chars();
    let letter = letters.next().filter(|_| letters.next().is_none());
    command
        .get_arguments()
        .find(|flag| flag.get_long() == Some(name) || (letter.is_some() && flag.get_short() == letter))
}

fn undefined(command: &Command, name: &str) -> String {
    let known: Vec<_> = command.get_arguments().filter_map(Arg::get_long).collect();
    let hint = nearest_name(name, &known).map(|near| format!("\ndid you mean --{near}?")).unwrap_or_default();
    format!("flag provided but not defined: -{name}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Flags, FlagError> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn definitions_are_sound() {
        command().debug_assert();
    }

    #[test]
    fn one_dash_or_two() {
        for line in ["-name w -L debug --join=a:1 -state-dir /s", "--name=w --L debug -join a:1 --state-dir=/s"] {
            let flags = parse_line(line).unwrap();
            let mut keys: Vec<_> = flags.values.iter().map(|(key, _)| key.as_str()).collect();
            keys.sort_unstable();
            assert_eq!(keys, ["join", "log-level", "name"], "{line}");
            assert_eq!(flags.agent_values.len(), 1);
        }
        assert!(
            parse_line("-V").unwrap().version && parse_line("--help").unwrap().help && parse_line("-h").unwrap().help
        );
        assert!(!parse_line("-V=false").unwrap().version);
        // A value may begin with a dash, as in Go.
        assert!(parse_line("-name -x").unwrap().values[0].1 == Node::text("-x"));
    }

    #[test]
    fn errors_are_gos() {
        let text = |line: &str| match parse_line(line) {
            Err(FlagError::Flag(text)) => text,
            Err(FlagError::Stray(text)) => format!("stray {text}"),
            Ok(_) => panic!("{line} is accepted"),
        };
        assert_eq!(text("--nosuchflag"), "flag provided but not defined: -nosuchflag");
        assert_eq!(text("-worker-adr x"), "flag provided but not defined: -worker-adr\ndid you mean --worker-addr?");
        assert_eq!(text("extra-arg"), "stray extra-arg");
        assert_eq!(text("-- x"), "stray x");
        assert_eq!(text("-name"), "flag needs an argument: -name");
        assert!(text("-keepalive-ttl soon").starts_with("invalid value \"soon\" for flag -keepalive-ttl"));
    }
}
