//! Event filters and statements.

use super::super::super::testing::filter as rule;
use super::super::super::{FilterAction, FilterRule};
use super::*;

fn filtering(filters: Vec<FilterRule>, flavor: Flavor) -> Transform {
    let block_allow = BlockAllowRules { ignore_dbs: vec!["out".to_owned()], ..Default::default() };
    let routes = testing::routes(&[["d", "t_*", "m", "t"]]);
    Transform::new(&Rules { block_allow, routes, filters, flavor, ..testing::rules() }).unwrap()
}

fn ignoring(events: &[&str]) -> Transform {
    filtering(vec![rule(["d", ""], events, &[], FilterAction::Ignore)], Flavor::MySql)
}

/// What is run for a statement, or what the tables are that a filter leaves it out of.
fn outcome(transform: &Transform, text: &str) -> Result<Vec<String>, Vec<String>> {
    match transform.statement(&DdlInput { schema: "d", text, sql_mode: 0 }).unwrap_or_else(|f| panic!("{text}: {f}")) {
        DdlPlan::Run(statements) => Ok(statements.into_iter().map(|statement| statement.sql).collect()),
        DdlPlan::Skip { filtered, .. } => Err(filtered.iter().map(SourceTable::to_string).collect()),
        DdlPlan::Online(steps) => panic!("{text}: {steps:?}"),
    }
}

fn runs(transform: &Transform, text: &str, expected: &[&str]) {
    assert_eq!(outcome(transform, text), Ok(expected.iter().map(|sql| (*sql).to_owned()).collect()), "{text}");
}

fn skips(transform: &Transform, text: &str, expected: &[&str]) {
    assert_eq!(outcome(transform, text), Err(expected.iter().map(|sql| (*sql).to_owned()).collect()), "{text}");
}

#[test]
fn kinds_of_statements() {
    for (event, text) in [
        ("drop table", "DROP TABLE t"),
        ("truncate table", "TRUNCATE t"),
        ("rename table", "RENAME TABLE t TO u"),
        ("create table", "CREATE TABLE t (id INT)"),
        ("create table", "CREATE TABLE t LIKE u"),
        ("create index", "CREATE UNIQUE INDEX i ON t (a)"),
        ("drop index", "DROP INDEX i ON t"),
        ("create database", "CREATE DATABASE d"),
        ("create schema", "CREATE SCHEMA d"),
        ("drop database", "DROP SCHEMA d"),
        ("alter schema", "ALTER DATABASE d CHARACTER SET latin1"),
        ("all ddl", "DROP TABLE t"),
        ("all", "DROP TABLE t"),
    ] {
        assert!(outcome(&ignoring(&[event]), text).is_err(), "{event}: {text}");
        assert!(outcome(&ignoring(&["delete"]), text).is_ok(), "{text}");
        assert!(outcome(&ignoring(&["none", event]), text).is_ok(), "{text}");
    }
    skips(&ignoring(&["rename table"]), "RENAME TABLE t TO u", &["`d`.`t`", "`d`.`u`"]);
    skips(&ignoring(&["drop database"]), "DROP DATABASE d", &[]);
}

#[test]
fn clauses_of_alter_table_have_events_of_their_own() {
    for (event, clause) in [
        ("drop column", "DROP a"),
        ("drop column", "DROP COLUMN IF EXISTS `primary`"),
        ("drop primary key", "DROP PRIMARY KEY"),
        ("drop index", "DROP INDEX i"),
        ("drop index", "DROP KEY i"),
        ("alter table", "DROP FOREIGN KEY f"),
        ("drop table partition", "DROP PARTITION p"),
        ("truncate table partition", "TRUNCATE PARTITION p"),
        ("reorganize table partition", "REORGANIZE PARTITION p INTO (PARTITION q VALUES LESS THAN (1))"),
        ("alter table", "ADD COLUMN `index` INT"),
        ("alter table", "ADD (a INT, b INT)"),
        ("alter table", "ADD PARTITION PARTITIONS 2"),
        ("modify constraint", "ADD INDEX i (a)"),
        ("modify constraint", "ADD CONSTRAINT c CHECK (a > 0)"),
        ("rename column", "RENAME COLUMN a TO b"),
        ("rename index", "RENAME KEY a TO b"),
        ("rename table", "RENAME TO u"),
        ("modify default value", "ALTER COLUMN a SET DEFAULT 1"),
        ("modify default value", "ALTER a DROP DEFAULT"),
        ("alter table", "ALTER INDEX i INVISIBLE"),
        ("modify charset", "CONVERT TO CHARACTER SET utf8mb4"),
        ("modify charset", "DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_bin"),
        ("modify collation", "COLLATE = utf8mb4_bin"),
        ("modify storage engine", "COMMENT 'charset' ENGINE=InnoDB"),
        ("alter table", "COMMENT='engine'"),
        ("alter table", "PARTITION BY HASH (a) PARTITIONS 2"),
        ("alter table", "ALGORITHM=INPLACE"),
    ] {
        let text = format!("ALTER TABLE t {clause}");
        assert!(outcome(&ignoring(&[event]), &text).is_err(), "{event}: {text}");
        let other = if event == "alter table" { "incompatible ddl changes" } else { "alter table" };
        assert!(outcome(&ignoring(&[other]), &text).is_ok(), "{other}: {text}");
    }
}

#[test]
fn of_an_alter_table_the_rest_is_run() {
    let no_drop = ignoring(&["drop column", "rename table"]);
    for (text, expected) in [
        ("ALTER TABLE t DROP a, ADD b INT", "ALTER TABLE `d`.`t`     ADD b INT"),
        ("ALTER TABLE t ADD b INT, DROP a", "ALTER TABLE `d`.`t` ADD b INT   "),
        (
            "ALTER TABLE t ADD b INT, DROP a, ADD c INT, LOCK=NONE",
            "ALTER TABLE `d`.`t` ADD b INT   , ADD c INT, LOCK=NONE",
        ),
        ("ALTER TABLE t DROP a, DROP b, ADD c INT, DROP d", "ALTER TABLE `d`.`t`         ADD c INT   "),
        ("ALTER TABLE t DROP a PARTITION BY HASH (id)", "ALTER TABLE `d`.`t`   PARTITION BY HASH (id)"),
        ("ALTER TABLE t ADD b INT /*!80000 , DROP a */", "ALTER TABLE `d`.`t` ADD b INT         "),
        ("ALTER TABLE t RENAME x.u, ADD b INT", "ALTER TABLE `d`.`t`     ADD b INT"),
        (
            "ALTER TABLE t_1 DROP a, ADD FOREIGN KEY (a) REFERENCES t_2 (a)",
            "ALTER TABLE `m`.`t`     ADD FOREIGN KEY (a) REFERENCES `m`.`t` (a)",
        ),
    ] {
        let plan = no_drop.statement(&DdlInput { schema: "d", text, sql_mode: 0 }).unwrap();
        let DdlPlan::Run(statements) = plan else { panic!("{text} is left out") };
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ,", ",");
        assert_eq!(squeezed(&statements[0].sql), squeezed(expected), "{text}");
        assert_eq!(statements[0].sources.len(), 1, "{text}");
        assert!(!statements[0].left_out.is_empty(), "{text}");
    }
    skips(&no_drop, "ALTER TABLE t DROP a, LOCK=NONE", &["`d`.`t`"]);
    let whole = "ALTER TABLE t ADD b INT, LOCK=NONE";
    runs(&no_drop, whole, &["ALTER TABLE `d`.`t` ADD b INT, LOCK=NONE"]);
}

#[test]
fn items_of_a_list_are_asked_about_one_by_one() {
    let keeps_a = filtering(vec![rule(["d", "a"], &["drop table"], &[], FilterAction::Ignore)], Flavor::MySql);
    runs(&keeps_a, "DROP TABLE a, b", &["DROP TABLE IF EXISTS `d`.`b`"]);
    skips(&keeps_a, "DROP TABLE A", &["`d`.`A`"]);
}

#[test]
fn texts_are_looked_for_in_the_whole_statement() {
    let texts = ["^DROP\\s+INDEX", "no_such_words|add\\s+column"];
    let filter = filtering(vec![rule(["d", "t*"], &[], &texts, FilterAction::Ignore)], Flavor::MySql);
    skips(&filter, "\0drop   index i ON t\0", &["`d`.`t`"]);
    skips(&filter, "ALTER TABLE t ADD COLUMN a INT", &["`d`.`t`"]);
    runs(&filter, "ALTER TABLE u ADD COLUMN a INT", &["ALTER TABLE `d`.`u` ADD COLUMN a INT"]);
    // Of both: what is named, and only with these words.
    let both = rule(["d", "t"], &["create index"], &["important"], FilterAction::Do);
    let only = filtering(vec![both], Flavor::MySql);
    runs(&only, "CREATE INDEX important ON t (a)", &["CREATE INDEX important ON `d`.`t` (a)"]);
    skips(&only, "CREATE INDEX other ON t (a)", &["`d`.`t`"]);
    skips(&only, "DROP INDEX important ON t", &["`d`.`t`"]);
}

#[test]
fn what_is_not_understood_is_left_out_by_its_text_alone() {
    let text = "FANCY NEW THING d.t";
    let all = filtering(vec![rule(["*", ""], &[], &["^FANCY"], FilterAction::Ignore)], Flavor::MySql);
    skips(&all, text, &[]);
    skips(&all, "fancy INSERT", &[]);
    // DM asks only the rules for all schemas.
    let one = filtering(vec![rule(["d", ""], &["all"], &["^FANCY"], FilterAction::Ignore)], Flavor::MySql);
    let failure = one.statement(&DdlInput { schema: "d", text, sql_mode: 0 }).unwrap_err();
    assert_eq!(failure.code, 36067, "{failure}");
    let rows = rule(["*", "*"], &[], &["^UPDATE"], FilterAction::Ignore);
    skips(&filtering(vec![rows], Flavor::MySql), "UPDATE t SET a = 1", &[]);
}

#[test]
fn what_is_forbidden_stops_the_task_in_dms_words() {
    let rules = vec![rule(["d", "t"], &["incompatible ddl changes"], &[], FilterAction::Error)];
    let filter = filtering(rules, Flavor::MySql);
    for (text, message) in [
        ("DROP TABLE t", "event drop table on `d`.`t`"),
        ("ALTER TABLE t ADD a INT, DROP b", "event drop column on `d`.`t`"),
        ("ALTER TABLE t MODIFY a INT", "a column of `d`.`t` gets another definition"),
    ] {
        let failure = filter.statement(&DdlInput { schema: "d", text, sql_mode: 0 }).unwrap_err();
        assert_eq!(failure.code, 36015, "{failure}");
        assert!(failure.message.starts_with(message) && !failure.workaround.is_empty(), "{failure}");
    }
    runs(&filter, "ALTER TABLE t ADD a INT", &["ALTER TABLE `d`.`t` ADD a INT"]);
    skips(&filter, "DROP TABLE out.t", &[]);
}

/// What a new definition of a column is depends on the old one; only where that matters it must be known.
#[test]
fn another_definition_of_a_column_is_decided_where_it_does_not_matter_what_it_was() {
    let modify = "ALTER TABLE t MODIFY a BIGINT NOT NULL";
    skips(&ignoring(&["all ddl"]), modify, &["`d`.`t`"]);
    runs(&ignoring(&["drop column"]), modify, &["ALTER TABLE `d`.`t` MODIFY a BIGINT NOT NULL"]);
    skips(&ignoring(&["incompatible ddl changes"]), "ALTER TABLE t CHANGE a b BIGINT", &["`d`.`t`"]);
    skips(&ignoring(&["incompatible ddl changes"]), "ALTER TABLE t MODIFY a INT FIRST, DROP b", &["`d`.`t`"]);
    for text in [modify, "ALTER TABLE t CHANGE a A INT", "ALTER TABLE t CHANGE COLUMN `a` a INT DEFAULT 1"] {
        let failure = ignoring(&["incompatible ddl changes"])
            .statement(&DdlInput { schema: "d", text, sql_mode: 0 })
            .unwrap_err();
        assert_eq!(failure.code, 36015, "{failure}");
    }
}

#[test]
fn definitions_of_what_is_copied_are_not_filtered() {
    let filter = ignoring(&["all"]);
    let input = DdlInput { schema: "d", text: "CREATE TABLE t (id INT)", sql_mode: 0 };
    assert!(matches!(filter.definition(&input), Ok(DdlPlan::Run(_))));
    assert!(matches!(filter.statement(&input), Ok(DdlPlan::Skip { .. })));
}
