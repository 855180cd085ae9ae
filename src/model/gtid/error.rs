//! What is wrong with a text that should be a GTID set.

/// A text that is no GTID set of the flavour asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {flavor} GTID set: {reason}")]
pub struct GtidParseError {
    /// The part that was not understood.
    pub text: String,
    /// `mysql` or `mariadb`.
    pub flavor: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}
