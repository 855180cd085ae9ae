//! A MariaDB's statement for a target that is none: what only MariaDB has words for is said otherwise, or left out where
//! it only says how something is stored or run.
//!
//! What has no counterpart (sequences, system versioning, types of its own) stays as it is: the target refuses it, and the
//! operator decides. Nothing is left out that decides what a table can hold.

use std::ops::Range;

use super::cursor::Edit;
use super::lex::{Dialect, Token, TokenKind, lex};
use super::plan::edited;
use super::{ClauseCondition, ClausePart, DdlKind, ORACLE, TargetClause, TargetStatement};
use crate::model::Flavor;

/// Functions that give another value at each call, or to each server.
const VOLATILE: &[&str] = &[
    "UUID",
    "UUID_SHORT",
    "UUID_V4",
    "UUID_V7",
    "SYS_GUID",
    "RAND",
    "RANDOM_BYTES",
    "SYSDATE",
    "USER",
    "SESSION_USER",
    "SYSTEM_USER",
    "CURRENT_USER",
    "CONNECTION_ID",
    "LAST_INSERT_ID",
    "NEXTVAL",
    "LASTVAL",
];
/// Words that may follow ADD where no column is added.
const NO_COLUMN: &[&str] = &[
    "INDEX",
    "KEY",
    "UNIQUE",
    "PRIMARY",
    "FULLTEXT",
    "SPATIAL",
    "VECTOR",
    "FOREIGN",
    "CONSTRAINT",
    "CHECK",
    "PARTITION",
    "PERIOD",
    "SYSTEM",
];
/// Options of a table that say how MariaDB stores it.
const STORAGE: &[&str] = &[
    "PAGE_COMPRESSED",
    "PAGE_COMPRESSION_LEVEL",
    "PAGE_CHECKSUM",
    "ENCRYPTED",
    "ENCRYPTION_KEY_ID",
    "TRANSACTIONAL",
    "IETF_QUOTES",
];
/// Types that MariaDB can store compressed, beside those with a length.
const LONG_TYPES: &[&str] =
    &["TEXT", "TINYTEXT", "MEDIUMTEXT", "LONGTEXT", "BLOB", "TINYBLOB", "MEDIUMBLOB", "LONGBLOB", "JSON"];

impl TargetStatement {
    /// A function in it whose values for the rows that are there cannot be the source's.
    pub fn volatile(&self, flavor: Flavor) -> Option<&'static str> {
        if self.kind != DdlKind::AlterTable {
            return None;
        }
        let text = Text::new(&self.sql, self.sql_mode, flavor);
        text.clauses(text.behind_name()).into_iter().find_map(|clause| text.volatile(clause))
    }

    /// Whether it creates a table whose character set is that of its schema.
    pub fn takes_schema_charset(&self, flavor: Flavor) -> bool {
        let text = Text::new(&self.sql, self.sql_mode, flavor);
        let named = |at| text.is_one_of(at, &["CHARSET", "COLLATE", "LIKE"]) || text.is(at, &["CHARACTER", "SET"]);
        let mut depth = 0_usize;
        self.kind == DdlKind::CreateTable
            && !(0..text.tokens.len()).any(|at| {
                match text.of(at) {
                    "(" => depth += 1,
                    ")" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                depth == 0 && named(at)
            })
    }

    /// How many changes it makes, where each could be a statement of its own.
    pub fn changes(&self, flavor: Flavor) -> usize {
        if self.kind != DdlKind::AlterTable {
            return 1;
        }
        let text = Text::new(&self.sql, self.sql_mode, flavor);
        let clauses = text.clauses(text.behind_name());
        clauses.into_iter().filter(|clause| !text.is_one_of(clause.start, &["ALGORITHM", "LOCK"])).count()
    }

    /// The statement as `target` takes it.
    pub fn adapted(mut self, from: Flavor, target: Flavor) -> TargetStatement {
        if from != Flavor::MariaDb || target != Flavor::MariaDb {
            self.sql_modes.retain(|mode| *mode != ORACLE);
        }
        if from != Flavor::MariaDb || target == Flavor::MariaDb {
            return self;
        }
        // What a comment of MariaDB's holds counts: it was executed there.
        let tokens = lex(&self.sql, Dialect { sql_mode: self.sql_mode, flavor: from });
        let version = |token: &&Token| matches!(token.kind, TokenKind::VersionOpen | TokenKind::VersionClose);
        let blank = |token: &Token| Edit { span: token.start..token.end, text: " ".to_owned() };
        self.sql = edited(&self.sql, tokens.iter().filter(version).map(blank).collect());
        let text = Text::new(&self.sql, self.sql_mode, from);
        let mut edits = text.storage();
        edits.extend(text.head(self.kind));
        match self.kind {
            DdlKind::AlterTable => {
                let clauses: Vec<_> = text.clauses(text.behind_name()).into_iter().map(|at| text.clause(at)).collect();
                let (sql, clauses) = text.split(edits, clauses);
                (self.sql, self.clauses) = (sql, clauses);
            }
            DdlKind::CreateIndex | DdlKind::DropIndex => {
                let only = text.index_condition();
                edits.extend(only.iter().map(|(_, edit)| edit.clone()));
                self.sql = edited(&self.sql, edits);
                if let Some((condition, _)) = only {
                    let text = std::mem::take(&mut self.sql);
                    self.clauses = vec![TargetClause { text, condition: Some(condition) }];
                }
            }
            _ => self.sql = edited(&self.sql, edits),
        }
        self
    }
}

/// A condition, and what takes it out of the text.
type Conditional = (ClauseCondition, Edit);

/// A statement's text with those of its tokens that mean something.
pub(super) struct Text<'a> {
    text: &'a str,
    tokens: Vec<Token>,
}

impl<'a> Text<'a> {
    pub(super) fn new(text: &'a str, sql_mode: u64, flavor: Flavor) -> Self {
        let tokens = lex(text, Dialect { sql_mode, flavor }).into_iter().filter(|token| !token.is_trivia()).collect();
        Text { text, tokens }
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The byte behind a token.
    pub(super) fn end(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(self.text.len(), |token| token.end)
    }

    pub(super) fn of(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text(self.text))
    }

    pub(super) fn is(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, word)| {
            let token = self.tokens.get(at + ahead);
            token.is_some_and(|token| token.kind == TokenKind::Word) && self.of(at + ahead).eq_ignore_ascii_case(word)
        })
    }

    pub(super) fn is_one_of(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, &[word]))
    }

    /// The bytes of these tokens, with the space behind them.
    fn span(&self, tokens: Range<usize>) -> Range<usize> {
        let start = self.tokens.get(tokens.start).map_or(self.text.len(), |token| token.start);
        let end = self.tokens.get(tokens.end).map_or(self.text.len(), |token| token.start);
        start..end.max(start)
    }

    fn without(&self, tokens: Range<usize>) -> Edit {
        Edit { span: self.span(tokens), text: String::new() }
    }

    fn instead(&self, at: usize, text: &str) -> Edit {
        let token = self.tokens.get(at).map_or(0..0, |token| token.start..token.end);
        Edit { span: token, text: text.to_owned() }
    }

    /// The name that is there, unquoted, and the token behind it.
    fn name(&self, at: usize) -> Option<String> {
        let token = self.tokens.get(at)?;
        let own = token.text(self.text);
        match token.kind {
            TokenKind::Word => Some(own.to_owned()),
            TokenKind::Quoted => {
                let quote = own.get(..1)?;
                Some(own.get(1..own.len().checked_sub(1)?)?.replace(&quote.repeat(2), quote))
            }
            _ => None,
        }
    }

    /// The first token behind the qualified name of the table that an ALTER TABLE is about.
    pub(super) fn behind_name(&self) -> usize {
        let table = (0..self.tokens.len()).find(|&at| self.is(at, &["TABLE"])).unwrap_or_default() + 1;
        let name = if self.is(table, &["IF", "EXISTS"]) { table + 2 } else { table };
        if self.of(name + 1) == "." { name + 3 } else { name + 1 }
    }

    /// What stands before the body: words that only say how a statement is run, and conditions on its table. Tables are
    /// here what they are on the source, so a condition on one has the same answer.
    fn head(&self, kind: DdlKind) -> Vec<Edit> {
        let mut edits = Vec::new();
        let mut behind = 1;
        if self.is(behind, &["ONLINE"]) {
            edits.push(self.without(behind..behind + 1));
            behind += 1;
        }
        while self.is_one_of(behind, &["IGNORE", "UNIQUE", "FULLTEXT", "SPATIAL"]) {
            behind += 1;
        }
        let on_table = matches!(kind, DdlKind::AlterTable | DdlKind::RenameTable);
        if on_table && self.is_one_of(behind, &["TABLE", "TABLES"]) && self.is(behind + 1, &["IF", "EXISTS"]) {
            edits.push(self.without(behind + 1..behind + 3));
        }
        let wait = if kind == DdlKind::AlterTable { self.behind_name() } else { self.tokens.len().saturating_sub(2) };
        if self.is(wait, &["WAIT"]) {
            edits.push(self.without(wait..wait + 2));
        } else if let Some(at) = [wait, wait + 1].into_iter().find(|&at| self.is(at, &["NOWAIT"]))
            && (kind == DdlKind::AlterTable) == (at == wait)
        {
            edits.push(self.without(at..at + 1));
        }
        edits
    }

    /// How MariaDB stores a column or a table, and its words for generated columns and unused indexes.
    fn storage(&self) -> Vec<Edit> {
        let mut edits = Vec::new();
        let mut depth = 0_usize;
        for at in 1..self.tokens.len() {
            match self.of(at) {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            let closes = self.of(at - 1) == ")";
            let valued = |from: usize| if self.of(from) == "=" { from + 2 } else { from };
            if closes && self.is(at, &["PERSISTENT"]) {
                edits.push(self.instead(at, "STORED"));
            } else if self.is(at, &["COMPRESSED"]) && (closes || self.is_one_of(at - 1, LONG_TYPES)) {
                edits.push(self.without(at..valued(at + 1)));
            } else if closes && self.is(at, &["IGNORED"]) {
                edits.push(self.instead(at, "INVISIBLE"));
            } else if closes && self.is(at, &["NOT", "IGNORED"]) {
                edits.push(self.without(at..at + 2));
            } else if depth == 0 && self.of(at + 1) == "=" && self.is(0, &["CREATE"]) {
                let name = self.name(at).unwrap_or_default();
                if STORAGE.iter().any(|option| option.eq_ignore_ascii_case(&name)) {
                    edits.push(self.without(at..at + 3));
                }
            }
        }
        edits
    }

    /// The clauses of an ALTER TABLE, as ranges of tokens.
    pub(super) fn clauses(&self, from: usize) -> Vec<Range<usize>> {
        let start = match () {
            () if self.is(from, &["WAIT"]) => from + 2,
            () if self.is(from, &["NOWAIT"]) => from + 1,
            () => from,
        };
        let (mut clauses, mut begin, mut depth) = (Vec::new(), start, 0_usize);
        for at in start..self.tokens.len() {
            match self.of(at) {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                "," if depth == 0 => {
                    clauses.push(begin..at);
                    begin = at + 1;
                }
                _ => {}
            }
        }
        clauses.push(begin..self.tokens.len());
        clauses
    }

    fn volatile(&self, clause: Range<usize>) -> Option<&'static str> {
        let adds = self.is(clause.start, &["ADD"]) && !self.is_one_of(clause.start + 1, NO_COLUMN);
        if !adds {
            return None;
        }
        clause.clone().find_map(|at| {
            let name = VOLATILE.iter().find(|name| self.is(at, &[name]))?;
            (self.of(at + 1) == "(" || *name == "CURRENT_USER").then_some(*name)
        })
    }

    /// A clause, its condition, and what takes the condition out of the text.
    fn clause(&self, clause: Range<usize>) -> (Range<usize>, Option<Conditional>) {
        let mut at = clause.start + 1;
        let drops = self.is(clause.start, &["DROP"]);
        let adds = self.is(clause.start, &["ADD"]);
        let mut part = ClausePart::Column;
        if self.is(at, &["FOREIGN", "KEY"]) {
            (part, at) = (ClausePart::ForeignKey, at + 2);
        } else if self.is_one_of(at, &["INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL"]) {
            (part, at) = (ClausePart::Index, at + 1);
            if self.is_one_of(at, &["INDEX", "KEY"]) {
                at += 1;
            }
        } else if self.is(at, &["COLUMN"]) {
            at += 1;
        }
        let known = adds || drops || self.is_one_of(clause.start, &["MODIFY", "CHANGE", "ALTER", "RENAME"]);
        let words = if adds { 3 } else { 2 };
        let conditional = if adds { self.is(at, &["IF", "NOT", "EXISTS"]) } else { self.is(at, &["IF", "EXISTS"]) };
        let condition = || {
            let name = self.name(at + words)?;
            Some((ClauseCondition { there: !adds, part, name }, self.without(at..at + words)))
        };
        let found = if known && conditional { condition() } else { None };
        (clause, found)
    }

    /// `IF [NOT] EXISTS` of CREATE INDEX and DROP INDEX.
    fn index_condition(&self) -> Option<Conditional> {
        let index = (1..self.tokens.len()).find(|&at| self.is(at, &["INDEX"]))? + 1;
        let creates = self.is(0, &["CREATE"]);
        let words: &[&str] = if creates { &["IF", "NOT", "EXISTS"] } else { &["IF", "EXISTS"] };
        if !self.is(index, words) {
            return None;
        }
        let name = self.name(index + words.len())?;
        let condition = ClauseCondition { there: !creates, part: ClausePart::Index, name };
        Some((condition, self.without(index..index + words.len())))
    }

    /// The text with all changes, in one piece where no clause has a condition.
    fn split(
        &self,
        mut edits: Vec<Edit>,
        clauses: Vec<(Range<usize>, Option<Conditional>)>,
    ) -> (String, Vec<TargetClause>) {
        edits.extend(clauses.iter().filter_map(|(_, found)| found.as_ref().map(|(_, edit)| edit.clone())));
        if clauses.iter().all(|(_, found)| found.is_none()) {
            return (edited(self.text, edits), Vec::new());
        }
        let piece = |span: Range<usize>| {
            let inside = edits.iter().filter(|edit| span.start <= edit.span.start && edit.span.start < span.end);
            let moved = inside.map(|edit| Edit {
                span: edit.span.start - span.start..edit.span.end.min(span.end) - span.start,
                text: edit.text.clone(),
            });
            edited(self.text.get(span.clone()).unwrap_or_default(), moved.collect())
        };
        let begin = clauses.first().map_or(0, |(clause, _)| self.span(clause.clone()).start);
        let texts = clauses.into_iter().map(|(clause, found)| TargetClause {
            text: piece(self.span(clause)).trim().to_owned(),
            condition: found.map(|(condition, _)| condition),
        });
        (piece(0..begin), texts.collect())
    }
}
