//! One failure, as it is shown to an operator and stored with a parked task.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::code::{Code, Scope};

/// What went wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// DM's number.
    pub code: i32,
    /// DM's class.
    pub class: String,
    /// upstream, downstream, internal or not-set.
    pub scope: String,
    /// low, medium or high.
    pub level: String,
    /// What was being done, and with what.
    pub message: String,
    /// The innermost foreign error, MySQL's as `Error 1062 (23000): …`; empty for none.
    pub raw_cause: String,
    /// What to do about it; empty where nothing better is known than the message.
    pub workaround: String,
}

impl Failure {
    /// A failure with the catalogue's scope, level and workaround.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure {
            code: code.number(),
            class: code.class().as_str().to_owned(),
            scope: code.scope().as_str().to_owned(),
            level: code.level().as_str().to_owned(),
            message: message.into(),
            raw_cause: String::new(),
            workaround: code.workaround().to_owned(),
        }
    }

    /// Says which side it came from.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope.as_str().to_owned();
        self
    }

    /// Names the innermost foreign error.
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.raw_cause = cause.into();
        self
    }

    /// Gives a better remedy than the catalogue's.
    pub fn workaround(mut self, workaround: impl Into<String>) -> Self {
        self.workaround = workaround.into();
        self
    }

    /// Puts where it happened in front of the message, as DM does: `<place>: <message>`.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Several as one, every one of them named.
    pub fn all(code: Code, problems: &[Failure]) -> Failure {
        match problems {
            [only] => only.clone(),
            _ => {
                let texts: Vec<String> = problems.iter().map(|problem| problem.to_string()).collect();
                Failure::new(code, texts.join("\n"))
            }
        }
    }

    /// The catalogue's entry, where the number is known to this version.
    pub fn known_code(&self) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.number() == self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[code={}:class={}:scope={}:level={}], Message: {}",
            self.code, self.class, self.scope, self.level, self.message
        )?;
        if !self.raw_cause.is_empty() {
            write!(f, ", RawCause: {}", self.raw_cause)?;
        }
        if !self.workaround.is_empty() {
            write!(f, ", Workaround: {}", self.workaround)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_dm_does() {
        let failure = Failure::new(Code::TaskExists, "subtasks with name t1 for sources [mysql-01] already exist");
        assert_eq!(
            failure.to_string(),
            "[code=46014:class=scheduler:scope=internal:level=medium], Message: subtasks with name t1 for sources \
             [mysql-01] already exist, Workaround: Please use `query-status` command to see tasks."
        );
    }
}
