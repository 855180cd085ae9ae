//! Which failures heal by waiting. A table from code and server error number; no other place decides this.

use super::code::Code;
use super::failure::Failure;

/// What may be done about a failure without a human.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same again, soon, in place: a lost connection, a deadlock.
    InPlace,
    /// The task parks; resuming it later may help.
    Resume,
    /// The task parks until an operator has done something.
    Never,
}

/// Server errors that the same statement may not meet again a moment later: deadlock, lock wait, server busy or
/// shutting down, TiDB's write conflicts, schema changes and region errors.
const TRANSIENT: &[u16] = &[
    1040, 1053, 1079, 1135, 1152, 1158, 1159, 1160, 1161, 1180, 1203, 1205, 1213, 1226, 1290, 1317, 1836, 2006, 2013,
    3024, 3101, 8002, 8005, 8022, 8027, 8028, 9001, 9002, 9003, 9004, 9005, 9006, 9007,
];

/// Server errors that no waiting cures: the data or the schema must be changed.
const PERMANENT: &[u16] = &[
    1044, 1048, 1049, 1054, 1059, 1062, 1064, 1067, 1069, 1072, 1091, 1117, 1136, 1142, 1143, 1146, 1231, 1264, 1265,
    1292, 1364, 1366, 1406, 1690, 3140, 3144, 3819, 4025, 8025,
];

/// The number of a server's error that a failure came from: that in a raw cause of the form `Error 1062 (23000): …`.
pub fn server_number(failure: &Failure) -> Option<u16> {
    let rest = failure.raw_cause.strip_prefix("Error ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Decides by code, and for database errors by the server's number.
pub fn retry_of(failure: &Failure) -> Retry {
    match failure.known_code() {
        Some(Code::BadConnection | Code::InvalidConnection) => Retry::InPlace,
        Some(Code::DriverError | Code::ExecuteFailed | Code::QueryFailed | Code::Checkpoint | Code::NotSet) => {
            match server_number(failure) {
                Some(code) if TRANSIENT.contains(&code) => Retry::InPlace,
                // A table may be created and a right be granted at any time; looking again costs little.
                Some(1044 | 1049 | 1142 | 1146) => Retry::Resume,
                Some(code) if PERMANENT.contains(&code) => Retry::Never,
                _ => Retry::Resume,
            }
        }
        Some(Code::StreamStart | Code::StreamEvent | Code::NoDownstreamTable | Code::ReadDownstreamTable) => {
            Retry::Resume
        }
        Some(Code::RelayStore | Code::NoMasterStatus) => Retry::Resume,
        _ => Retry::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_errors_never_heal_and_connections_do() {
        let cause = |code: Code, cause: &str| retry_of(&Failure::new(code, "x").cause(cause));
        assert_eq!(cause(Code::ExecuteFailed, "Error 1062 (23000): Duplicate entry"), Retry::Never);
        assert_eq!(cause(Code::ExecuteFailed, "Error 1213 (40001): Deadlock found"), Retry::InPlace);
        assert_eq!(cause(Code::NoDownstreamTable, "Error 1146 (42S02): missing"), Retry::Resume);
        assert_eq!(cause(Code::InvalidConnection, "connection was bad"), Retry::InPlace);
        assert_eq!(cause(Code::ColumnCount, ""), Retry::Never);
    }
}
