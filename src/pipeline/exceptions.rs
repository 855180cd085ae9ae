//! Events that an operator wants treated otherwise than the source logged them: left out, replaced, or preceded by DDL.
//!
//! An exception names an event by its place on the source, as failures tell it (`startLocation`); for a statement the start
//! of its transaction means the same. It is part of what a pipeline is made of, so that a replay after a crash meets the
//! same exceptions: their statements are numbered like those of the source, and intents know which of them have run.

use serde::{Deserialize, Serialize};

use crate::model::{BinlogFile, BinlogPosition};

/// What becomes of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Treatment {
    /// It is left out.
    Skip,
    /// DDL statements take its place.
    Replace,
    /// DDL statements run before it.
    Inject,
}

/// One event. Stored, so that it outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Its binlog file.
    pub file: String,
    /// Its start in it, in bytes.
    pub offset: u64,
    /// What becomes of it.
    pub treatment: Treatment,
    /// In the source's names; each names its schema.
    #[serde(default)]
    pub statements: Vec<String>,
}

impl Exception {
    /// Where it is; `None` for a file name that makes no sense, which is not stored.
    pub fn position(&self) -> Option<BinlogPosition> {
        Some(BinlogPosition::new(BinlogFile::parse(&self.file).ok()?, self.offset))
    }
}

/// All of a subtask, at most one for each place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exceptions(pub Vec<Exception>);

impl Exceptions {
    /// The one for an event that starts at `position`.
    pub fn at(&self, position: &BinlogPosition) -> Option<&Exception> {
        self.0.iter().find(|one| one.offset == position.offset && one.position().as_ref() == Some(position))
    }

    /// Adds one, in place of what was said of the same event.
    pub fn set(&mut self, exception: Exception) {
        let same = |one: &Exception| one.position() == exception.position();
        self.0.retain(|one| !same(one));
        self.0.push(exception);
        self.0.sort_by_key(Exception::position);
    }

    /// Takes one away; whether there was one.
    pub fn revert(&mut self, position: &BinlogPosition) -> bool {
        let before = self.0.len();
        self.0.retain(|one| one.position().as_ref() != Some(position));
        self.0.len() < before
    }

    /// Forgets those of events before `passed`, which nothing replays any more; whether there were any.
    pub fn pass(&mut self, passed: &BinlogPosition) -> bool {
        let before = self.0.len();
        self.0.retain(|one| one.position().is_none_or(|position| position >= *passed));
        self.0.len() < before
    }
}

/// Where the event starts that a failure tells of: `startLocation: [position: (mysql-bin.000001, 1234), …`
pub fn start_location(message: &str) -> Option<BinlogPosition> {
    let (_, behind) = message.split_once("startLocation: [position: (")?;
    let (place, _) = behind.split_once(')')?;
    let (file, offset) = place.split_once(", ")?;
    BinlogPosition::parse(file, offset.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(file: &str, offset: u64, treatment: Treatment) -> Exception {
        Exception { file: file.to_owned(), offset, treatment, statements: Vec::new() }
    }

    fn at(file: &str, offset: u64) -> BinlogPosition {
        BinlogPosition::parse(file, offset).unwrap()
    }

    #[test]
    fn one_for_each_place_until_it_is_passed() {
        let mut all = Exceptions::default();
        all.set(exception("b.000010", 4, Treatment::Skip));
        all.set(exception("b.000009", 700, Treatment::Skip));
        all.set(exception("b.000010", 4, Treatment::Replace));
        assert_eq!(all.0.iter().map(|one| one.offset).collect::<Vec<_>>(), [700, 4]);
        assert_eq!(all.at(&at("b.000010", 4)).unwrap().treatment, Treatment::Replace);
        assert_eq!(all.at(&at("b.000010", 5)), None);
        // A relay directory of a stock worker in the name means the same file.
        all.set(exception("b|000001.000010", 4, Treatment::Inject));
        assert_eq!(all.at(&at("b.000010", 4)).unwrap().treatment, Treatment::Inject);
        // Where the checkpoint stands is what comes next: it is not passed.
        assert!(!all.pass(&at("b.000009", 700)));
        assert!(all.pass(&at("b.000009", 701)));
        assert_eq!(all.0.len(), 1);
        assert!(all.revert(&at("b.000010", 4)) && !all.revert(&at("b.000010", 4)));
    }
}
