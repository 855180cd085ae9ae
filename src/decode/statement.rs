//! QUERY events: the session they ran in, from the status variables, and their text in UTF-8.

use std::borrow::Cow;

use super::error::DecodeError;
use super::item::Statement;
use crate::binlog::QueryBody;
use crate::model::{EventSpan, Flavor};
use crate::row::{Charset, Cursor};

/// Bit of `flags2` for `foreign_key_checks=0`.
const NO_FOREIGN_KEY_CHECKS: u32 = 1 << 26;
/// utf8mb4_general_ci, by which MariaDB names the character set in its list of default collations.
const UTF8MB4: u16 = 45;
/// Number of updated schemas that stands for "too many to list".
const TOO_MANY_SCHEMAS: u8 = 254;

/// What a statement's session had set, as far as it matters.
#[derive(Debug, Default, PartialEq, Eq)]
struct Session {
    flags2: u32,
    sql_mode: u64,
    charset: Option<[u16; 3]>,
    utf8mb4_collation: Option<u16>,
    time_zone: Option<String>,
}

/// Reads a QUERY event whose statement (already decompressed) is `text`.
pub(super) fn statement(
    flavor: Flavor,
    query: &QueryBody<'_>,
    text: &[u8],
    span: &EventSpan,
    timestamp: u32,
) -> Result<Statement, DecodeError> {
    let session = Session::parse(flavor, query.status_vars);
    // Without the variable nothing but ASCII or the servers' own UTF-8 was sent.
    let charset = Charset::of_collation(session.charset.map_or(45, |[client, ..]| client.into()));
    let schema = std::str::from_utf8(query.schema).map_err(|_| span.malformed("QUERY", "schema is not UTF-8"))?;
    Ok(Statement {
        schema: schema.to_owned(),
        text: utf8(charset, text, span)?.into_owned(),
        sql_mode: session.sql_mode,
        charset: session.charset,
        utf8mb4_collation: session.utf8mb4_collation,
        time_zone: session.time_zone,
        no_foreign_key_checks: session.flags2 & NO_FOREIGN_KEY_CHECKS != 0,
        error_code: query.error_code,
        start: span.start(),
        end: span.end(),
        timestamp,
    })
}

fn utf8<'a>(charset: Charset, text: &'a [u8], span: &EventSpan) -> Result<Cow<'a, str>, DecodeError> {
    match charset.to_utf8(text) {
        Some(text) => Ok(text),
        // Nothing depends on the letters of a comment.
        None if is_comment(text) => Ok(String::from_utf8_lossy(text)),
        None => Err(DecodeError::StatementText { at: span.start(), charset: charset.name }),
    }
}

/// Whether a text is one comment and nothing else.
fn is_comment(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    if text.starts_with(b"#") || text.starts_with(b"-- ") {
        return !text.contains(&b'\n');
    }
    let conditional = text.starts_with(b"/*!") || text.starts_with(b"/*M!");
    let end = text.windows(2).position(|pair| pair == b"*/");
    text.starts_with(b"/*") && !conditional && end == text.len().checked_sub(2)
}

impl Session {
    /// Reads the variables up to the first one that is not known: without its length there is no going on, and everything
    /// wanted is written early.
    fn parse(flavor: Flavor, variables: &[u8]) -> Session {
        let mut session = Session::default();
        let mut at = Cursor::new(variables);
        while session.variable(flavor, &mut at).is_some() {}
        session
    }

    fn variable(&mut self, flavor: Flavor, at: &mut Cursor<'_>) -> Option<()> {
        match at.u8()? {
            0 => self.flags2 = at.u32()?,
            1 => self.sql_mode = at.u64()?,
            // The old catalog has a zero byte behind it, the new one not.
            2 => at.prefixed(1).and(at.u8()).map(drop)?,
            6 => at.prefixed(1).map(drop)?,
            4 => self.charset = Some([at.u16()?, at.u16()?, at.u16()?]),
            5 => self.time_zone = Some(std::str::from_utf8(at.prefixed(1)?).ok()?.to_owned()),
            // Auto-increment, length in the master, master's flags.
            3 | 10 => at.take(4).map(drop)?,
            18 => self.utf8mb4_collation = Some(at.u16()?),
            // Names of times, character set of the schema.
            7 | 8 => at.take(2).map(drop)?,
            // Tables of a multi-table update, XID of a DDL.
            9 | 17 => at.take(8).map(drop)?,
            // Invoker: user and host.
            11 => at.prefixed(1).and(at.prefixed(1)).map(drop)?,
            12 => schemas(at)?,
            // Microseconds, in both flavours' numbers.
            13 | 128 => at.take(3).map(drop)?,
            // explicit_defaults_for_timestamp, sql_require_primary_key, default_table_encryption.
            16 | 19 | 20 => at.take(1).map(drop)?,
            // character_set_collations: a count, and pairs of character set and collation. Stands before the character sets.
            131 if flavor == Flavor::MariaDb => {
                for _ in 0..at.u8()? {
                    let (charset, collation) = (at.u16()?, at.u16()?);
                    if charset == UTF8MB4 {
                        self.utf8mb4_collation = Some(collation);
                    }
                }
            }
            code if flavor == Flavor::MariaDb => maria_variable(code, at)?,
            _ => return None,
        }
        Some(())
    }
}

/// A number of names, each ending with a zero byte.
fn schemas(at: &mut Cursor<'_>) -> Option<()> {
    let count = at.u8()?;
    if count == TOO_MANY_SCHEMAS {
        return Some(());
    }
    for _ in 0..count {
        let end = at.rest().iter().position(|byte| *byte == 0)?;
        at.take(end + 1)?;
    }
    Some(())
}

fn maria_variable(code: u8, at: &mut Cursor<'_>) -> Option<()> {
    match code {
        // XID of a DDL.
        129 => at.take(8).map(drop),
        // Flags of the GTID event; those that end a two-phase ALTER have the number of its start behind them.
        130 => {
            let flags = at.u16()?;
            if flags & 0x0c != 0 { at.take(8).map(drop) } else { Some(()) }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn session_variables() {
        let mut bytes = vec![0, 0, 0, 0, 4, 1, 2, 0, 0, 0, 0, 0, 0, 0, 6, 3];
        bytes.extend(b"std");
        bytes.extend([3, 1, 0, 1, 0, 4, 28, 0, 33, 0, 8, 0, 5, 6]);
        bytes.extend(b"+02:00");
        let session = Session::parse(Flavor::MySql, &bytes);
        let time_zone = Some("+02:00".to_owned());
        let charset = Some([28, 33, 8]);
        assert_eq!(session, Session { flags2: 1 << 26, sql_mode: 2, charset, utf8mb4_collation: None, time_zone });
        assert_eq!(Session::parse(Flavor::MySql, &[18, 255, 0]).utf8mb4_collation, Some(255));
    }

    #[test]
    fn maria_variables_before_the_character_sets() {
        let bytes = [131, 1, 45, 0, 46, 0, 130, 4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 128, 1, 2, 3, 4, 8, 0, 8, 0, 8, 0];
        let session = Session::parse(Flavor::MariaDb, &bytes);
        assert_eq!((session.charset, session.utf8mb4_collation), (Some([8, 8, 8]), Some(46)));
        assert_eq!(Session::parse(Flavor::MySql, &bytes).charset, None);
    }

    #[test]
    fn unknown_variables_end_the_list() {
        let bytes = [12, 2, b'a', 0, b'b', 0, 11, 1, b'u', 1, b'h', 1, 9, 0, 0, 0, 0, 0, 0, 0, 99, 4, 1, 1, 1, 1, 1, 1];
        let session = Session::parse(Flavor::MySql, &bytes);
        assert_eq!((session.sql_mode, session.charset), (9, None));
    }

    #[test]
    fn text_is_converted_or_refused() {
        let span = EventSpan::test();
        let convert =
            |collation, text: &[u8]| utf8(Charset::of_collation(collation), text, &span).map(|t| t.into_owned());
        assert_eq!(convert(8, b"create table t (a int comment '\xe9')").unwrap(), "create table t (a int comment 'é')");
        assert!(matches!(
            convert(33, b"create table \xe9"),
            Err(DecodeError::StatementText { charset: "utf8mb3", .. })
        ));
        assert!(convert(45, b"/* \xe9 */").is_ok());
        assert!(convert(45, b"# \xe9").is_ok());
        assert!(convert(45, b"/* \xe9 */ drop table t /* */").is_err());
        assert!(convert(45, b"/*!40000 \xe9 */").is_err());
        assert!(convert(45, b"# a\ndrop table \xe9").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_variables_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            Session::parse(Flavor::MySql, &bytes);
            Session::parse(Flavor::MariaDb, &bytes);
            is_comment(&bytes);
        }
    }
}
