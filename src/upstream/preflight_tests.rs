//! Tests of the judgement on a source.

use super::*;
use crate::model::{BinlogFile, Location};
use crate::upstream::facts::BinlogSize;

const A: &str = "9231c604-e680-11f1-ab28-628677c36cd1";

fn healthy() -> Preflight {
    let log = |name: &str, bytes| BinlogSize { file: BinlogFile::parse(name).unwrap(), bytes };
    let variables = [("log_bin", "ON"), ("binlog_format", "ROW"), ("binlog_row_image", "FULL"), ("gtid_mode", "ON")];
    Preflight {
        facts: ServerFacts {
            flavor: Flavor::MySql,
            version: ServerVersion::of(8, 4),
            identity: A.into(),
            server_id: 1,
            location: Some(Location::new(position("b.000005", 900), set(&format!("{A}:1-50")))),
            clock_offset: 0.0,
            purged: set(&format!("{A}:1-10")),
            binlogs: vec![log("b.000003", 500), log("b.000004", 600), log("b.000005", 900)],
            grants: vec!["GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `dm`@`%`".into()],
            variables: variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        },
        at_start: AtStart::Unknown,
    }
}

fn want(start: Option<DumpStart>) -> Want {
    Want { flavor: Some(Flavor::MySql), server_id: 42, enable_gtid: true, start, start_is_given: false }
}

fn position(file: &str, offset: u64) -> BinlogPosition {
    BinlogPosition::parse(file, offset).unwrap()
}

fn set(text: &str) -> GtidSet {
    GtidSet::parse(Flavor::MySql, text).unwrap()
}

/// Everything fatal that is found, on one line.
fn found(preflight: &Preflight, want: &Want) -> String {
    failure_of(&preflight.check(want)).map(|failure| failure.message).unwrap_or_default()
}

#[test]
fn a_healthy_source_has_no_problem() {
    for start in [
        None,
        Some(DumpStart::Position(position("b.000004", 4))),
        Some(DumpStart::Position(position("b.000005", 900))),
        Some(DumpStart::Gtids(set(&format!("{A}:1-20")))),
    ] {
        assert_eq!(healthy().check(&want(start)), []);
    }
}

#[test]
fn everything_is_reported_at_once() {
    let mut preflight = healthy();
    for (name, value) in [("log_bin", "OFF"), ("binlog_format", "MIXED"), ("gtid_mode", "OFF_PERMISSIVE")] {
        preflight.facts.variables.insert(name.into(), value.into());
    }
    preflight.facts.grants = vec!["GRANT SELECT ON *.* TO `dm`@`%`".into()];
    preflight.facts.server_id = 0;
    let problems = preflight.check(&want(None));
    let failure = failure_of(&problems).unwrap();
    assert_eq!(failure.code, 11125);
    for words in ["log_bin is OFF", "binlog_format is MIXED", "OFF_PERMISSIVE", "server_id of the source is 0"] {
        assert!(failure.message.contains(words), "{}", failure.message);
    }
    assert!(failure.workaround.contains("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `dm`@`%`"));
    assert_eq!(problems.len(), 5);
}

#[test]
fn a_partial_row_image_is_only_a_warning() {
    let mut preflight = healthy();
    preflight.facts.variables.insert("binlog_row_image".into(), "MINIMAL".into());
    let problems = preflight.check(&want(None));
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].severity, Severity::Warning);
    assert_eq!(failure_of(&problems), None);
}

#[test]
fn our_server_id_must_be_our_own() {
    for id in [0, 1] {
        assert!(found(&healthy(), &Want { server_id: id, ..want(None) }).contains("server-id"), "{id}");
    }
}

#[test]
fn start_positions_are_looked_at() {
    let at = |file: &str, offset| want(Some(DumpStart::Position(position(file, offset))));
    assert!(found(&healthy(), &at("b.000002", 4)).contains("is purged, the oldest binlog is b.000003"));
    assert!(found(&healthy(), &at("b.000009", 4)).contains("does not exist"));
    assert!(found(&healthy(), &at("b.000004", 601)).contains("past the end"));
    let event = |kind: &str, info: &str| AtStart::Event { kind: kind.into(), info: info.into() };
    for inside in ["Table_map", "Write_rows_v1", "Update_rows", "Write_rows_compressed_v1", "Xid", "Annotate_rows"] {
        let preflight = Preflight { at_start: event(inside, ""), ..healthy() };
        assert!(found(&preflight, &at("b.000004", 100)).contains("inside a transaction"), "{inside}");
    }
    for boundary in [event("Gtid", "SET @@SESSION.GTID_NEXT= 'x'"), event("Query", "BEGIN"), event("Rotate", "")] {
        let preflight = Preflight { at_start: boundary, ..healthy() };
        assert_eq!(found(&preflight, &at("b.000004", 100)), "");
    }
    let preflight = Preflight { at_start: AtStart::Nothing("Wrong offset or I/O error".into()), ..healthy() };
    assert!(found(&preflight, &at("b.000004", 101)).contains("no event begins"));
}

#[test]
fn start_sets_are_looked_at() {
    let from = |text: &str| want(Some(DumpStart::Gtids(set(text))));
    assert!(found(&healthy(), &from(&format!("{A}:1-9"))).contains("purged"));
    assert!(found(&healthy(), &from("")).contains("purged"));
    let problems = healthy().check(&from(&format!("{A}:1-99")));
    assert_eq!(problems.iter().map(|problem| problem.severity).collect::<Vec<_>>(), [Severity::Warning]);
}

#[test]
fn rights_by_all_their_names() {
    for line in [
        "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION",
        "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `dm`@`%`",
        "GRANT SELECT, REPLICATION REPLICA, SUPER ON *.* TO `dm`@`%`",
    ] {
        let mut preflight = healthy();
        preflight.facts.grants = vec![line.into()];
        assert_eq!(preflight.check(&want(None)), [], "{line}");
    }
    let mut preflight = healthy();
    preflight.facts.grants = vec!["GRANT ALL PRIVILEGES ON `d`.* TO `dm`@`%`".into()];
    assert!(found(&preflight, &want(None)).contains("lacks REPLICATION SLAVE, REPLICATION CLIENT"));
    preflight.facts.grants.push("GRANT `replicator`@`%` TO `dm`@`%`".into());
    assert_eq!(found(&preflight, &want(None)), "");
    assert_eq!(preflight.check(&want(None)).len(), 1);
}

#[test]
fn the_flavor_and_its_version_must_fit() {
    let mut preflight = healthy();
    preflight.facts.version = ServerVersion::of(5, 6);
    assert!(found(&preflight, &want(None)).contains("older than 5.7.0"));
    let other = Want { flavor: Some(Flavor::MariaDb), ..want(None) };
    assert!(found(&healthy(), &other).contains("flavor: mariadb"));
}

#[test]
fn a_set_that_an_operator_gives_is_of_the_past() {
    let given = |text: &str| Want { start_is_given: true, ..want(Some(DumpStart::Gtids(set(text)))) };
    let other = "11111111-2222-3333-4444-555555555555";
    assert_eq!(found(&healthy(), &given(&format!("{A}:1-50"))), "");
    let ahead = found(&healthy(), &given(&format!("{A}:1-51")));
    assert!(ahead.contains("past the end of the binlog, which is at"), "{ahead}");
    // One that the source does not have of another server may come, or be one that it never got.
    assert_eq!(found(&healthy(), &given(&format!("{A}:1-50,{other}:1"))), "");
    // Where it was followed up to, the source's own word decides.
    assert_eq!(found(&healthy(), &want(Some(DumpStart::Gtids(set(&format!("{A}:1-51")))))), "");
}
