//! Statement text as tokens.
//!
//! Tokens lie end to end and cover the whole text, whatever it holds: joining them gives it back. Words are not
//! classified; which of them are keywords depends on where they stand. The opening and the closing of a comment whose
//! content counts as text (`/*!50100 … */`, MariaDB's `/*M! … */`) are tokens of their own, and what lies between is
//! lexed like everything else. A server writes `/*!` into its binlog only where it executed the content (it blanks the `!`
//! otherwise), so that the version number does not need to be compared.

use crate::model::Flavor;

/// `sql_mode` bit: `"` quotes names, not strings.
pub(super) const ANSI_QUOTES: u64 = 1 << 2;
/// `sql_mode` bit: a backslash in a string stands for itself.
pub(super) const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

/// What decides how text is read.
#[derive(Debug, Clone, Copy)]
pub(in crate::transform) struct Dialect {
    /// `sql_mode` bits.
    pub sql_mode: u64,
    /// Whose text it is.
    pub flavor: Flavor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transform) enum TokenKind {
    /// White space and control characters.
    Space,
    /// A comment without meaning.
    Comment,
    /// `/*!`, `/*M!` and their version number.
    VersionOpen,
    /// The `*/` that belongs to it.
    VersionClose,
    /// Letters, digits, `_`, `$` and everything beyond ASCII.
    Word,
    /// A quoted name, quotes included.
    Quoted,
    /// A string, quotes included.
    Text,
    /// Any other single character.
    Symbol,
    /// A string, quoted name or comment that does not end.
    Unterminated,
}

/// A piece of the text, from byte `start` to before byte `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transform) struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    /// Whether it means nothing by itself.
    pub fn is_trivia(&self) -> bool {
        use TokenKind::{Comment, Space, VersionClose, VersionOpen};
        matches!(self.kind, Space | Comment | VersionOpen | VersionClose)
    }

    /// Its part of the text it was found in.
    pub fn text<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// Cuts `text` into tokens.
pub(in crate::transform) fn lex(text: &str, dialect: Dialect) -> Vec<Token> {
    let mut lexer = Lexer { bytes: text.as_bytes(), dialect, in_version: false };
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some(&first) = lexer.bytes.get(start) {
        let (kind, end) = lexer.token(start, first);
        tokens.push(Token { kind, start, end });
        start = end;
    }
    tokens
}

struct Lexer<'a> {
    bytes: &'a [u8],
    dialect: Dialect,
    in_version: bool,
}

impl Lexer<'_> {
    /// The token that begins at `start`: always at least one byte, always up to a character's end.
    fn token(&mut self, start: usize, first: u8) -> (TokenKind, usize) {
        let rest = self.bytes.get(start..).unwrap_or_default();
        match first {
            b'`' => self.quoted(start, b'`', false, TokenKind::Quoted),
            b'"' if self.dialect.sql_mode & ANSI_QUOTES != 0 => self.quoted(start, b'"', false, TokenKind::Quoted),
            b'\'' | b'"' => {
                let backslash = self.dialect.sql_mode & NO_BACKSLASH_ESCAPES == 0;
                self.quoted(start, first, backslash, TokenKind::Text)
            }
            b'#' => (TokenKind::Comment, self.line_end(start)),
            // Two dashes are a comment only before white space; `5--3` is arithmetic.
            b'-' if rest.starts_with(b"--") && rest.get(2).is_none_or(|&c| is_space(c)) => {
                (TokenKind::Comment, self.line_end(start))
            }
            b'/' if rest.starts_with(b"/*") => self.comment(start, rest),
            b'*' if self.in_version && rest.starts_with(b"*/") => {
                self.in_version = false;
                (TokenKind::VersionClose, start + 2)
            }
            c if is_space(c) => (TokenKind::Space, self.while_true(start, is_space)),
            c if is_word(c) => (TokenKind::Word, self.while_true(start, is_word)),
            _ => (TokenKind::Symbol, start + 1),
        }
    }

    fn while_true(&self, start: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(start..).unwrap_or_default();
        start + rest.iter().position(|&c| !belongs(c)).unwrap_or(rest.len())
    }

    fn line_end(&self, start: usize) -> usize {
        self.while_true(start, |c| c != b'\n')
    }

    /// A quote within is doubled, or in strings escaped.
    fn quoted(&self, start: usize, quote: u8, backslash: bool, kind: TokenKind) -> (TokenKind, usize) {
        let mut at = start + 1;
        while let Some(&c) = self.bytes.get(at) {
            at += 1;
            if c == b'\\' && backslash {
                at += 1;
            } else if c == quote {
                if self.bytes.get(at) != Some(&quote) {
                    return (kind, at);
                }
                at += 1;
            }
        }
        (TokenKind::Unterminated, self.bytes.len())
    }

    fn comment(&mut self, start: usize, rest: &[u8]) -> (TokenKind, usize) {
        let opening = match (rest.get(2), rest.get(3)) {
            (Some(b'!'), _) => Some(3),
            (Some(b'M'), Some(b'!')) if self.dialect.flavor == Flavor::MariaDb => Some(4),
            _ => None,
        };
        if let Some(length) = opening {
            self.in_version = true;
            let digits = rest.iter().skip(length).take(6).take_while(|c| c.is_ascii_digit()).count();
            // Fewer than five digits are no version but text.
            return (TokenKind::VersionOpen, start + length + if digits >= 5 { digits } else { 0 });
        }
        let content = rest.get(2..).unwrap_or_default();
        match content.windows(2).position(|pair| pair == b"*/") {
            Some(length) => (TokenKind::Comment, start + length + 4),
            None => (TokenKind::Unterminated, self.bytes.len()),
        }
    }
}

fn is_space(c: u8) -> bool {
    c <= b' ' || c == 0x7f
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c == b'$' || c >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(text: &str, sql_mode: u64, flavor: Flavor) -> Vec<(TokenKind, &str)> {
        let tokens = lex(text, Dialect { sql_mode, flavor });
        tokens
            .iter()
            .filter(|token| token.kind != TokenKind::Space)
            .map(|token| (token.kind, token.text(text)))
            .collect()
    }

    #[test]
    fn tokens() {
        use TokenKind::*;
        for (text, sql_mode, flavor, expected) in [
            ("a.`b``c`", 0, Flavor::MySql, vec![(Word, "a"), (Symbol, "."), (Quoted, "`b``c`")]),
            (r"'a''b\'c' d", 0, Flavor::MySql, vec![(Text, r"'a''b\'c'"), (Word, "d")]),
            (r"'a\' d", NO_BACKSLASH_ESCAPES, Flavor::MySql, vec![(Text, r"'a\'"), (Word, "d")]),
            (r"`a\` d", 0, Flavor::MySql, vec![(Quoted, r"`a\`"), (Word, "d")]),
            (r#""a""b""#, ANSI_QUOTES, Flavor::MySql, vec![(Quoted, r#""a""b""#)]),
            (r#""a\"b""#, 0, Flavor::MySql, vec![(Text, r#""a\"b""#)]),
            ("a--b", 0, Flavor::MySql, vec![(Word, "a"), (Symbol, "-"), (Symbol, "-"), (Word, "b")]),
            ("a-- b\nc", 0, Flavor::MySql, vec![(Word, "a"), (Comment, "-- b"), (Word, "c")]),
            ("a --", 0, Flavor::MySql, vec![(Word, "a"), (Comment, "--")]),
            ("a#b'\nc", 0, Flavor::MySql, vec![(Word, "a"), (Comment, "#b'"), (Word, "c")]),
            ("/*/ a */b", 0, Flavor::MySql, vec![(Comment, "/*/ a */"), (Word, "b")]),
            (
                "/*!50100a*/b",
                0,
                Flavor::MySql,
                vec![(VersionOpen, "/*!50100"), (Word, "a"), (VersionClose, "*/"), (Word, "b")],
            ),
            (
                "/*!100100 a /* c */ */",
                0,
                Flavor::MySql,
                vec![(VersionOpen, "/*!100100"), (Word, "a"), (Comment, "/* c */"), (VersionClose, "*/")],
            ),
            ("/*!123*/", 0, Flavor::MySql, vec![(VersionOpen, "/*!"), (Word, "123"), (VersionClose, "*/")]),
            ("/*M!100100 a*/", 0, Flavor::MySql, vec![(Comment, "/*M!100100 a*/")]),
            (
                "/*M!100100 a*/",
                0,
                Flavor::MariaDb,
                vec![(VersionOpen, "/*M!100100"), (Word, "a"), (VersionClose, "*/")],
            ),
            ("2*/*x*/3", 0, Flavor::MySql, vec![(Word, "2"), (Symbol, "*"), (Comment, "/*x*/"), (Word, "3")]),
            ("订单 'ü", 0, Flavor::MySql, vec![(Word, "订单"), (Unterminated, "'ü")]),
            ("/* x", 0, Flavor::MySql, vec![(Unterminated, "/* x")]),
            (r"'x\", 0, Flavor::MySql, vec![(Unterminated, r"'x\")]),
        ] {
            assert_eq!(kinds(text, sql_mode, flavor), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn covers_every_byte_once(
            text in r#"([a-zé$_0-9]|[ \n\t]|['"`\\.,;()*/!#M-]|/\*|\*/|/\*!|\PC){0,60}"#,
            ansi: bool,
            no_backslash: bool,
            maria: bool,
        ) {
            let sql_mode = if ansi { ANSI_QUOTES } else { 0 } | if no_backslash { NO_BACKSLASH_ESCAPES } else { 0 };
            let flavor = if maria { Flavor::MariaDb } else { Flavor::MySql };
            let mut at = 0;
            for token in lex(&text, Dialect { sql_mode, flavor }) {
                prop_assert_eq!(token.start, at);
                prop_assert!(token.end > token.start);
                prop_assert!(text.is_char_boundary(token.end));
                at = token.end;
            }
            prop_assert_eq!(at, text.len());
        }
    }
}
