//! `make bench`: each case against its reference in the same run, one table, exit code 1 when a target is missed.
//!
//! `make bench CASE=pull,decode` runs the cases whose names contain one of these words. `ROUNDS=1` is for working on a case;
//! what is reported has three.

#[allow(dead_code)] // the tests use the rest
#[path = "../support/mod.rs"]
mod support;

mod admin;
mod backlog;
mod bed;
mod cases;
mod events;
mod growth;
mod history;
mod machine;
mod meter;
mod outcome;
mod rig;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use bed::Bed;
use cases::{CASES, Case, GROWTH};
use outcome::{Goal, Measure, Row};
use table::Report;

/// How often each case is measured.
pub fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

fn main() -> ExitCode {
    let chosen = std::env::var("CASE").unwrap_or_default();
    let words: Vec<&str> = chosen.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let is_chosen = |case: &&Case| words.is_empty() || words.iter().any(|word| case.name.contains(word));
    let chosen = |cases: &'static [Case]| cases.iter().filter(is_chosen).collect::<Vec<_>>();
    let tables = [
        ("dm-agent against references in the same run: median (lowest–highest)", chosen(CASES)),
        ("How cost grows: catching up with everything against a quarter of it", chosen(GROWTH)),
    ];
    if tables.iter().all(|(_, cases)| cases.is_empty()) {
        let names: Vec<&str> = CASES.iter().chain(GROWTH).map(|case| case.name).collect();
        eprintln!("no case has one of {words:?} in its name; there are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let began = Instant::now();
    let mut report = Report::default();
    head(&mut report);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("start a runtime");
    let mut bed = Bed::default();
    let (mut lines, mut short) = (0, 0);
    for (title, cases) in tables {
        let rows: Vec<Row> = cases.into_iter().flat_map(|case| run(case, &runtime, &mut bed)).collect();
        if !rows.is_empty() {
            report.table(title, &rows);
        }
        lines += rows.len();
        short += rows.iter().filter(|row| !row.is_ok()).count();
    }
    drop(bed);
    report.line("");
    report.line(&format!("{lines} lines, {short} short; {:.0} s", began.elapsed().as_secs_f64()));
    match report.save() {
        Ok(path) => println!("written to {}", path.display()),
        Err(error) => eprintln!("the table could not be written to a file: {error}"),
    }
    if short == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one; what fails must not take the others' results along.
fn run(case: &Case, runtime: &tokio::runtime::Runtime, bed: &mut Bed) -> Vec<Row> {
    let started = Instant::now();
    eprintln!("bench: {} …", case.name);
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on((case.run)(bed))));
    let rows = outcome.unwrap_or_else(|_| vec![failed(case)]);
    for row in &rows {
        eprintln!("bench:   {}", table::line(row));
    }
    eprintln!("bench: {} took {:.1} s", case.name, started.elapsed().as_secs_f64());
    rows
}

/// A case that ended with a panic, which has said why.
fn failed(case: &Case) -> Row {
    let goals = vec![Goal::AtLeast(Measure::Ours, f64::INFINITY)];
    Row { case: case.name.into(), work: "failed, see above".into(), goals, ..Row::default() }
}

fn head(report: &mut Report) {
    for line in machine::describe() {
        report.line(&line);
    }
    report.line(&format!("servers: {}", machine::servers()));
    report.line(&format!("settings, {}", bed::settings()));
    report.line(&format!("rounds: {}", rounds()));
}
