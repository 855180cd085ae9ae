//! Collations that are said where a statement left them to the source.

use super::*;
use crate::model::SourceCollations;

fn known() -> SourceCollations {
    let defaults =
        [("utf8mb4", "utf8mb4_0900_ai_ci"), ("utf8mb3", "utf8mb3_general_ci"), ("latin1", "latin1_swedish_ci")];
    let names = [(8, "latin1_swedish_ci"), (45, "utf8mb4_general_ci"), (255, "utf8mb4_0900_ai_ci")];
    SourceCollations::new(
        defaults.map(|(charset, collation)| (charset.to_owned(), collation.to_owned())),
        names.map(|(number, name)| (number, name.to_owned())),
    )
}

fn collated(text: &str, session: SessionCollations) -> String {
    let plan = plain().statement(&DdlInput { schema: "d", text, sql_mode: 0 });
    let Ok(DdlPlan::Run(mut run)) = plan else { panic!("{text}: {plan:?}") };
    let before = run.remove(0);
    let leaves = before.leaves_collations(Flavor::MySql);
    let after = before.clone().collated(Flavor::MySql, &known(), session);
    assert!(leaves || after == before, "{text}");
    after.sql
}

#[test]
fn each_character_set_without_a_collation_gets_the_sources() {
    let server = SessionCollations { server: Some(8), utf8mb4: None };
    for (text, expected) in [
        ("CREATE DATABASE e", "CREATE DATABASE IF NOT EXISTS `e` COLLATE latin1_swedish_ci"),
        (
            "CREATE DATABASE e CHARACTER SET utf8",
            "CREATE DATABASE IF NOT EXISTS `e` CHARACTER SET utf8 COLLATE utf8_general_ci",
        ),
        ("CREATE DATABASE e COLLATE utf8_bin", "CREATE DATABASE IF NOT EXISTS `e` COLLATE utf8_bin"),
        ("ALTER DATABASE e CHARSET='latin1'", "ALTER DATABASE `e` CHARSET='latin1' COLLATE latin1_swedish_ci"),
        (
            "CREATE TABLE t (a INT, b VARCHAR(9) CHARACTER SET latin1 NOT NULL, c TEXT CHARSET utf8mb4 COLLATE utf8mb4_bin, \
             d CHAR(3) CHARACTER SET latin1 BINARY, e INT AS (CAST(b AS CHAR CHARACTER SET utf8))) DEFAULT CHARSET=utf8mb4 \
             ENGINE=InnoDB",
            "CREATE TABLE IF NOT EXISTS `d`.`t` (a INT, b VARCHAR(9) CHARACTER SET latin1 COLLATE latin1_swedish_ci NOT \
             NULL, c TEXT CHARSET utf8mb4 COLLATE utf8mb4_bin, d CHAR(3) CHARACTER SET latin1 BINARY, e INT AS (CAST(b AS \
             CHAR CHARACTER SET utf8))) DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_0900_ai_ci ENGINE=InnoDB",
        ),
        (
            "CREATE TABLE t (a INT, charset VARCHAR(9))",
            "CREATE TABLE IF NOT EXISTS `d`.`t` (a INT, charset VARCHAR(9))",
        ),
        (
            "ALTER TABLE t ADD (x TEXT CHARSET latin1, y INT), ADD z TEXT CHARSET latin1 FIRST, MODIFY a TEXT COLLATE x_bin",
            "ALTER TABLE `d`.`t` ADD (x TEXT CHARSET latin1 COLLATE latin1_swedish_ci, y INT), ADD z TEXT CHARSET latin1 \
             COLLATE latin1_swedish_ci FIRST, MODIFY a TEXT COLLATE x_bin",
        ),
        (
            "ALTER TABLE t CONVERT TO CHARACTER SET latin1",
            "ALTER TABLE `d`.`t` CONVERT TO CHARACTER SET latin1 COLLATE latin1_swedish_ci",
        ),
        ("CREATE TABLE t LIKE u", "CREATE TABLE IF NOT EXISTS `d`.`t` LIKE `d`.`u`"),
        // Nobody knows it.
        ("ALTER TABLE t CHARACTER SET klingon", "ALTER TABLE `d`.`t` CHARACTER SET klingon"),
    ] {
        assert_eq!(collated(text, server), expected, "{text}");
    }
}

#[test]
fn the_session_decides_what_utf8mb4_alone_means() {
    let session = SessionCollations { server: None, utf8mb4: Some(45) };
    assert_eq!(
        collated("ALTER TABLE t CHARACTER SET utf8mb4", session),
        "ALTER TABLE `d`.`t` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
    );
    assert_eq!(collated("CREATE DATABASE e", session), "CREATE DATABASE IF NOT EXISTS `e`", "it is not logged");
}
