//! MySQL client errors as DM prints them, and what kind of failure they are.

use mysql_async::{DriverError, Error, ServerError};

use super::code::{Code, Scope};
use super::failure::Failure;

/// `Error 1062 (23000): Duplicate entry …`, the form that DM's users and its master match on.
pub fn render_server_error(error: &ServerError) -> String {
    format!("Error {} ({}): {}", error.code, error.state, error.message)
}

/// The server's error number, if a server answered at all.
pub fn server_error_code(error: &Error) -> Option<u16> {
    match error {
        Error::Server(error) => Some(error.code),
        _ => None,
    }
}

/// What a server says when it ends a connection by itself: it shuts down, the connection was killed, or was idle for too
/// long (MariaDB 1927, MySQL 3169 and 4031).
const GONE: [u16; 5] = [1053, 1077, 1927, 3169, 4031];

/// Turns a client error into a failure of `scope`; `doing` says what was asked of the server. A server's refusal keeps
/// `refused`; everything else is a lost or unusable connection.
pub fn driver_failure(error: &Error, refused: Code, scope: Scope, doing: &str) -> Failure {
    match error {
        Error::Server(server) if GONE.contains(&server.code) && refused != Code::DriverError => {
            Failure::new(Code::InvalidConnection, doing).scope(scope).cause(render_server_error(server))
        }
        Error::Server(server) => {
            let failure = Failure::new(refused, doing).scope(scope).cause(render_server_error(server));
            match whole_server(server.code).filter(|_| scope != Scope::Upstream) {
                Some(remedy) => failure.workaround(remedy),
                None => failure,
            }
        }
        // While connecting nothing was in use yet.
        Error::Driver(DriverError::ConnectionClosed) | Error::Io(_) if refused != Code::DriverError => {
            Failure::new(Code::InvalidConnection, doing)
                .scope(scope)
                .cause(format!("invalid connection: {}", root(error)))
        }
        other => Failure::new(Code::DriverError, doing).scope(scope).cause(root(other)),
    }
}

/// What to do where it is the downstream as a whole that takes nothing now. All of these are tried again by themselves.
pub fn whole_server(number: u16) -> Option<&'static str> {
    match number {
        3 | 28 | 1021 | 1030 | 1114 | 1878 => {
            Some("Please make room on the downstream's disk, or in its tablespace; it then goes on by itself.")
        }
        1290 | 1836 => Some("Please make the downstream writable (read_only); it then goes on by itself."),
        1040 | 1203 => Some(
            "Please let the downstream take more connections (max_connections, or those of the account); it then goes on by \
             itself.",
        ),
        _ => None,
    }
}

/// The innermost cause: the outer ones only repeat it.
fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_whole_downstream_refuses_has_a_remedy() {
        let refused = |code, scope| {
            let server = ServerError { code, state: "HY000".into(), message: "no".into() };
            driver_failure(&Error::Server(server), Code::Checkpoint, scope, "store").workaround
        };
        assert!(refused(1290, Scope::Downstream).contains("writable (read_only)"));
        assert!(refused(1114, Scope::NotSet).contains("make room"));
        assert_eq!(refused(1290, Scope::Upstream), Code::Checkpoint.workaround());
        assert_eq!(refused(1062, Scope::Downstream), Code::Checkpoint.workaround());
    }
}
