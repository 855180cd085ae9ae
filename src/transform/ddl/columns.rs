//! The columns of a CREATE TABLE statement that an operator gives, to say what rows of a source's table are made of.
//!
//! Only what decides how a row image is read is looked at: names in their order, and for each whether it is unsigned and
//! in which character set its text is. Defaults, keys and options are passed over.

use super::cursor::{Cursor, Misread};
use super::lex::{Dialect, Token, lex};
use crate::error::{Code, Failure};
use crate::model::Flavor;

/// Longest text in a message, in characters.
const SHOWN: usize = 1024;

/// A column as the statement has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateColumn {
    /// Its name.
    pub name: String,
    /// The first word of its type, in lower case.
    pub data_type: String,
    /// Its numbers have no sign.
    pub unsigned: bool,
    /// Of a column with text, where the statement says it of the column or of the table.
    pub charset: Option<String>,
}

/// The columns in their order, at least one.
pub fn create_columns(text: &str, flavor: Flavor) -> Result<Vec<CreateColumn>, Failure> {
    let all = lex(text, Dialect { sql_mode: 0, flavor });
    let tokens: Vec<Token> = all.into_iter().filter(|token| !token.is_trivia()).collect();
    columns(Cursor::new(text, &tokens)).map_err(|misread| {
        let shown: String = text.chars().take(SHOWN).collect();
        let message = format!("{shown} is not a valid `CREATE TABLE` statement");
        Failure::new(Code::NotCreateTable, message).cause(misread.to_string())
    })
}

fn columns(mut c: Cursor<'_>) -> Result<Vec<CreateColumn>, Misread> {
    let c = &mut c;
    c.only_statement()?;
    c.need(&["CREATE"], "CREATE TABLE")?;
    c.eat(&["OR", "REPLACE"]);
    c.eat(&["TEMPORARY"]);
    c.need(&["TABLE"], "CREATE TABLE")?;
    c.eat(&["IF", "NOT", "EXISTS"]);
    c.table_name()?;
    if !c.eat_symbol("(") || c.is(&["LIKE"]) {
        return Err(c.misread("a list of columns"));
    }
    let mut columns = Vec::new();
    loop {
        match begins_key(c) {
            true => drop(attributes(c)?),
            false => columns.push(column(c)?),
        }
        if c.eat_symbol(",") {
            continue;
        }
        if c.eat_symbol(")") {
            break;
        }
        return Err(c.misread("a comma or a closing parenthesis"));
    }
    if columns.is_empty() {
        return Err(c.misread("a column"));
    }
    let charset = attributes(c)?.charset;
    for column in columns.iter_mut().filter(|column| has_text(&column.data_type)) {
        column.charset = column.charset.take().or_else(|| charset.clone());
    }
    if c.at_end() { Ok(columns) } else { Err(c.misread("options of the table")) }
}

/// Whether a key, a constraint or a period stands here. In quotes these words are names.
fn begins_key(c: &Cursor<'_>) -> bool {
    let keys = ["PRIMARY", "KEY", "INDEX", "UNIQUE", "FULLTEXT", "SPATIAL", "FOREIGN", "CONSTRAINT", "CHECK"];
    let two = [["VECTOR", "INDEX"], ["VECTOR", "KEY"], ["PERIOD", "FOR"]];
    c.is_one_of(&keys) || two.iter().any(|words| c.is(words))
}

fn column(c: &mut Cursor<'_>) -> Result<CreateColumn, Misread> {
    let name = c.plain_name()?.name;
    let data_type = c.word(0).ok_or_else(|| c.misread("a type"))?.to_lowercase();
    // What has two names, by one; what names its character set itself is left to the other end.
    let data_type = match data_type.as_str() {
        "character" => "char".to_owned(),
        _ => data_type,
    };
    let serial = data_type == "serial";
    c.advance();
    let said = attributes(c)?;
    let charset = said.charset.filter(|_| has_text(&data_type));
    Ok(CreateColumn { name, data_type, unsigned: said.unsigned || serial, charset })
}

fn has_text(data_type: &str) -> bool {
    ["char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"].contains(&data_type)
}

#[derive(Default)]
struct Attributes {
    unsigned: bool,
    charset: Option<String>,
}

/// Passes everything up to the comma or parenthesis that ends it.
fn attributes(c: &mut Cursor<'_>) -> Result<Attributes, Misread> {
    let mut said = Attributes::default();
    let mut collation = None;
    let mut depth = 0_usize;
    while !c.at_end() {
        if depth == 0 && (c.is_symbol(0, ",") || c.is_symbol(0, ")")) {
            break;
        }
        if c.eat_symbol("(") {
            depth += 1;
        } else if c.eat_symbol(")") {
            depth -= 1;
        } else if depth == 0 && (c.eat(&["CHARSET"]) || c.eat(&["CHARACTER", "SET"])) {
            said.charset = value(c);
        } else if depth == 0 && c.eat(&["COLLATE"]) {
            collation = value(c);
        } else if depth == 0 && c.is_one_of(&["UNSIGNED", "ZEROFILL"]) {
            said.unsigned = true;
            c.advance();
        } else {
            c.advance();
        }
    }
    if depth > 0 {
        return Err(c.misread("a closing parenthesis"));
    }
    let of_collation = |name: String| name.split('_').next().map(str::to_owned);
    said.charset = said.charset.or_else(|| collation.and_then(of_collation));
    Ok(said)
}

/// What follows an option's name.
fn value(c: &mut Cursor<'_>) -> Option<String> {
    c.eat_symbol("=");
    let value = c.word(0).map(str::to_lowercase);
    c.advance();
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, bool, Option<String>)> {
        let columns = create_columns(text, Flavor::MySql).unwrap_or_else(|failure| panic!("{text}: {failure}"));
        columns.into_iter().map(|c| (c.name, c.data_type, c.unsigned, c.charset)).collect()
    }

    fn of(
        name: &str,
        data_type: &str,
        unsigned: bool,
        charset: Option<&str>,
    ) -> (String, String, bool, Option<String>) {
        (name.to_owned(), data_type.to_owned(), unsigned, charset.map(str::to_owned))
    }

    #[test]
    fn columns_are_read_as_servers_and_people_write_them() {
        let shown = "CREATE TABLE `t` (\n  `id` bigint unsigned NOT NULL AUTO_INCREMENT COMMENT 'a, b) c',\n  `key` \
                     varchar(20) CHARACTER SET latin1 COLLATE latin1_bin DEFAULT NULL,\n  `e` enum('x','y)') COLLATE \
                     utf8mb3_bin DEFAULT 'x',\n  `b` varbinary(4) DEFAULT (concat('a',(1))),\n  `v` text \
                     /*!80023 INVISIBLE */,\n  PRIMARY KEY (`id`) /*T![clustered_index] CLUSTERED */,\n  KEY `k` (`key`(3)),\n  \
                     CONSTRAINT `c` CHECK ((`id` > 0))\n) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4 \
                     COLLATE=utf8mb4_bin COMMENT='it''s'\n/*!50100 PARTITION BY HASH (`id`)\nPARTITIONS 2 */;\n";
        let columns = [
            of("id", "bigint", true, None),
            of("key", "varchar", false, Some("latin1")),
            of("e", "enum", false, Some("utf8mb3")),
            of("b", "varbinary", false, None),
            of("v", "text", false, Some("utf8mb4")),
        ];
        assert_eq!(read(shown), columns);
        let typed = "create table if not exists d1.t(id int primary key, period int, name character varying(9), x serial) collate latin1_swedish_ci";
        let columns = [
            of("id", "int", false, None),
            of("period", "int", false, None),
            of("name", "char", false, Some("latin1")),
            of("x", "serial", true, None),
        ];
        assert_eq!(read(typed), columns);
        assert_eq!(read("CREATE TABLE t (s CHAR(3))"), [of("s", "char", false, None)]);
    }

    #[test]
    fn what_is_no_create_table_is_refused_in_dms_words() {
        for text in [
            "create tabel\n",
            "",
            "DROP TABLE t",
            "CREATE TABLE t",
            "CREATE TABLE t LIKE u",
            "CREATE TABLE t (LIKE u)",
            "CREATE TABLE t ()",
            "CREATE TABLE t (PRIMARY KEY (a))",
            "CREATE TABLE t (a INT",
            "CREATE TABLE t (a INT, b)",
            "CREATE TABLE t (a INT); DROP TABLE t",
            "CREATE TABLE t (a INT)) x",
        ] {
            let failure = create_columns(text, Flavor::MariaDb).expect_err(text);
            assert_eq!(failure.code, 44009, "{failure}");
            let words = "is not a valid `CREATE TABLE` statement";
            assert!(failure.message.starts_with(text) && failure.message.ends_with(words), "{failure}");
        }
    }
}
