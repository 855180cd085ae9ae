//! A walk over the tokens that mean something, and what the parser finds on it.
//!
//! Positions in what is found are bytes of the statement's text, so that everything that was not found is carried over
//! as it is.

use std::ops::Range;

use super::lex::{Token, TokenKind};

/// Why a statement was not understood: `expected` a clause, `found` what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected} expected, found {found}")]
pub(super) struct Misread {
    expected: &'static str,
    found: String,
}

/// A schema's or table's name as it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameRef {
    /// Where, qualification included.
    pub span: Range<usize>,
    /// The qualification, unquoted.
    pub schema: Option<String>,
    /// The name, unquoted.
    pub name: String,
}

/// A change to the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// What is replaced; empty for an insertion.
    pub span: Range<usize>,
    /// What comes instead.
    pub text: String,
}

/// Stands before one of the tokens that mean something, up to a `;` or the end.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
    /// Something follows the `;`.
    more: bool,
}

impl<'a> Cursor<'a> {
    /// At the start. `tokens` hold no trivia.
    pub fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        let end = tokens.iter().position(|token| token.text(text) == ";").unwrap_or(tokens.len());
        let (statement, rest) = tokens.split_at(end);
        Cursor { text, tokens: statement, at: 0, more: rest.len() > 1 }
    }

    /// The whole text.
    pub fn text(&self) -> &'a str {
        self.text
    }

    fn token(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.at.checked_add(ahead)?)
    }

    /// The unquoted word `ahead` tokens from here.
    pub fn word(&self, ahead: usize) -> Option<&'a str> {
        self.token(ahead).filter(|token| token.kind == TokenKind::Word).map(|token| token.text(self.text))
    }

    /// Whether the unquoted words from here are `words`.
    pub fn is(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, word)| self.word(ahead).is_some_and(|own| own.eq_ignore_ascii_case(word)))
    }

    /// Whether the unquoted word here is one of `words`.
    pub fn is_one_of(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(&[word]))
    }

    /// Passes `words`, if they are here.
    pub fn eat(&mut self, words: &[&str]) -> bool {
        let found = self.is(words);
        if found {
            self.at += words.len();
        }
        found
    }

    /// Passes `words`, which must be here.
    pub fn need(&mut self, words: &[&str], expected: &'static str) -> Result<(), Misread> {
        if self.eat(words) { Ok(()) } else { Err(self.misread(expected)) }
    }

    /// Whether the symbol is `ahead` tokens from here.
    pub fn is_symbol(&self, ahead: usize, symbol: &str) -> bool {
        self.token(ahead).is_some_and(|token| token.kind == TokenKind::Symbol && token.text(self.text) == symbol)
    }

    /// Passes the symbol, if it is here.
    pub fn eat_symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(0, symbol);
        if found {
            self.at += 1;
        }
        found
    }

    /// Passes one token, whatever it is.
    pub fn advance(&mut self) {
        if self.at < self.tokens.len() {
            self.at += 1;
        }
    }

    /// Whether nothing is left of the statement.
    pub fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// Where the next token begins, or the last one ended.
    pub fn position(&self) -> usize {
        self.token(0).map_or_else(|| self.previous_end(), |token| token.start)
    }

    /// Where the last passed token ended.
    pub fn previous_end(&self) -> usize {
        self.at.checked_sub(1).and_then(|last| self.tokens.get(last)).map_or(0, |token| token.end)
    }

    /// Whether the last passed token is the symbol.
    pub fn behind_symbol(&self, symbol: &str) -> bool {
        self.at
            .checked_sub(1)
            .and_then(|last| self.tokens.get(last))
            .is_some_and(|token| token.text(self.text) == symbol)
    }

    /// A failure that quotes what stands here.
    pub fn misread(&self, expected: &'static str) -> Misread {
        let found = self.token(0).map_or_else(
            || "the end".to_owned(),
            // Strings may hold what no log should.
            |token| {
                if token.kind == TokenKind::Text {
                    "a string".to_owned()
                } else {
                    format!("`{}`", token.text(self.text))
                }
            },
        );
        Misread { expected, found }
    }

    /// Fails where a second statement follows.
    pub fn only_statement(&self) -> Result<(), Misread> {
        let found = "another statement".to_owned();
        if self.more { Err(Misread { expected: "one statement", found }) } else { Ok(()) }
    }

    /// Passes `name`, `schema.name` or `.name`.
    pub fn table_name(&mut self) -> Result<NameRef, Misread> {
        let start = self.position();
        if self.eat_symbol(".") {
            let name = self.identifier(true)?;
            return Ok(NameRef { span: start..self.previous_end(), schema: None, name });
        }
        let first = self.identifier(false)?;
        let (schema, name) = if self.eat_symbol(".") { (Some(first), self.identifier(true)?) } else { (None, first) };
        Ok(NameRef { span: start..self.previous_end(), schema, name })
    }

    /// Passes one name without qualification.
    pub fn plain_name(&mut self) -> Result<NameRef, Misread> {
        let start = self.position();
        let name = self.identifier(false)?;
        Ok(NameRef { span: start..self.previous_end(), schema: None, name })
    }

    fn identifier(&mut self, behind_dot: bool) -> Result<String, Misread> {
        let name = match self.token(0) {
            Some(token) => unquoted(token, self.text, behind_dot),
            None => None,
        };
        let name = name.ok_or_else(|| self.misread("a name"))?;
        self.advance();
        Ok(name)
    }
}

/// First parts of all `a.b` in the text, wherever they stand. `tokens` hold no trivia.
pub(super) fn qualifiers(text: &str, tokens: &[Token]) -> impl Iterator<Item = String> {
    tokens.windows(2).filter_map(move |pair| match pair {
        [name, dot] if dot.text(text) == "." => unquoted(name, text, false),
        _ => None,
    })
}

/// The name a token stands for. A number is one only behind a dot.
fn unquoted(token: &Token, text: &str, behind_dot: bool) -> Option<String> {
    let own = token.text(text);
    match token.kind {
        TokenKind::Word if behind_dot || !own.bytes().all(|c| c.is_ascii_digit()) => Some(own.to_owned()),
        TokenKind::Quoted => {
            let quote = own.get(..1)?;
            let inner = own.get(1..own.len().checked_sub(1)?)?;
            Some(inner.replace(&quote.repeat(2), quote)).filter(|name| !name.is_empty())
        }
        _ => None,
    }
}
