//! What gh-ost and pt-online-schema-change log.

use super::super::super::testing::filter as rule;
use super::super::super::{FilterAction, FilterRule};
use super::*;
use crate::model::TableName;

/// The tables `t*` of `d`, merged into `m`.`t`.
fn of_t(filters: Vec<FilterRule>) -> Transform {
    let block_allow = BlockAllowRules { do_tables: vec![("d".to_owned(), "t*".to_owned())], ..Default::default() };
    let routes = testing::routes(&[["d", "t*", "m", "t"]]);
    Transform::new(&testing::online(Rules { block_allow, routes, filters, ..testing::rules() })).unwrap()
}

fn said(plan: Result<DdlPlan, Failure>) -> String {
    let step = |step: &OnlineStep| match step {
        OnlineStep::Run(statement) => format!("run {}", statement.sql),
        OnlineStep::Begin { shadow, real } => format!("begin {shadow} of {real}"),
        OnlineStep::Record { shadow, real, text } => format!("record {shadow} of {real}: {text}"),
        OnlineStep::Stays { real, renamed } => format!("{real} stays as {renamed} goes"),
        OnlineStep::Forget { shadow } => format!("forget {shadow}"),
        OnlineStep::Swap { shadow, real } => format!("swap {shadow} for {real}"),
    };
    match plan {
        Ok(DdlPlan::Online(steps)) => steps.iter().map(step).collect::<Vec<_>>().join("; "),
        Ok(DdlPlan::Run(run)) => run.into_iter().map(|one| format!("run {}", one.sql)).collect::<Vec<_>>().join("; "),
        Ok(DdlPlan::Skip { .. }) => "skip".to_owned(),
        Err(failure) => {
            assert!(!failure.workaround.is_empty(), "{failure}");
            format!("{}", failure.code)
        }
    }
}

fn plan(transform: &Transform, text: &str) -> String {
    said(transform.statement(&DdlInput { schema: "d", text, sql_mode: 0 }))
}

#[test]
fn what_tools_log_is_remembered_and_run_in_the_end() {
    let transform = of_t(Vec::new());
    for (text, expected) in [
        ("create /* gh-ost */ table `d`.`_t_ghc` (id bigint)", "skip"),
        ("create /* gh-ost */ table `d`.`_t_gho` like `d`.`t`", "begin `d`.`_t_gho` of `d`.`t`"),
        (
            "alter /* gh-ost */ table `d`.`_t_gho` add column c int",
            "record `d`.`_t_gho` of `d`.`t`: alter /* gh-ost */ table `d`.`_t_gho` add column c int",
        ),
        ("ALTER TABLE _t_gho ADD c INT", "record `d`.`_t_gho` of `d`.`t`: ALTER TABLE `d`.`_t_gho` ADD c INT"),
        ("CREATE INDEX i ON _t_gho (c)", "record `d`.`_t_gho` of `d`.`t`: CREATE INDEX i ON `d`.`_t_gho` (c)"),
        (
            "ALTER TABLE _t_new ADD FOREIGN KEY (a) REFERENCES p (id)",
            "record `d`.`_t_new` of `d`.`t`: ALTER TABLE `d`.`_t_new` ADD FOREIGN KEY (a) REFERENCES `d`.`p` (id)",
        ),
        ("rename /* gh-ost */ table `d`.`t` to `d`.`_t_del`, `d`.`_t_gho` to `d`.`t`", "swap `d`.`_t_gho` for `d`.`t`"),
        ("RENAME TABLE t TO _t_old, _t_new TO t, t2 TO t3", "swap `d`.`_t_new` for `d`.`t`"),
        ("RENAME TABLE d.t2 TO d.t3, d._t_new TO d.t, d.x TO d.y", "swap `d`.`_t_new` for `d`.`t`"),
        // In two steps.
        ("alter /* gh-ost */ table `d`.`t` rename `_t_del`", "`d`.`t` stays as `d`.`_t_del` goes"),
        ("RENAME TABLE t TO _t_old", "`d`.`t` stays as `d`.`_t_old` goes"),
        ("alter /* gh-ost */ table `d`.`_t_gho` rename `t`", "swap `d`.`_t_gho` for `d`.`t`"),
        ("rename table _t_del to t", "skip"),
        ("drop /* gh-ost */ table if exists `d`.`_t_gho`", "forget `d`.`_t_gho`"),
        ("DROP TABLE _t_old, _t_new, t9", "forget `d`.`_t_new`; run DROP TABLE IF EXISTS `m`.`t`"),
        ("RENAME TABLE _t_gho TO _t_del", "forget `d`.`_t_gho`"),
        ("TRUNCATE TABLE _t_new", "skip"),
        // Of tables that are not wanted, whatever the shadow's name.
        ("CREATE TABLE _x_gho (id INT)", "skip"),
        ("ALTER TABLE _x_gho ADD c INT", "skip"),
        ("DROP TABLE _x_gho", "skip"),
        ("RENAME TABLE x TO _x_del, _x_gho TO x", "skip"),
        ("RENAME TABLE x TO _x_old", "skip"),
        ("CREATE TABLE t1 (id INT)", "run CREATE TABLE IF NOT EXISTS `m`.`t` (id INT)"),
    ] {
        assert_eq!(plan(&transform, text), expected, "{text}");
    }
}

#[test]
fn what_tools_do_not_log_is_refused() {
    let transform = of_t(Vec::new());
    for (text, expected) in [
        ("RENAME TABLE t TO _t_gho", "36044"),
        ("RENAME TABLE _t_gho TO _t_new", "36045"),
        ("RENAME TABLE _t_del TO _t_new", "36045"),
        // One rule does not fit.
        ("RENAME TABLE t TO _t_away, _t_gho TO t", "20049"),
        ("RENAME TABLE t TO _t_old, _t_shadow TO t", "20049"),
        ("CREATE TABLE t5 LIKE _t_gho", "36067"),
        ("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE _t_old", "36067"),
        ("ALTER TABLE _t_gho ADD c INT, RENAME TO t", "36067"),
        // The same of unwanted tables.
        ("RENAME TABLE x TO _x_gho", "skip"),
        ("RENAME TABLE _x_gho TO _x_new", "skip"),
        ("RENAME TABLE x TO _x_away, _x_gho TO x", "skip"),
        ("CREATE TABLE x LIKE _t_gho", "skip"),
    ] {
        assert_eq!(plan(&transform, text), expected, "{text}");
    }
    // Without a schema nobody knows.
    let nowhere = DdlInput { schema: "", text: "ALTER TABLE _t_gho ADD c INT", sql_mode: 0 };
    assert_eq!(said(transform.statement(&nowhere)), "36067");
}

#[test]
fn rows_of_a_tools_tables_are_not_wanted() {
    let transform = Transform::new(&testing::online(testing::rules())).unwrap();
    let wanted = |name: &str| transform.table(&SourceTable(TableName::new("d", name))).unwrap().is_some();
    assert_eq!(
        ["t", "_t_gho", "_t_ghc", "_t_del", "_t_new", "_t_old"].map(wanted),
        [true, false, false, false, false, false]
    );
    // Without `online-ddl` they are tables as any other.
    let plain = Transform::new(&testing::rules()).unwrap();
    assert!(plain.table(&SourceTable(TableName::new("d", "_t_gho"))).unwrap().is_some());
    assert_eq!(plan(&plain, "ALTER TABLE _t_gho ADD c INT"), "run ALTER TABLE `d`.`_t_gho` ADD c INT");
}

#[test]
fn what_was_done_to_a_shadow_is_done_to_the_real_table() {
    let [shadow, real] = ["_t_gho", "t"].map(|name| SourceTable(TableName::new("d", name)));
    let run = |transform: &Transform, text: &str, sql_mode| {
        said(transform.of_shadow(&DdlInput { schema: "d", text, sql_mode }, &shadow, &real))
    };
    let transform = of_t(Vec::new());
    for (text, expected) in [
        (
            "alter /* gh-ost */ table `d`.`_t_gho` add column c int",
            "run alter /* gh-ost */ table `m`.`t` add column c int",
        ),
        // A dm-worker on a server that does not tell cases apart.
        ("ALTER TABLE `D`.`_T_GHO` ADD c INT", "run ALTER TABLE `m`.`t` ADD c INT"),
        ("CREATE INDEX `i` ON `d`.`_t_gho` (c)", "run CREATE INDEX `i` ON `m`.`t` (c)"),
    ] {
        assert_eq!(run(&transform, text, 0), expected, "{text}");
    }
    assert_eq!(
        run(&transform, "ALTER TABLE \"d\".\"_t_gho\" ADD c INT", ANSI_QUOTES),
        "run ALTER TABLE `m`.`t` ADD c INT"
    );
    // Filters are asked about the real table.
    let filtering = of_t(vec![rule(["d", "t"], &["alter table"], &[], FilterAction::Ignore)]);
    assert_eq!(run(&filtering, "ALTER TABLE d._t_gho ADD c INT", 0), "skip");
    assert_eq!(run(&filtering, "ALTER TABLE d._t_gho DROP c", 0), "run ALTER TABLE `m`.`t` DROP c");
}
