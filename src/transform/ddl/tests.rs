//! Real statement texts, and what becomes of them.

mod adapted;
mod collate;
mod filters;
mod online;
mod refusals;

use proptest::prelude::*;

use super::super::{BlockAllowRules, Rules, Transform, testing};
use super::lex::{ANSI_QUOTES, NO_BACKSLASH_ESCAPES};
use super::*;
use crate::error::Failure;
use crate::model::Flavor;

fn transform(block_allow: BlockAllowRules, routes: &[[&str; 4]], flavor: Flavor) -> Transform {
    Transform::new(&Rules { block_allow, routes: testing::routes(routes), flavor, ..testing::rules() }).unwrap()
}

/// Everything under its own name, but the schema `out` not at all and neither the table `d.hidden`.
fn plain() -> Transform {
    let ignore_tables = vec![("d".to_owned(), "hidden".to_owned())];
    let ignore_dbs = vec!["out".to_owned()];
    transform(BlockAllowRules { ignore_dbs, ignore_tables, ..Default::default() }, &[], Flavor::MariaDb)
}

/// Shards `d`.`t_*` merged into `m`.`t`; all else of `d` goes to `e`.
fn merging() -> Transform {
    transform(BlockAllowRules::default(), &[["d", "t_*", "m", "t"], ["d", "", "e", ""]], Flavor::MySql)
}

fn run_in(transform: &Transform, schema: &str, text: &str, sql_mode: u64) -> Result<Vec<String>, String> {
    match transform.statement(&DdlInput { schema, text, sql_mode }) {
        Ok(DdlPlan::Run(statements)) => {
            assert!(!statements.is_empty(), "{text}");
            Ok(statements.into_iter().map(|statement| statement.sql).collect())
        }
        Ok(DdlPlan::Skip { reason, .. }) => Err(format!("skip: {reason}")),
        Ok(DdlPlan::Online(steps)) => Err(format!("a tool's: {steps:?}")),
        Err(Failure { code, message, workaround, .. }) => {
            assert!(!workaround.is_empty(), "{message}");
            Err(format!("{code}: {message}"))
        }
    }
}

fn check(transform: &Transform, cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(
            run_in(transform, "d", text, 0),
            Ok(expected.iter().map(|sql| (*sql).to_owned()).collect()),
            "{text}"
        );
    }
}

fn check_refused(transform: &Transform, cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let answer = run_in(transform, "d", text, 0);
        assert!(answer.as_ref().is_err_and(|answer| answer.starts_with(expected)), "{text}: {answer:?}");
    }
}

#[test]
fn databases() {
    check(
        &plain(),
        &[
            ("CREATE DATABASE shop", &["CREATE DATABASE IF NOT EXISTS `shop`"]),
            (
                "create schema if not exists `sh``op` charset utf8mb4",
                &["create schema if not exists `sh``op` charset utf8mb4"],
            ),
            (
                "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop` /*!40100 DEFAULT CHARACTER SET utf8mb4 */",
                &["CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop` /*!40100 DEFAULT CHARACTER SET utf8mb4 */"],
            ),
            (
                "CREATE OR REPLACE DATABASE shop",
                &["DROP DATABASE IF EXISTS `shop`", "CREATE  DATABASE IF NOT EXISTS `shop`"],
            ),
            ("DROP DATABASE`shop`", &["DROP DATABASE IF EXISTS `shop`"]),
            ("drop schema if exists shop;", &["drop schema if exists `shop`;"]),
            ("ALTER DATABASE shop CHARACTER SET = latin1", &["ALTER DATABASE `shop` CHARACTER SET = latin1"]),
            ("ALTER SCHEMA DEFAULT CHARACTER SET latin1", &["ALTER SCHEMA `d` DEFAULT CHARACTER SET latin1"]),
            ("ALTER DATABASE COMMENT = 'x'", &["ALTER DATABASE `d` COMMENT = 'x'"]),
            ("ALTER DATABASE charset CHARSET utf8mb4", &["ALTER DATABASE `charset` CHARSET utf8mb4"]),
            ("ALTER DATABASE charset COLLATE utf8mb4_bin", &["ALTER DATABASE `charset` COLLATE utf8mb4_bin"]),
        ],
    );
    check(&merging(), &[("DROP DATABASE d", &["DROP DATABASE IF EXISTS `e`"])]);
    check_refused(
        &plain(),
        &[("CREATE DATABASE mysql", "skip: schema `mysql`"), ("DROP DATABASE DM_META", "skip: schema `DM_META`")],
    );
    let statement = merging().statement(&DdlInput { schema: "", text: "CREATE DATABASE d", sql_mode: 0 });
    let Ok(DdlPlan::Run(run)) = statement else { panic!("{statement:?}") };
    assert_eq!(run[0].kind, DdlKind::CreateDatabase);
    assert_eq!(run[0].schema_only.as_deref(), Some("e"));
    assert!(run[0].sources.is_empty() && run[0].targets.is_empty());
}

#[test]
fn create_table() {
    check(
        &plain(),
        &[
            ("CREATE TABLE t (a INT)", &["CREATE TABLE IF NOT EXISTS `d`.`t` (a INT)"]),
            ("CREATE TABLE IF NOT EXISTS t(a INT)", &["CREATE TABLE IF NOT EXISTS `d`.`t`(a INT)"]),
            ("create table`x` . `t`(a int)", &["create table IF NOT EXISTS `x`.`t`(a int)"]),
            (
                "/* app=1 */ CREATE /* why */ TABLE -- here\n x /* dot */ . # and\n t (a INT) -- end",
                &["/* app=1 */ CREATE /* why */ TABLE -- here\n IF NOT EXISTS `x`.`t` (a INT) -- end"],
            ),
            ("CREATE TABLE `a``b`.`c.d` (a INT)", &["CREATE TABLE IF NOT EXISTS `a``b`.`c.d` (a INT)"]),
            ("CREATE TABLE 商店.订单 (编号 INT)", &["CREATE TABLE IF NOT EXISTS `商店`.`订单` (编号 INT)"]),
            ("CREATE TABLE 1a.2 (a INT)", &["CREATE TABLE IF NOT EXISTS `1a`.`2` (a INT)"]),
            (
                "CREATE TABLE status (date DATE, `select` INT)",
                &["CREATE TABLE IF NOT EXISTS `d`.`status` (date DATE, `select` INT)"],
            ),
            (
                "CREATE TABLE t (a VARCHAR(99) DEFAULT 'DROP TABLE `x`; RENAME TABLE a TO b -- ''' COMMENT \"it\\\"s, REFERENCES x\")",
                &[
                    "CREATE TABLE IF NOT EXISTS `d`.`t` (a VARCHAR(99) DEFAULT 'DROP TABLE `x`; RENAME TABLE a TO b -- ''' COMMENT \"it\\\"s, REFERENCES x\")",
                ],
            ),
            (
                "CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (a + IF(a > 1, 2, 3)) STORED, CHECK (b < 5))",
                &[
                    "CREATE TABLE IF NOT EXISTS `d`.`t` (a INT, b INT GENERATED ALWAYS AS (a + IF(a > 1, 2, 3)) STORED, CHECK (b < 5))",
                ],
            ),
            (
                "CREATE TABLE t (a INT) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)",
                &[
                    "CREATE TABLE IF NOT EXISTS `d`.`t` (a INT) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)",
                ],
            ),
            (
                "CREATE TABLE `t` (`a` int) /*!50100 PARTITION BY LIST (a) (PARTITION p VALUES IN (1,2)) */",
                &[
                    "CREATE TABLE IF NOT EXISTS `d`.`t` (`a` int) /*!50100 PARTITION BY LIST (a) (PARTITION p VALUES IN (1,2)) */",
                ],
            ),
            (
                "CREATE TABLE t (a INT) WITH SYSTEM VERSIONING",
                &["CREATE TABLE IF NOT EXISTS `d`.`t` (a INT) WITH SYSTEM VERSIONING"],
            ),
            (
                "CREATE OR REPLACE TABLE t (a INT)",
                &["DROP TABLE IF EXISTS `d`.`t`", "CREATE  TABLE IF NOT EXISTS `d`.`t` (a INT)"],
            ),
            ("CREATE TABLE t LIKE u", &["CREATE TABLE IF NOT EXISTS `d`.`t` LIKE `d`.`u`"]),
            ("CREATE TABLE x.t ( LIKE u )", &["CREATE TABLE IF NOT EXISTS `x`.`t` ( LIKE `d`.`u` )"]),
            (
                "CREATE TABLE t (a INT) ENGINE=MERGE UNION=(u, x.v) INSERT_METHOD=LAST",
                &[
                    "CREATE TABLE IF NOT EXISTS `d`.`t` (a INT) ENGINE=MERGE UNION=(`d`.`u`, `x`.`v`) INSERT_METHOD=LAST",
                ],
            ),
            (
                "CREATE TABLE `t` (\n  `a` int DEFAULT NULL\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 START TRANSACTION",
                &[
                    "CREATE TABLE IF NOT EXISTS `d`.`t` (\n  `a` int DEFAULT NULL\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 ",
                ],
            ),
            (
                "CREATE TABLE t (a INT) ENGINE=InnoDB, START TRANSACTION COMMENT='START TRANSACTION'",
                &["CREATE TABLE IF NOT EXISTS `d`.`t` (a INT) ENGINE=InnoDB COMMENT='START TRANSACTION'"],
            ),
            (
                "SET STATEMENT max_statement_time=1, lock_wait_timeout=2 FOR CREATE TABLE t (a INT)",
                &["CREATE TABLE IF NOT EXISTS `d`.`t` (a INT)"],
            ),
            ("CREATE TABLE t (a INT)\0\0", &["CREATE TABLE IF NOT EXISTS `d`.`t` (a INT)"]),
        ],
    );
}

#[test]
fn foreign_keys_are_routed_but_never_filtered() {
    check(
        &merging(),
        &[
            (
                "CREATE TABLE c (a INT REFERENCES t_1 (a), CONSTRAINT f FOREIGN KEY (a) REFERENCES `d` . `p`(a) ON DELETE CASCADE)",
                &[
                    "CREATE TABLE IF NOT EXISTS `e`.`c` (a INT REFERENCES `m`.`t` (a), CONSTRAINT f FOREIGN KEY (a) REFERENCES `e`.`p`(a) ON DELETE CASCADE)",
                ],
            ),
            // Without a schema, the parent is beside the child.
            (
                "CREATE TABLE x.c (a INT, FOREIGN KEY (a) REFERENCES p (a))",
                &["CREATE TABLE IF NOT EXISTS `x`.`c` (a INT, FOREIGN KEY (a) REFERENCES `x`.`p` (a))"],
            ),
            (
                "ALTER TABLE c ADD FOREIGN KEY (a) REFERENCES p(a), ADD COLUMN `references` INT",
                &["ALTER TABLE `e`.`c` ADD FOREIGN KEY (a) REFERENCES `e`.`p`(a), ADD COLUMN `references` INT"],
            ),
        ],
    );
    check(
        &plain(),
        &[(
            "ALTER TABLE c ADD FOREIGN KEY (a) REFERENCES hidden(a)",
            &["ALTER TABLE `d`.`c` ADD FOREIGN KEY (a) REFERENCES `d`.`hidden`(a)"],
        )],
    );
    let text = "CREATE TABLE c (a INT REFERENCES p (a))";
    let Ok(DdlPlan::Run(run)) = merging().statement(&DdlInput { schema: "d", text, sql_mode: 0 }) else { panic!() };
    assert_eq!(run[0].sources.iter().map(ToString::to_string).collect::<Vec<_>>(), ["`d`.`c`"]);
    assert_eq!(run[0].targets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["`e`.`c`"]);
}

#[test]
fn alter_table() {
    check(
        &plain(),
        &[
            (
                "ALTER TABLE t ADD COLUMN a INT AFTER `b`, DROP COLUMN c",
                &["ALTER TABLE `d`.`t` ADD COLUMN a INT AFTER `b`, DROP COLUMN c"],
            ),
            (
                "alter /* gh-ost */ table `d`.`_t_gho` add column x int",
                &["alter /* gh-ost */ table `d`.`_t_gho` add column x int"],
            ),
            (
                "ALTER ONLINE IGNORE TABLE IF EXISTS t WAIT 5 RENAME TO u",
                &["ALTER ONLINE IGNORE TABLE IF EXISTS `d`.`t` WAIT 5 RENAME TO `d`.`u`"],
            ),
            (
                "ALTER TABLE a RENAME TO b, ADD COLUMN (x INT, y INT), RENAME COLUMN p TO q",
                &["ALTER TABLE `d`.`a` RENAME TO `d`.`b`, ADD COLUMN (x INT, y INT), RENAME COLUMN p TO q"],
            ),
            ("ALTER TABLE x.a ADD x INT, RENAME b", &["ALTER TABLE `x`.`a` ADD x INT, RENAME `d`.`b`"]),
            ("ALTER TABLE a RENAME AS `column`", &["ALTER TABLE `d`.`a` RENAME AS `d`.`column`"]),
            ("ALTER TABLE a RENAME = x . b", &["ALTER TABLE `d`.`a` RENAME = `x`.`b`"]),
            (
                "ALTER TABLE a RENAME INDEX b TO c, RENAME KEY d TO e",
                &["ALTER TABLE `d`.`a` RENAME INDEX b TO c, RENAME KEY d TO e"],
            ),
            (
                "ALTER TABLE a ADD COLUMN IF NOT EXISTS x INT DEFAULT (f(1, 'RENAME TO q')), DROP COLUMN IF EXISTS y",
                &[
                    "ALTER TABLE `d`.`a` ADD COLUMN IF NOT EXISTS x INT DEFAULT (f(1, 'RENAME TO q')), DROP COLUMN IF EXISTS y",
                ],
            ),
            (
                "ALTER TABLE a EXCHANGE PARTITION p WITH TABLE x.b WITHOUT VALIDATION",
                &["ALTER TABLE `d`.`a` EXCHANGE PARTITION p WITH TABLE `x`.`b` WITHOUT VALIDATION"],
            ),
            (
                "ALTER TABLE a CONVERT PARTITION p TO TABLE b",
                &["ALTER TABLE `d`.`a` CONVERT PARTITION p TO TABLE `d`.`b`"],
            ),
            (
                "ALTER TABLE a CONVERT TABLE b TO PARTITION p VALUES LESS THAN (5)",
                &["ALTER TABLE `d`.`a` CONVERT TABLE `d`.`b` TO PARTITION p VALUES LESS THAN (5)"],
            ),
            (
                "ALTER TABLE a CONVERT TO CHARACTER SET utf8mb4",
                &["ALTER TABLE `d`.`a` CONVERT TO CHARACTER SET utf8mb4"],
            ),
            (
                "ALTER TABLE a REORGANIZE PARTITION p0, p1 INTO (PARTITION p VALUES LESS THAN (9))",
                &["ALTER TABLE `d`.`a` REORGANIZE PARTITION p0, p1 INTO (PARTITION p VALUES LESS THAN (9))"],
            ),
            ("ALTER TABLE a /*!80000 RENAME b*/", &["ALTER TABLE `d`.`a` /*!80000 RENAME `d`.`b`*/"]),
            ("ALTER TABLE a /*M!100500 RENAME b*/", &["ALTER TABLE `d`.`a` /*M!100500 RENAME `d`.`b`*/"]),
            ("ALTER TABLE a COMMENT 'x' /* RENAME b */", &["ALTER TABLE `d`.`a` COMMENT 'x' /* RENAME b */"]),
        ],
    );
    // To MySQL, MariaDB's comments are comments; they must not come to life on a MariaDB target.
    check(
        &merging(),
        &[("ALTER TABLE a FORCE /*M!100500 , RENAME b*/", &["ALTER TABLE `e`.`a` FORCE /* M!100500 , RENAME b*/"])],
    );
}

#[test]
fn lists_are_split_and_filtered_alone() {
    check(
        &plain(),
        &[
            ("DROP TABLE t", &["DROP TABLE IF EXISTS `d`.`t`"]),
            (
                "DROP TABLE IF EXISTS `a` , x.b,hidden, out.c CASCADE /* generated by server */",
                &[
                    "DROP TABLE IF EXISTS `d`.`a` CASCADE /* generated by server */",
                    "DROP TABLE IF EXISTS `x`.`b` CASCADE /* generated by server */",
                ],
            ),
            ("DROP TABLES a, b", &["DROP TABLES IF EXISTS `d`.`a`", "DROP TABLES IF EXISTS `d`.`b`"]),
            ("RENAME TABLE a TO b", &["RENAME TABLE `d`.`a` TO `d`.`b`"]),
            (
                "rename /* gh-ost */ table d.t to d._t_del, `d`.`_t_gho` to `d`.`t`",
                &[
                    "rename /* gh-ost */ table `d`.`t` TO `d`.`_t_del`",
                    "rename /* gh-ost */ table `d`.`_t_gho` TO `d`.`t`",
                ],
            ),
            (
                "RENAME TABLES IF EXISTS a WAIT 3 TO b, hidden TO c, c TO out.c",
                &["RENAME TABLES IF EXISTS `d`.`a` TO `d`.`b`"],
            ),
            ("TRUNCATE t", &["TRUNCATE `d`.`t`"]),
            ("TRUNCATE TABLE x.t;", &["TRUNCATE TABLE `x`.`t`;"]),
        ],
    );
    check(
        &merging(),
        &[
            ("DROP TABLE t_1, u", &["DROP TABLE IF EXISTS `m`.`t`", "DROP TABLE IF EXISTS `e`.`u`"]),
            ("RENAME TABLE t_1 TO t_2, u TO x.u", &["RENAME TABLE `e`.`u` TO `x`.`u`"]),
        ],
    );
    let input = DdlInput { schema: "d", text: "RENAME TABLE u TO x.u", sql_mode: 0 };
    let Ok(DdlPlan::Run(run)) = merging().statement(&input) else { panic!() };
    assert_eq!(run[0].kind, DdlKind::RenameTable);
    assert_eq!(run[0].sources.iter().map(ToString::to_string).collect::<Vec<_>>(), ["`d`.`u`", "`x`.`u`"]);
    assert_eq!(run[0].targets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["`e`.`u`", "`x`.`u`"]);
}

#[test]
fn indexes() {
    check(
        &plain(),
        &[
            ("CREATE INDEX i ON t (a)", &["CREATE INDEX i ON `d`.`t` (a)"]),
            (
                "CREATE UNIQUE INDEX IF NOT EXISTS `on` USING BTREE ON x.t (a DESC)",
                &["CREATE UNIQUE INDEX IF NOT EXISTS `on` USING BTREE ON `x`.`t` (a DESC)"],
            ),
            (
                "CREATE FULLTEXT INDEX type ON t (a) WITH PARSER ngram",
                &["CREATE FULLTEXT INDEX type ON `d`.`t` (a) WITH PARSER ngram"],
            ),
            ("DROP INDEX i ON t ALGORITHM = INPLACE", &["DROP INDEX i ON `d`.`t` ALGORITHM = INPLACE"]),
            ("DROP INDEX IF EXISTS `PRIMARY` ON `t`", &["DROP INDEX IF EXISTS `PRIMARY` ON `d`.`t`"]),
        ],
    );
}

#[test]
fn quoting_modes() {
    let transform = plain();
    let text = r#"CREATE TABLE "x"."a""b" (a INT DEFAULT 'it''s')"#;
    let expected = r#"CREATE TABLE IF NOT EXISTS `x`.`a"b` (a INT DEFAULT 'it''s')"#;
    assert_eq!(run_in(&transform, "d", text, ANSI_QUOTES), Ok(vec![expected.to_owned()]));
    assert!(run_in(&transform, "d", text, 0).is_err());
    let text = r"CREATE TABLE t (a INT COMMENT '\') SELECT 1 -- '";
    assert!(run_in(&transform, "d", text, NO_BACKSLASH_ESCAPES).is_err());
    let text = r"ALTER TABLE t COMMENT 'a\', RENAME u -- '";
    let rewritten = |sql_mode| run_in(&transform, "d", text, sql_mode).unwrap().remove(0);
    assert_eq!(rewritten(NO_BACKSLASH_ESCAPES), r"ALTER TABLE `d`.`t` COMMENT 'a\', RENAME `d`.`u` -- '");
    assert_eq!(rewritten(0), r"ALTER TABLE `d`.`t` COMMENT 'a\', RENAME u -- '");
    let input = DdlInput { schema: "d", text, sql_mode: NO_BACKSLASH_ESCAPES | 2 | 1 << 21 };
    let Ok(DdlPlan::Run(run)) = transform.statement(&input) else { panic!() };
    assert_eq!(run[0].sql_modes, ["PIPES_AS_CONCAT", "NO_BACKSLASH_ESCAPES"]);
}

proptest! {
    /// Whatever stands behind the name, and however the name is written, nothing but the name changes.
    #[test]
    fn only_names_change(
        head in r"(ALTER|alter)( |/\*x\*/|-- y\n|\t)(TABLE|Table)",
        space in r"( |/\* \. \*/|#\n)",
        schema in "[a-z`é ]{1,4}",
        table in "[A-Z`_ 0-9]{1,4}",
        bare: bool,
        tail in proptest::collection::vec(
            prop_oneof![
                Just("ADD COLUMN a INT".to_owned()),
                Just("'RENAME TO x'".to_owned()),
                Just("(a, b, (RENAME))".to_owned()),
                Just("/* REFERENCES x */".to_owned()),
                Just("-- REFERENCES x\n".to_owned()),
                Just("`REFERENCES` x".to_owned()),
                Just("/*!50100 ENGINE=InnoDB */".to_owned()),
                Just(", RENAME COLUMN a TO b".to_owned()),
                "[a-q0-9_=@<é]{0,6}",
                r#"'[^'\\]{0,6}'"#,
                r#""[^"\\]{0,6}""#,
            ],
            0..8,
        ),
    ) {
        let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
        let written = if bare { "t".to_owned() } else { format!("{}{space}.{}", quoted(&schema), quoted(&table)) };
        let expected_name = if bare { "`d`.`t`".to_owned() } else { format!("{}.{}", quoted(&schema), quoted(&table)) };
        let tail = tail.join(" ");
        let text = format!("{head}{space}{written} {tail}");
        let expected = format!("{head}{space}{expected_name} {tail}");
        let answer = run_in(&plain(), "d", &text, 0);
        prop_assert_eq!(answer, Ok(vec![expected.trim_matches(|c: char| c.is_ascii_control() || c == ' ').to_owned()]));
    }

    #[test]
    fn never_panics(text in r#"((CREATE|ALTER|DROP|RENAME|TABLE|DATABASE|INDEX|ON|TO|IF|NOT|EXISTS|LIKE|SET|STATEMENT|FOR|UNION|REFERENCES|EXCHANGE|PARTITION|WITH|t|`d`|'|"|`|\.|,|\(|\)|=|@|;|/\*!|/\*|\*/|\PC) ?){0,14}"#, sql_mode: u64) {
        for transform in [plain(), merging()] {
            let _ = transform.statement(&DdlInput { schema: "d", text: &text, sql_mode });
        }
    }
}
