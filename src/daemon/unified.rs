//! Log lines in the form that TiDB and its tools share: whatever reads a dm-worker's log reads the agent's.
//!
//! ```text
//! [2026/11/30 07:27:27.000 +00:00] [INFO] [course.rs:207] ["dispatch auto resume task"] [task=t1] [error="lost: x"]
//! ```
//! A word that holds a blank, a quote, a bracket, a backslash or an equals sign is quoted as in JSON, so a line stays one
//! line whatever a text holds. Fields of the line come first, those of its spans behind them. The clock is UTC's.

use std::fmt::{self, Write as _};

use time::OffsetDateTime;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The form, of whole lines and of fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unified;

impl<S, N> FormatEvent<S, N> for Unified
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let form = format_description!("[year]/[month]/[day] [hour]:[minute]:[second].[subsecond digits:3] +00:00");
        let now = OffsetDateTime::now_utc().format(form).map_err(|_| fmt::Error)?;
        let about = event.metadata();
        let level = match *about.level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARN",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        };
        write!(writer, "[{now}] [{level}]")?;
        if let (Some(file), Some(line)) = (about.file(), about.line()) {
            let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
            write!(writer, " [{name}:{line}]")?;
        }
        let mut words = Words::default();
        event.record(&mut words);
        write!(writer, " [{}]{}", word(&words.message), words.fields)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                write!(writer, "{fields}")?;
            }
        }
        writeln!(writer)
    }
}

impl<'writer> FormatFields<'writer> for Unified {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut words = Words::default();
        fields.record(&mut words);
        writer.write_str(&words.fields)
    }
}

/// What a line says, and its fields as they are written.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Words {
    fn take(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            // Writing into a string fails never.
            let _ = write!(self.fields, " [{}={}]", word(field.name()), word(&text));
        }
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

/// A word as it stands between brackets.
fn word(text: &str) -> String {
    let plain = |c: char| c > ' ' && !matches!(c, '"' | '[' | ']' | '=' | '\\' | '\u{7f}'..='\u{9f}');
    if text.chars().all(plain) { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_they_must_be() {
        for plain in ["", "t1", "127.0.0.1:8261", "Größe", "a,b"] {
            assert_eq!(word(plain), plain);
        }
        for (text, quoted) in [
            ("two words", r#""two words""#),
            ("a=b", r#""a=b""#),
            ("[x]", r#""[x]""#),
            ("{\"name\":\"w\"}", r#""{\"name\":\"w\"}""#),
            ("line\nline", r#""line\nline""#),
            ("back\\slash", r#""back\\slash""#),
        ] {
            assert_eq!(word(text), quoted);
        }
        assert!(!word("\u{1b}[31m\u{7f}").contains('\u{1b}'), "nothing that a terminal obeys");
    }
}
