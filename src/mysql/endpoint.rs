//! Where a server is and how to log in to it: plain data, with secrets that do not print.

use std::collections::BTreeMap;

use crate::model::Secret;
use crate::tls::TlsFiles;

/// A server and an account on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or IP address; an IPv6 address may stand in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Its password; empty for none.
    pub password: Secret,
    /// Session variables set after each login, name to value.
    pub session: BTreeMap<String, String>,
    /// TLS; `None` for a plain connection.
    pub tls: Option<TlsFiles>,
}

/// A session variable whose name is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the name of a session variable")]
pub struct SessionVariableError(pub String);

impl Endpoint {
    /// The host without the brackets of an IPv6 address.
    pub fn bare_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// `user@host:port`, for messages.
    pub fn label(&self) -> String {
        format!("{}@{}:{}", self.user, self.host, self.port)
    }

    /// The statement that sets all session variables; `None` where there are none. Numbers go as they are, since a
    /// server refuses `SET net_write_timeout = '60'` (error 1232); everything else goes as a string.
    pub fn session_statement(&self) -> Result<Option<String>, SessionVariableError> {
        let mut assignments = Vec::with_capacity(self.session.len());
        for (name, value) in &self.session {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.' | '@');
            if name.is_empty() || !name.chars().all(is_name) {
                return Err(SessionVariableError(name.clone()));
            }
            let value = if is_number(value) { value.clone() } else { quote(value) };
            assignments.push(format!("{name} = {value}"));
        }
        Ok((!assignments.is_empty()).then(|| format!("SET {}", assignments.join(", "))))
    }
}

/// Digits with at most one sign in front and one point inside.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A string literal for a session in the default `sql_mode` (backslash escapes).
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            quoted.push(c);
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Pem;

    fn endpoint(session: &[(&str, &str)]) -> Endpoint {
        Endpoint {
            host: "[::1]".into(),
            port: 3306,
            user: "dm".into(),
            password: Secret::new("hunter2"),
            session: session.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            tls: Some(TlsFiles { key: Some(Pem::Inline(b"PRIVATE".to_vec())), ..TlsFiles::default() }),
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let text = format!("{:?} {}", endpoint(&[]), endpoint(&[]).password);
        assert!(!text.contains("hunter2") && !text.contains("PRIVATE"), "{text}");
    }

    #[test]
    fn numbers_are_not_quoted() {
        let endpoint =
            endpoint(&[("net_write_timeout", "60"), ("time_zone", "+00:00"), ("x", "it's\\"), ("y", "-1.5")]);
        assert_eq!(
            endpoint.session_statement().unwrap().unwrap(),
            "SET net_write_timeout = 60, time_zone = '+00:00', x = 'it''s\\\\', y = -1.5"
        );
        assert_eq!(endpoint.bare_host(), "::1");
    }

    #[test]
    fn a_name_cannot_smuggle_a_statement() {
        assert!(endpoint(&[("a = 1; DROP TABLE t; --", "1")]).session_statement().is_err());
        assert_eq!(endpoint(&[]).session_statement(), Ok(None));
    }

    #[test]
    fn what_is_a_number() {
        for text in ["0", "17", "-3", "+1.25"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["", "-", "1.", ".5", "1e3", "0x1f", "+00:00", "1 or 1"] {
            assert!(!is_number(text), "{text}");
        }
    }
}
