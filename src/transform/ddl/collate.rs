//! `collation_compatible: strict`: what a statement leaves to its server's defaults is said, as the source has it.
//!
//! A character set without a collation means another one to another server, and a database without both takes the server's.
//! A table without both takes its schema's, which was said when that was made.

use std::ops::Range;

use super::adapt::Text;
use super::cursor::Edit;
use super::plan::edited;
use super::{DdlKind, TargetStatement};
use crate::model::{Flavor, SourceCollations};

/// What the session on the source had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCollations {
    /// Number of the server's collation.
    pub server: Option<u16>,
    /// Number of what utf8mb4 without a collation meant; `None` for the server's default.
    pub utf8mb4: Option<u16>,
}

/// A place for a collation.
struct Gap {
    /// Byte behind which it goes.
    behind: usize,
    /// Default of this character set; `None` for the server's.
    charset: Option<String>,
}

impl TargetStatement {
    /// Whether it leaves a collation to the server.
    pub fn leaves_collations(&self, flavor: Flavor) -> bool {
        !self.gaps(flavor).is_empty()
    }

    /// The same with the collations that it meant on the source, as far as that has names for them.
    pub fn collated(mut self, flavor: Flavor, known: &SourceCollations, session: SessionCollations) -> Self {
        let meant = |gap: &Gap| match gap.charset.as_deref() {
            None => session.server.and_then(|number| known.name(number)).map(str::to_owned),
            Some(charset) => {
                let own = session.utf8mb4.filter(|_| charset.eq_ignore_ascii_case("utf8mb4"));
                own.and_then(|number| known.name(number)).map(str::to_owned).or_else(|| known.default_of(charset))
            }
        };
        let edit = |gap: Gap| {
            let collation = meant(&gap)?;
            Some(Edit { span: gap.behind..gap.behind, text: format!(" COLLATE {collation}") })
        };
        let edits: Vec<Edit> = self.gaps(flavor).into_iter().filter_map(edit).collect();
        self.sql = edited(&self.sql, edits);
        self
    }

    fn gaps(&self, flavor: Flavor) -> Vec<Gap> {
        let text = Text::new(&self.sql, self.sql_mode, flavor);
        let all = 0..text.len();
        match self.kind {
            DdlKind::CreateDatabase if !text.names_collation(all.clone()) => {
                let last = if text.of(text.len() - 1) == ";" { text.len() - 2 } else { text.len() - 1 };
                vec![Gap { behind: text.end(last), charset: None }]
            }
            DdlKind::CreateDatabase | DdlKind::AlterDatabase => text.gap(all).into_iter().collect(),
            DdlKind::CreateTable => text.table_parts().into_iter().filter_map(|part| text.gap(part)).collect(),
            DdlKind::AlterTable => {
                let clauses = text.clauses(text.behind_name()).into_iter();
                clauses.flat_map(|clause| text.added(clause)).filter_map(|part| text.gap(part)).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Text<'_> {
    /// Whether a character set or a collation is named among these tokens.
    fn names_collation(&self, mut part: Range<usize>) -> bool {
        part.any(|at| self.is(at, &["COLLATE"]) || self.charset_at(at).is_some())
    }

    /// Where the name of a character set stands, if the words before it do.
    fn charset_at(&self, at: usize) -> Option<usize> {
        let behind = match () {
            () if self.is(at, &["CHARSET"]) => at + 1,
            () if self.is(at, &["CHARACTER", "SET"]) || self.is(at, &["CHAR", "SET"]) => at + 2,
            () => return None,
        };
        Some(if self.of(behind) == "=" { behind + 1 } else { behind })
    }

    /// A character set without a collation among these tokens, those in parentheses left out.
    fn gap(&self, part: Range<usize>) -> Option<Gap> {
        let (mut found, mut depth, mut at) = (None, 0_usize, part.start);
        while at < part.end {
            match self.of(at) {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ if depth > 0 => {}
                // BINARY behind a text's type is the collation without rules.
                _ if self.is_one_of(at, &["COLLATE", "BINARY"]) => return None,
                _ => {
                    if let Some(name) = self.charset_at(at) {
                        found = Some(name);
                        at = name;
                    }
                }
            }
            at += 1;
        }
        let charset = self.of(found?).trim_matches(['\'', '"', '`']).to_owned();
        Some(Gap { behind: self.end(found?), charset: Some(charset) })
    }

    /// What a CREATE TABLE says of its columns, one by one, and of the table.
    fn table_parts(&self) -> Vec<Range<usize>> {
        let all = 0..self.len();
        let Some(open) = all.clone().find(|&at| self.of(at) == "(") else { return vec![all] };
        let (mut parts, close) = self.listed(open);
        parts.extend([0..open, close + 1..self.len()]);
        parts
    }

    /// A clause, or each column of `ADD (a INT, b INT)`.
    fn added(&self, clause: Range<usize>) -> Vec<Range<usize>> {
        let behind = clause.start + 1 + usize::from(self.is(clause.start + 1, &["COLUMN"]));
        if self.is(clause.start, &["ADD"]) && self.of(behind) == "(" { self.listed(behind).0 } else { vec![clause] }
    }

    /// What is listed in the parentheses that open here, and where they close.
    fn listed(&self, open: usize) -> (Vec<Range<usize>>, usize) {
        let (mut parts, mut begin, mut depth) = (Vec::new(), open + 1, 0_usize);
        for at in open..self.len() {
            match self.of(at) {
                "(" => depth += 1,
                "," if depth == 1 => {
                    parts.push(begin..at);
                    begin = at + 1;
                }
                ")" if depth == 1 => {
                    parts.push(begin..at);
                    return (parts, at);
                }
                ")" => depth -= 1,
                _ => {}
            }
        }
        (parts, self.len().saturating_sub(1))
    }
}
