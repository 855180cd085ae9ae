//! MariaDB's statements for a MySQL.

use super::*;

/// What is run: the text, or what stands before the clauses and each clause with its condition.
fn adapted(text: &str) -> (String, Vec<String>) {
    let plan = plain().statement(&DdlInput { schema: "d", text, sql_mode: 0 });
    let Ok(DdlPlan::Run(mut run)) = plan else { panic!("{text}: {plan:?}") };
    let same = run[0].clone().adapted(Flavor::MySql, Flavor::MySql);
    assert_eq!(same, run[0], "a MySQL's statement stays");
    let statement = run.remove(0).adapted(Flavor::MariaDb, Flavor::MySql);
    let shown = |clause: TargetClause| match clause.condition {
        Some(ClauseCondition { there, part, name }) => {
            format!("{} | {}{part:?} {name}", clause.text, if there { "" } else { "no " })
        }
        None => clause.text,
    };
    (statement.sql, statement.clauses.into_iter().map(shown).collect())
}

#[test]
fn one_text_for_another() {
    for (text, expected) in [
        ("ALTER ONLINE TABLE t WAIT 5 ADD COLUMN w INT", "ALTER TABLE `d`.`t` ADD COLUMN w INT"),
        ("ALTER TABLE IF EXISTS t NOWAIT DROP COLUMN nowait", "ALTER TABLE `d`.`t` DROP COLUMN nowait"),
        ("ALTER IGNORE TABLE t ADD UNIQUE (a)", "ALTER IGNORE TABLE `d`.`t` ADD UNIQUE (a)"),
        (
            "CREATE TABLE t (id INT PRIMARY KEY /*M!100100 , v INT */)",
            "CREATE TABLE IF NOT EXISTS `d`.`t` (id INT PRIMARY KEY   , v INT  )",
        ),
        (
            "CREATE TABLE t (a INT, b INT AS (a * 2) PERSISTENT, persistent INT)",
            "CREATE TABLE IF NOT EXISTS `d`.`t` (a INT, b INT AS (a * 2) STORED, persistent INT)",
        ),
        (
            "CREATE TABLE t (s TEXT COMPRESSED, v VARCHAR(9) COMPRESSED=zlib NOT NULL, compressed INT) ROW_FORMAT=COMPRESSED",
            "CREATE TABLE IF NOT EXISTS `d`.`t` (s TEXT , v VARCHAR(9) NOT NULL, compressed INT) ROW_FORMAT=COMPRESSED",
        ),
        (
            "CREATE TABLE t (a INT, KEY k (a) IGNORED, KEY l (a) NOT IGNORED) PAGE_COMPRESSED=1 `ENCRYPTED`=YES COMMENT='PERSISTENT'",
            "CREATE TABLE IF NOT EXISTS `d`.`t` (a INT, KEY k (a) INVISIBLE, KEY l (a) ) COMMENT='PERSISTENT'",
        ),
        ("TRUNCATE TABLE t NOWAIT", "TRUNCATE TABLE `d`.`t` "),
        ("DROP TABLE t WAIT 3", "DROP TABLE IF EXISTS `d`.`t` "),
        ("RENAME TABLE IF EXISTS t WAIT 3 TO u", "RENAME TABLE `d`.`t` TO `d`.`u`"),
    ] {
        assert_eq!(adapted(text), (expected.to_owned(), Vec::new()), "{text}");
    }
}

#[test]
fn clauses_under_a_condition() {
    let cases: [(&str, &str, &[&str]); 5] = [
        (
            "ALTER TABLE t ADD COLUMN IF NOT EXISTS `a``b` DECIMAL(3,1) DEFAULT (f(1, 2)), DROP COLUMN IF EXISTS x, ALGORITHM=INPLACE",
            "ALTER TABLE `d`.`t` ",
            &[
                "ADD COLUMN `a``b` DECIMAL(3,1) DEFAULT (f(1, 2)) | no Column a`b",
                "DROP COLUMN x | Column x",
                "ALGORITHM=INPLACE",
            ],
        ),
        (
            "ALTER ONLINE TABLE t ADD UNIQUE INDEX IF NOT EXISTS i (a), DROP KEY IF EXISTS j, DROP FOREIGN KEY IF EXISTS f, ADD b INT",
            "ALTER TABLE `d`.`t` ",
            &[
                "ADD UNIQUE INDEX i (a) | no Index i",
                "DROP KEY j | Index j",
                "DROP FOREIGN KEY f | ForeignKey f",
                "ADD b INT",
            ],
        ),
        (
            "ALTER TABLE t MODIFY COLUMN IF EXISTS v TEXT COMPRESSED, CHANGE IF EXISTS w x INT",
            "ALTER TABLE `d`.`t` ",
            &["MODIFY COLUMN v TEXT | Column v", "CHANGE w x INT | Column w"],
        ),
        ("CREATE INDEX IF NOT EXISTS i ON t (a)", "", &["CREATE INDEX i ON `d`.`t` (a) | no Index i"]),
        ("DROP INDEX IF EXISTS i ON t", "", &["DROP INDEX i ON `d`.`t` | Index i"]),
    ];
    for (text, sql, clauses) in cases {
        let clauses = clauses.iter().map(|clause| (*clause).to_owned()).collect();
        assert_eq!(adapted(text), (sql.to_owned(), clauses), "{text}");
    }
}

#[test]
fn values_of_each_servers_own() {
    let found = |text: &str| {
        let plan = plain().statement(&DdlInput { schema: "d", text, sql_mode: 0 });
        let Ok(DdlPlan::Run(run)) = plan else { panic!("{text}: {plan:?}") };
        run[0].volatile(Flavor::MariaDb)
    };
    assert_eq!(found("ALTER TABLE t ADD COLUMN u VARCHAR(40) DEFAULT (uuid())"), Some("UUID"));
    assert_eq!(found("ALTER TABLE t DROP COLUMN a, ADD u DOUBLE DEFAULT rand()"), Some("RAND"));
    assert_eq!(found("ALTER TABLE t ADD u VARCHAR(99) DEFAULT CURRENT_USER"), Some("CURRENT_USER"));
    for text in [
        "ALTER TABLE t ADD COLUMN at DATETIME DEFAULT NOW()",
        "ALTER TABLE t ADD COLUMN uuid UUID",
        "ALTER TABLE t ADD COLUMN s VARCHAR(9) COMMENT 'rand()'",
        "ALTER TABLE t MODIFY COLUMN u VARCHAR(40) DEFAULT (uuid())",
        "ALTER TABLE t ADD INDEX user (a)",
        "CREATE TABLE t (u VARCHAR(40) DEFAULT (uuid()))",
    ] {
        assert_eq!(found(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_taken(body in r#"([A-Z]{1,9}|[ ,()`'=]|IF NOT EXISTS|ADD|DROP|COLUMN|WAIT 1|/\*M!100100|\*/){0,30}"#) {
        for head in ["ALTER TABLE t ", "CREATE TABLE t (a INT) ", "CREATE INDEX ", "RENAME TABLE "] {
            let text = format!("{head}{body}");
            if let Ok(DdlPlan::Run(run)) = plain().statement(&DdlInput { schema: "d", text: &text, sql_mode: 0 }) {
                for statement in run {
                    let _ = statement.volatile(Flavor::MariaDb);
                    let _ = statement.adapted(Flavor::MariaDb, Flavor::MySql);
                }
            }
        }
    }
}
