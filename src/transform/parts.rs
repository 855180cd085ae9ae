//! The parts of an expression that are judged each by itself: what AND, OR and XOR join.
//!
//! Invariant: two columns that one operator or function sees together are in one part. Where that is not plain from the
//! words, in arguments, in CASE, behind BETWEEN, nothing is parted.

/// Found while the tokens of an expression are gone through.
#[derive(Debug)]
pub(super) struct Parts {
    part: usize,
    levels: Vec<Level>,
    /// Something compares several values at once.
    whole: bool,
}

/// Inside a parenthesis, or a CASE.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    parts: bool,
    /// The next AND belongs to BETWEEN.
    between: bool,
}

impl Parts {
    pub fn new() -> Parts {
        Parts { part: 0, levels: vec![Level { parts: true, between: false }], whole: false }
    }

    /// The number of the part that the next token is in; 0 for all where nothing is parted.
    pub fn now(&self) -> usize {
        self.part
    }

    /// Whether all is one part after all.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    fn level(&mut self) -> Option<&mut Level> {
        self.levels.last_mut()
    }

    fn begin(&mut self, parts: bool) {
        let within = self.levels.last().is_some_and(|level| level.parts && !level.between);
        self.levels.push(Level { parts: parts && within, between: false });
    }

    fn end(&mut self) {
        // What does not belong together the server refuses.
        if self.levels.len() > 1 {
            self.levels.pop();
        }
    }

    fn join(&mut self) {
        let parts = self.levels.last().is_some_and(|level| level.parts);
        self.part += usize::from(parts);
    }

    /// A keyword.
    pub fn word(&mut self, word: &str) {
        let between = self.levels.last().is_some_and(|level| level.between);
        match word.to_ascii_uppercase().as_str() {
            "CASE" => self.begin(false),
            "END" => self.end(),
            "BETWEEN" => self.level().into_iter().for_each(|level| level.between = true),
            "AND" if between => self.level().into_iter().for_each(|level| level.between = false),
            "AND" | "OR" | "XOR" => self.join(),
            _ => {}
        }
    }

    /// A symbol, with the token before it and the one behind it where that follows at once.
    pub fn symbol(&mut self, symbol: &str, before: Option<&str>, behind: Option<&str>) {
        let joins = |word: &str| ["AND", "OR", "XOR", "NOT"].iter().any(|known| known.eq_ignore_ascii_case(word));
        let is_word =
            |token: &str| token.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '`' || c == '$');
        match symbol {
            "(" => self.begin(before.is_none_or(|before| joins(before) || !is_word(before))),
            ")" => self.end(),
            // Several values.
            "," => self.whole |= self.levels.last().is_some_and(|level| level.parts),
            "&" | "|" if behind == Some(symbol) => self.join(),
            _ => {}
        }
    }
}
