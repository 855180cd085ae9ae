//! What would fail later, collected, so that all of it is said at once.

use crate::error::{Code, Failure, Scope};

/// Problems named in one message; the rest is counted.
const SHOWN: usize = 20;

/// Each with where it is, what was found, and what to do.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(Scope, String, String)>);

impl Problems {
    pub fn add(&mut self, scope: Scope, found: String, remedy: String) {
        self.0.push((scope, found, remedy));
    }

    pub fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them as one failure, with what cannot be done because of them, and what to do then; `None` for none.
    pub fn failure(mut self, what: &str, then: &str) -> Option<Failure> {
        self.0.sort_by(|a, b| a.1.cmp(&b.1));
        let (scope, _, _) = self.0.first()?;
        let more = self.0.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!("; and {more} more of such") } else { String::new() };
        let shown = || self.0.iter().take(SHOWN);
        let found: Vec<&str> = shown().map(|(_, found, _)| found.as_str()).collect();
        let mut remedies: Vec<&str> = shown().map(|(_, _, remedy)| remedy.as_str()).collect();
        remedies.dedup();
        let text = format!("{what}: {}{more}", found.join("; "));
        Some(
            Failure::new(Code::QueryFailed, text)
                .scope(*scope)
                .workaround(format!("Please {}; then {then}.", remedies.join("; "))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_named_and_too_many_are_counted() {
        assert!(Problems::default().failure("x", "resume-task").is_none());
        let mut problems = Problems::default();
        for number in 10..40 {
            problems.add(Scope::Upstream, format!("problem {number}"), "mend it".to_owned());
        }
        let failure = problems.failure("it cannot begin", "resume-task").unwrap();
        assert!(failure.message.contains("problem 10; problem 11") && failure.message.ends_with("and 10 more of such"));
        assert_eq!(failure.workaround, "Please mend it; then resume-task.");
    }
}
