//! The connection part that DM's source (`from`) and task (`target-database`, `to`) configurations share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::kept::Kept;
use super::keys;
use super::node::Node;
use super::password::SecretKey;
use super::section::Section;
use crate::model::{MASK, Secret};

/// How to reach a server.
#[derive(Debug, Clone, PartialEq)]
pub struct DatabaseConfig {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// As it is written: plain, or DM's ciphertext. See [`DatabaseConfig::plain_password`].
    pub password: Secret,
    /// Session variables to set on each connection, in order of name.
    pub session: BTreeMap<String, String>,
    /// TLS; `None` for none.
    pub security: Option<Security>,
    /// Values without meaning here.
    pub(super) kept: Kept,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        DatabaseConfig {
            host: String::new(),
            port: 0,
            user: String::new(),
            password: Secret::default(),
            session: BTreeMap::new(),
            security: None,
            kept: Kept::defaults(keys::DATABASE),
        }
    }
}

/// Session variables of the downstream that are not the task's to change: rows are written for them as they are.
const FIXED_SESSION: &[&str] =
    &["time_zone", "character_set_client", "character_set_connection", "collation_connection", "autocommit"];

/// A certificate or key, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file on this host. Read at each connection, so that a renewed one is taken.
    File(PathBuf),
    /// In the configuration itself, decoded.
    Inline(Secret),
}

/// TLS towards a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// Certificate authorities to trust.
    pub ca: Option<Pem>,
    /// Our certificate.
    pub cert: Option<Pem>,
    /// Its private key.
    pub key: Option<Pem>,
    /// Common names accepted of the other side; empty for any.
    pub cert_allowed_cn: Vec<String>,
}

/// Whether a file is written for eyes or for storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    Masked,
    Plain,
}

impl Secrets {
    fn show(self, secret: &Secret) -> Node {
        Node::text(match self {
            Secrets::Masked => MASK,
            Secrets::Plain => secret.expose(),
        })
    }
}

impl DatabaseConfig {
    /// The password to log in with: DM's ciphertexts decrypted where there is a key.
    pub fn plain_password(&self, key: Option<&SecretKey>) -> Secret {
        key.map_or_else(|| self.password.clone(), |key| key.reveal(&self.password))
    }

    /// What is set and has no effect here. `place` is the table's own key.
    pub(super) fn notes(&self, place: &str) -> Vec<String> {
        self.kept.notes(&format!(" of `{place}`"))
    }

    /// The same for session variables of a downstream, which are fixed by how rows are written there.
    pub(super) fn session_notes(&self, place: &str) -> Option<String> {
        let fixed = self.session.iter().filter(|(name, value)| {
            let name = name.to_ascii_lowercase();
            FIXED_SESSION.contains(&name.as_str()) && !(name == "time_zone" && value.as_str() == "+00:00")
        });
        let fixed: Vec<_> = fixed.map(|(name, _)| format!("`{name}`")).collect();
        let verb = if fixed.len() == 1 { "has" } else { "have" };
        (!fixed.is_empty()).then(|| {
            let names = fixed.join(", ");
            format!("{names} of `{place}.session` {verb} no meaning here: sessions are in UTC and utf8mb4, and say themselves when to commit")
        })
    }

    /// Reads a table that must be there. What is missing is reported and stands as its default.
    pub(super) fn read_required(parent: &Section<'_>, key: &'static str) -> DatabaseConfig {
        if parent.node(key).is_none() {
            parent.problem(key, "is missing; give host, port, user and password of the server");
        }
        parent.section(key, &[keys::DATABASE]).map(DatabaseConfig::read).unwrap_or_default()
    }

    fn read(section: Section<'_>) -> DatabaseConfig {
        let host = section.required_text("host", "give the server's name or address").unwrap_or_default();
        if section.node("port").is_none() {
            section.problem("port", "is missing; give the server's port, such as 3306");
        }
        let port = section.int("port", 1..=u16::MAX).unwrap_or_default();
        let user = section.required_text("user", "give the account to log in with").unwrap_or_default();
        let password = section.secret("password").unwrap_or_default();
        let session = section.text_map("session");
        for name in session.keys().filter(|name| !is_variable(name)) {
            section.problem(
                &format!("session.{name}"),
                "is not the name of a session variable; use letters, digits, `_` and `.`",
            );
        }
        let security = section.section("security", &[keys::SECURITY]).and_then(Security::read);
        let kept = Kept::read(&section, keys::DATABASE);
        section.finish();
        DatabaseConfig { host, port, user, password, session, security, kept }
    }

    pub(super) fn to_node(&self, secrets: Secrets) -> Node {
        let session = self.session.iter().map(|(name, value)| (name.clone(), Node::text(value))).collect();
        table([
            ("host", Node::text(&self.host)),
            ("port", Node::Int(self.port.into())),
            ("user", Node::text(&self.user)),
            ("password", secrets.show(&self.password)),
            ("max-allowed-packet", self.kept.node("max-allowed-packet")),
            ("session", Node::Table(session)),
            ("security", self.security.as_ref().map_or(Node::Null, |security| security.to_node(secrets))),
        ])
    }
}

impl Security {
    /// Reads the `ssl-*` keys of a table; `None` if none of them is set. Does not finish the section.
    pub(super) fn read_keys(section: &Section<'_>) -> Option<Security> {
        let ca = read_pem(section, "ssl-ca", "ssl-ca-bytes", "ssl-ca-base64");
        let cert = read_pem(section, "ssl-cert", "ssl-cert-bytes", "ssl-cert-base64");
        let key = read_pem(section, "ssl-key", "ssl-key-bytes", "ssl-key-base64");
        let cert_allowed_cn = section.texts("cert-allowed-cn").unwrap_or_default();
        match (&cert, &key) {
            (Some(_), None) => {
                section.problem("ssl-key", "is missing; give the private key that belongs to `ssl-cert`")
            }
            (None, Some(_)) => {
                section.problem("ssl-cert", "is missing; give the certificate that belongs to `ssl-key`")
            }
            _ => {}
        }
        let any = ca.is_some() || cert.is_some() || key.is_some() || !cert_allowed_cn.is_empty();
        any.then_some(Security { ca, cert, key, cert_allowed_cn })
    }

    fn read(section: Section<'_>) -> Option<Security> {
        let security = Security::read_keys(&section);
        section.finish();
        security
    }

    fn to_node(&self, secrets: Secrets) -> Node {
        let path = |pem: &Option<Pem>| match pem {
            Some(Pem::File(path)) => Node::text(path.to_string_lossy()),
            _ => Node::text(""),
        };
        let inline = |pem: &Option<Pem>| match pem {
            Some(Pem::Inline(pem)) if secrets == Secrets::Plain => Node::text(STANDARD.encode(pem.expose())),
            Some(Pem::Inline(_)) => Node::text(MASK),
            _ => Node::text(""),
        };
        table([
            ("ssl-ca", path(&self.ca)),
            ("ssl-cert", path(&self.cert)),
            ("ssl-key", path(&self.key)),
            ("cert-allowed-cn", Node::texts(&self.cert_allowed_cn)),
            ("ssl-ca-base64", inline(&self.ca)),
            ("ssl-key-base64", inline(&self.key)),
            ("ssl-cert-base64", inline(&self.cert)),
        ])
    }
}

/// A part that may be inline (preferred, as in DM) or in a file.
fn read_pem(section: &Section<'_>, file: &'static str, bytes: &'static str, base64: &'static str) -> Option<Pem> {
    let path = section.text(file).filter(|path| !path.is_empty());
    let encoded = section.secret(base64).filter(|text| !text.is_empty());
    let raw = section.node(bytes);
    if let Some(encoded) = encoded {
        let decoded = STANDARD.decode(encoded.expose()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if decoded.is_none() {
            section.problem(
                base64,
                format!("is not the base64 form of a PEM file; encode the file, or give its path as `{file}`"),
            );
        }
        return decoded.map(|pem| Pem::Inline(Secret::new(pem)));
    }
    match raw {
        Some(Node::Text(pem)) if !pem.is_empty() => return Some(Pem::Inline(Secret::new(pem))),
        Some(Node::List(numbers)) if !numbers.is_empty() => {
            let raw: Option<Vec<u8>> = numbers
                .iter()
                .map(|number| if let Node::Int(number) = number { u8::try_from(*number).ok() } else { None })
                .collect();
            match raw.and_then(|raw| String::from_utf8(raw).ok()) {
                Some(pem) => return Some(Pem::Inline(Secret::new(pem))),
                None => section.problem(bytes, format!("is not the text of a PEM file; give its path as `{file}`")),
            }
        }
        _ => {}
    }
    path.map(|path| Pem::File(path.into()))
}

/// Session variables go into a SET statement by name.
fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

/// A table with fixed keys.
pub(super) fn table<const N: usize>(entries: [(&str, Node); N]) -> Node {
    Node::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
