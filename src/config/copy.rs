//! How existing rows are copied: what `mydumpers` and `loaders` say, checked.
//!
//! DM's dump unit takes flags of dumpling in one text (`extra-args`). Each flag here acts, is refused, or is named as having
//! no meaning, like a key.

use super::kept::Kept;
use super::section::Section;
use super::units::parse_size;

/// What becomes of rows that are in a target table before the copy (`on-duplicate-logical`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDuplicate {
    /// The source's rows replace them.
    #[default]
    Replace,
    /// A table that has some is refused.
    Error,
    /// They stay.
    Ignore,
}

/// How existing rows are copied, in the task modes `all` and `full`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyConfig {
    /// Tables that are read side by side.
    pub readers: u32,
    /// Connections that write.
    pub writers: u32,
    /// What becomes of rows that are there before.
    pub on_duplicate: OnDuplicate,
    /// Bytes of a statement at most; `None` for our own measure.
    pub statement_bytes: Option<u64>,
    /// Rows of a chunk at most; `None` for our own measure.
    pub chunk_rows: Option<u64>,
    /// Bytes of a chunk at most; `None` for our own measure.
    pub chunk_bytes: Option<u64>,
    /// Only rows for which this is true.
    pub condition: Option<String>,
    /// Whether views are made too.
    pub views: bool,
    /// Flags of `extra-args` that cannot be done.
    pub(super) refused: Vec<String>,
    /// Flags of `extra-args` without meaning here.
    pub(super) noted: Vec<String>,
}

impl Default for CopyConfig {
    fn default() -> Self {
        CopyConfig {
            readers: 4,
            writers: 16,
            on_duplicate: OnDuplicate::Replace,
            statement_bytes: None,
            chunk_rows: None,
            chunk_bytes: None,
            condition: None,
            views: false,
            refused: Vec::new(),
            noted: Vec::new(),
        }
    }
}

/// Connections to one server at most.
const CONNECTIONS: u64 = 4096;

impl CopyConfig {
    /// From the settings of both units; what makes no sense is reported in `section`.
    pub(super) fn of(dump: &Kept, load: &Kept, section: &Section<'_>) -> Self {
        let mut config = CopyConfig::default();
        let number = |kept: &Kept, key| kept.int(key).and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        let connections = |key, kept: &Kept, into: &mut u32| match number(kept, key) {
            0 => {}
            many if many > CONNECTIONS => section.problem(key, format!("is {many}; give {CONNECTIONS} at most")),
            some => *into = some as u32,
        };
        connections("threads", dump, &mut config.readers);
        connections("pool-size", load, &mut config.writers);
        config.statement_bytes = Some(number(dump, "statement-size")).filter(|bytes| *bytes > 0);
        config.chunk_rows = Some(number(dump, "rows")).filter(|rows| *rows > 0);
        config.condition = dump.text("where").map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let filesize = dump.text("chunk-filesize").unwrap_or_default();
        match file_size(filesize) {
            // DM's default says nothing.
            Some(bytes) => config.chunk_bytes = Some(bytes).filter(|_| filesize != "64"),
            None => {
                section.problem("chunk-filesize", format!("{filesize:?} is no size; give MiB as a number, or `64MiB`"))
            }
        }
        match load.text("on-duplicate-logical").unwrap_or_default() {
            "" | "replace" => {}
            "error" => config.on_duplicate = OnDuplicate::Error,
            "ignore" => config.on_duplicate = OnDuplicate::Ignore,
            other => section.problem(
                "on-duplicate-logical",
                format!("{other:?} is not known; give `replace`, `error` or `ignore`"),
            ),
        }
        if let Err(why) = config.take_arguments(dump.text("extra-args").unwrap_or_default()) {
            section.problem("extra-args", why);
        }
        config
    }

    fn take_arguments(&mut self, text: &str) -> Result<(), String> {
        let mut words = split(text)?.into_iter();
        while let Some(word) = words.next() {
            let (name, mut value) = match word.split_once('=') {
                Some((name, value)) if word.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (word.clone(), None),
            };
            let Some(flag) = FLAGS.iter().find(|flag| flag.names.contains(&name.as_str())) else {
                if name.starts_with('-') {
                    self.refused.push(name);
                    // Whether what follows is its value is not known; a value alone means nothing.
                    continue;
                }
                if self.refused.is_empty() {
                    return Err(format!("{word:?} belongs to no flag; remove it"));
                }
                continue;
            };
            if value.is_none() && flag.takes_value {
                value = Some(words.next().ok_or_else(|| format!("{name} has no value; give one or remove it"))?);
            }
            self.take_flag(flag, &name, value.unwrap_or_default())?;
        }
        Ok(())
    }

    fn take_flag(&mut self, flag: &Flag, name: &str, value: String) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|_| format!("{name}: {value:?} is no whole number"));
        let connections = || number().map(|number| number.clamp(1, CONNECTIONS) as u32);
        match flag.fate {
            Fate::Threads => self.readers = connections()?,
            Fate::Rows => self.chunk_rows = Some(number()?).filter(|rows| *rows > 0),
            Fate::StatementSize => self.statement_bytes = Some(number()?).filter(|bytes| *bytes > 0),
            Fate::FileSize => {
                let bytes = file_size(&value).ok_or_else(|| format!("{name}: {value:?} is no size"))?;
                self.chunk_bytes = Some(bytes);
            }
            Fate::Where => self.condition = Some(value).filter(|text| !text.trim().is_empty()),
            Fate::Switch => {
                self.views = match value.as_str() {
                    "" | "true" | "1" => false,
                    "false" | "0" => true,
                    other => return Err(format!("{name}: {other:?} is neither true nor false")),
                }
            }
            Fate::Noted => self.noted.push(name.to_owned()),
        }
        Ok(())
    }
}

/// A number is MiB, as in DM; else a size with its unit.
fn file_size(text: &str) -> Option<u64> {
    if text.is_empty() {
        return Some(64 << 20);
    }
    match text.parse::<u64>() {
        Ok(mib) => mib.checked_mul(1 << 20),
        Err(_) => parse_size(text),
    }
    .filter(|bytes| *bytes > 0)
}

/// What a flag of dumpling does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Threads,
    Rows,
    StatementSize,
    FileSize,
    Where,
    /// `--no-views`.
    Switch,
    Noted,
}

struct Flag {
    names: &'static [&'static str],
    takes_value: bool,
    fate: Fate,
}

const fn flag(names: &'static [&'static str], takes_value: bool, fate: Fate) -> Flag {
    Flag { names, takes_value, fate }
}

/// Flags that do not change which rows and tables come, and those that do and can be done. All others are refused.
const FLAGS: &[Flag] = &[
    flag(&["-t", "--threads"], true, Fate::Threads),
    flag(&["-r", "--rows"], true, Fate::Rows),
    flag(&["-s", "--statement-size"], true, Fate::StatementSize),
    flag(&["-F", "--filesize"], true, Fate::FileSize),
    flag(&["--where"], true, Fate::Where),
    flag(&["-W", "--no-views"], false, Fate::Switch),
    flag(&["--consistency"], true, Fate::Noted),
    flag(&["--no-locks"], false, Fate::Noted),
    flag(&["-k"], false, Fate::Noted),
    flag(&["--transactional-consistency"], false, Fate::Noted),
    flag(&["--escape-backslash"], false, Fate::Noted),
    flag(&["--complete-insert"], false, Fate::Noted),
    flag(&["--order-by-primary-key"], false, Fate::Noted),
    flag(&["--dump-empty-database"], false, Fate::Noted),
    flag(&["--skip-tz-utc"], false, Fate::Noted),
    flag(&["--tidb-mem-quota-query"], true, Fate::Noted),
    flag(&["--params"], true, Fate::Noted),
    flag(&["--read-timeout"], true, Fate::Noted),
    flag(&["-c", "--compress"], true, Fate::Noted),
    flag(&["--filetype"], true, Fate::Noted),
    flag(&["-o", "--output"], true, Fate::Noted),
    flag(&["--output-filename-template"], true, Fate::Noted),
    flag(&["--loglevel"], true, Fate::Noted),
    flag(&["-L", "--logfile"], true, Fate::Noted),
    flag(&["--logfmt"], true, Fate::Noted),
    flag(&["--status-addr"], true, Fate::Noted),
];

/// Words as a shell splits them: quotes and backslashes keep spaces.
fn split(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote, mut open) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (None, '\'' | '"') => (quote, open) = (Some(c), true),
            (None | Some('"'), '\\') => {
                word.extend(chars.next());
                open = true;
            }
            (None, c) if c.is_whitespace() => {
                if std::mem::take(&mut open) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => {
                word.push(c);
                open = true;
            }
        }
    }
    if quote.is_some() {
        return Err("a quote in it does not end".to_owned());
    }
    if open {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<CopyConfig, String> {
        let mut config = CopyConfig::default();
        config.take_arguments(text).map(|()| config)
    }

    #[test]
    fn flags_act_are_refused_or_named() {
        let config =
            taken("-t 9 --rows=7 -F 32MiB --where \"a > 'x y' AND b\" --no-views=false --consistency none -k").unwrap();
        assert_eq!((config.readers, config.chunk_rows, config.chunk_bytes), (9, Some(7), Some(32 << 20)));
        assert_eq!((config.condition.as_deref(), config.views), (Some("a > 'x y' AND b"), true));
        assert_eq!((config.refused.len(), config.noted), (0, vec!["--consistency".to_owned(), "-k".to_owned()]));
        let config = taken("--filter 'a.*' -B b --no-data -W").unwrap();
        assert_eq!((config.refused, config.views), (vec!["--filter".into(), "-B".into(), "--no-data".into()], false));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, word) in [
            ("--where", "no value"),
            ("none", "belongs to no flag"),
            ("-t many", "no whole number"),
            ("--where 'a", "does not end"),
            ("--no-views=perhaps", "neither"),
            ("-F much", "no size"),
        ] {
            let error = taken(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_number_alone_is_mib() {
        assert_eq!(file_size("64"), Some(64 << 20));
        assert_eq!(
            (file_size("1GiB"), file_size("10kb"), file_size("x"), file_size("0")),
            (Some(1 << 30), Some(10_000), None, None)
        );
    }
}
