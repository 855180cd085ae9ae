//! Switches in the form that Go's flags have.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{ArgAction, CommandFactory};

use super::Cli;

/// Rewrites switches in the form that dmctl's may have, `--remove-meta=true` and `--more=false`, to clap's.
pub fn gos_switches(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut switches, mut valued) = (BTreeSet::new(), BTreeSet::new());
    let mut commands = vec![Cli::command()];
    while let Some(command) = commands.pop() {
        for flag in command.get_arguments() {
            let names = if matches!(flag.get_action(), ArgAction::SetTrue) { &mut switches } else { &mut valued };
            names.extend(flag.get_long().map(str::to_owned));
        }
        commands.extend(command.get_subcommands().cloned());
    }
    let mut rewritten = Vec::new();
    let mut flags_end = false;
    for argument in arguments {
        flags_end |= argument == "--";
        let switch = argument.to_str().and_then(|text| text.strip_prefix("--")?.split_once('='));
        // One that takes a value in another command is left alone.
        match switch.filter(|(name, _)| !flags_end && switches.contains(*name) && !valued.contains(*name)) {
            Some((name, "true" | "TRUE" | "True" | "t" | "T" | "1")) => rewritten.push(format!("--{name}").into()),
            Some((_, "false" | "FALSE" | "False" | "f" | "F" | "0")) => {}
            _ => rewritten.push(argument),
        }
    }
    rewritten
}
