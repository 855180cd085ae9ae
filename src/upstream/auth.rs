//! Logging in: proving the password with the plugin the server asks for.
//!
//! Invariant: the password in clear goes out only inside TLS, or encrypted with the server's RSA key.

use mysql_common::scramble::{create_response_for_ed25519, scramble_native, scramble_sha256};
use rsa::pkcs8::DecodePublicKey;
use rsa::rand_core::OsRng;
use rsa::{Oaep, RsaPublicKey};
use sha1::Sha1;

use super::cursor::Cursor;
use super::error::ReadError;
use super::handshake::{Greeting, NONCE_LEN};
use super::wire::{Channel, answer, refusal};
use crate::mysql::Endpoint;

/// Answers of caching_sha2_password: the proof was enough, or the password itself is needed.
const FAST_OK: u8 = 3;
const FULL_LOGIN: u8 = 4;
/// Asks for the server's RSA key: by caching_sha2_password, by sha256_password.
const KEY_REQUEST_CACHING: u8 = 2;
const KEY_REQUEST_SHA256: u8 = 1;
/// A login takes a few exchanges; a server that goes on forever is none.
const MOST_EXCHANGES: usize = 12;

/// The plugins we can prove a password with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugin {
    Native,
    CachingSha2,
    Sha256,
    Clear,
    Ed25519,
}

impl Plugin {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "mysql_native_password" => Plugin::Native,
            "caching_sha2_password" => Plugin::CachingSha2,
            "sha256_password" => Plugin::Sha256,
            "mysql_clear_password" => Plugin::Clear,
            "client_ed25519" => Plugin::Ed25519,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Plugin::Native => "mysql_native_password",
            Plugin::CachingSha2 => "caching_sha2_password",
            Plugin::Sha256 => "sha256_password",
            Plugin::Clear => "mysql_clear_password",
            Plugin::Ed25519 => "client_ed25519",
        }
    }

    /// What proves the password to this plugin, given the server's challenge.
    fn proof(self, password: &str, challenge: &[u8], tls: bool) -> Result<Vec<u8>, ReadError> {
        // Challenges come with a zero byte behind them that belongs to no scramble.
        let nonce = challenge.get(..NONCE_LEN).unwrap_or(challenge);
        let bytes = password.as_bytes();
        Ok(match self {
            Plugin::Native => scramble_native(nonce, bytes).map(|proof| proof.to_vec()).unwrap_or_default(),
            Plugin::CachingSha2 => scramble_sha256(nonce, bytes).map(|proof| proof.to_vec()).unwrap_or_default(),
            Plugin::Sha256 if bytes.is_empty() => vec![0],
            Plugin::Sha256 if tls => clear(password),
            Plugin::Sha256 => vec![KEY_REQUEST_SHA256],
            Plugin::Clear if tls => clear(password),
            Plugin::Clear => {
                return Err(ReadError::Setup(
                    "the source asks for the password in clear (mysql_clear_password), which is only sent inside TLS: \
                     please configure `security` of the source"
                        .into(),
                ));
            }
            Plugin::Ed25519 => {
                let nonce = challenge.get(..32).ok_or_else(|| short_challenge(self))?;
                create_response_for_ed25519(bytes, nonce).to_vec()
            }
        })
    }
}

fn short_challenge(plugin: Plugin) -> ReadError {
    ReadError::Protocol(format!("challenge of {} is too short", plugin.name()))
}

/// The password as a zero-terminated text.
fn clear(password: &str) -> Vec<u8> {
    let mut bytes = password.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// Connects, secures the connection where asked for, and logs in. Gives the server's version text too.
pub(super) async fn login(endpoint: &Endpoint) -> Result<(Channel, String), ReadError> {
    authenticate(Channel::open(endpoint).await?, endpoint).await
}

/// The login on a stream that is open.
pub(super) async fn authenticate(mut channel: Channel, endpoint: &Endpoint) -> Result<(Channel, String), ReadError> {
    let greeting = Greeting::parse(&channel.receive().await?)?;
    let tls = endpoint.tls.is_some();
    if let Some(files) = &endpoint.tls {
        if !greeting.offers_tls() {
            return Err(ReadError::Setup(format!(
                "{} offers no TLS, and `security` of the source asks for it",
                endpoint.label()
            )));
        }
        channel.send(&greeting.tls_request()).await?;
        channel = channel.secure(files, endpoint.bare_host()).await?;
    }
    let mut exchange = Exchange {
        // The account may have another plugin than the server's default; the server then asks to switch.
        plugin: Plugin::by_name(&greeting.plugin).filter(|plugin| *plugin != Plugin::Clear).unwrap_or(Plugin::Native),
        challenge: greeting.nonce.clone(),
        password: endpoint.password.expose(),
        tls,
    };
    if exchange.plugin == Plugin::Ed25519 && exchange.challenge.len() < 32 {
        exchange.plugin = Plugin::Native;
    }
    let proof = exchange.plugin.proof(exchange.password, &exchange.challenge, tls)?;
    channel.send(&greeting.response(tls, &endpoint.user, exchange.plugin.name(), &proof)).await?;
    exchange.run(&mut channel).await?;
    Ok((channel, greeting.version))
}

/// A login under way.
struct Exchange<'a> {
    plugin: Plugin,
    challenge: Vec<u8>,
    password: &'a str,
    tls: bool,
}

impl Exchange<'_> {
    async fn run(&mut self, channel: &mut Channel) -> Result<(), ReadError> {
        for _ in 0..MOST_EXCHANGES {
            let packet = channel.receive().await?;
            let reply = match packet.first() {
                Some(&answer::OK) => return Ok(()),
                Some(&answer::ERROR) => return Err(ReadError::refused(refusal(&packet))),
                Some(&answer::END) => Some(self.switch(&packet[1..])?),
                Some(&answer::MORE) => self.more(&packet[1..])?,
                _ => return Err(ReadError::Protocol("unknown answer to the login".into())),
            };
            if let Some(reply) = reply {
                channel.send(&reply).await?;
            }
        }
        Err(ReadError::Protocol("the login does not end".into()))
    }

    /// The server wants another plugin.
    fn switch(&mut self, body: &[u8]) -> Result<Vec<u8>, ReadError> {
        let mut cursor = Cursor::new(body);
        let name = String::from_utf8_lossy(cursor.zero_terminated()).into_owned();
        self.plugin = Plugin::by_name(&name).ok_or_else(|| unknown_plugin(&name))?;
        self.challenge = cursor.rest().to_vec();
        self.plugin.proof(self.password, &self.challenge, self.tls)
    }

    /// The plugin has more to say; gives what to answer, if anything.
    fn more(&self, body: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        match (self.plugin, body) {
            (Plugin::CachingSha2, [FAST_OK]) => Ok(None),
            (Plugin::CachingSha2, [FULL_LOGIN]) if self.tls => Ok(Some(clear(self.password))),
            (Plugin::CachingSha2, [FULL_LOGIN]) => Ok(Some(vec![KEY_REQUEST_CACHING])),
            (Plugin::CachingSha2 | Plugin::Sha256, key) if !self.tls => self.encrypt(key).map(Some),
            (plugin, _) => Err(ReadError::Protocol(format!("unexpected message of {}", plugin.name()))),
        }
    }

    /// The password, masked with the challenge and encrypted with the server's key (RSA-OAEP, SHA-1).
    fn encrypt(&self, key: &[u8]) -> Result<Vec<u8>, ReadError> {
        let bad = |what: &str| ReadError::Protocol(format!("the server's RSA key {what}"));
        let pem = std::str::from_utf8(key).map_err(|_| bad("is not text"))?;
        let key = RsaPublicKey::from_public_key_pem(pem.trim()).map_err(|_| bad("cannot be read"))?;
        let nonce = self.challenge.get(..NONCE_LEN).ok_or_else(|| short_challenge(self.plugin))?;
        let masked: Vec<u8> = clear(self.password).iter().zip(nonce.iter().cycle()).map(|(a, b)| a ^ b).collect();
        key.encrypt(&mut OsRng, Oaep::new::<Sha1>(), &masked).map_err(|_| bad("cannot encrypt the password"))
    }
}

fn unknown_plugin(name: &str) -> ReadError {
    let name = if name.is_empty() { "mysql_old_password" } else { name };
    ReadError::Setup(format!(
        "the account of the source uses the authentication plugin '{name}', which is not supported: please use \
         `ALTER USER … IDENTIFIED WITH caching_sha2_password` (MySQL) or `IDENTIFIED VIA mysql_native_password` (MariaDB)"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rsa::RsaPrivateKey;
    use rsa::pkcs8::{EncodePublicKey, LineEnding};
    use tokio::io::DuplexStream;

    use super::*;
    use crate::model::Secret;
    use crate::upstream::handshake::tests::greeting;

    const CHALLENGE: &[u8] = b"abcdefghijklmnopqrst";

    fn endpoint() -> Endpoint {
        Endpoint {
            host: "h".into(),
            port: 1,
            user: "dm".into(),
            password: Secret::new("pässword"),
            session: BTreeMap::new(),
            tls: None,
        }
    }

    /// Both ends of a connection, the second for a scripted server.
    fn pair() -> (Channel, Channel) {
        let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 16);
        (Channel::new(ours), Channel::new(theirs))
    }

    fn proof_of(response: &[u8]) -> &[u8] {
        let mut cursor = Cursor::new(&response[32..]);
        cursor.zero_terminated();
        let len = cursor.u8().unwrap();
        cursor.take(usize::from(len)).unwrap()
    }

    #[tokio::test]
    async fn fast_path_of_caching_sha2() {
        let (ours, mut server) = pair();
        let endpoint = endpoint();
        let script = async {
            server.send(&greeting("caching_sha2_password", false)).await.unwrap();
            let response = server.receive().await.unwrap();
            let expected = scramble_sha256(CHALLENGE, "pässword".as_bytes()).unwrap();
            assert_eq!(proof_of(&response), expected);
            server.send(&[answer::MORE, FAST_OK]).await.unwrap();
            server.send(&[answer::OK, 0, 0, 2, 0, 0, 0]).await.unwrap();
        };
        let (login, ()) = tokio::join!(authenticate(ours, &endpoint), script);
        assert_eq!(login.unwrap().1, "9.7.4");
    }

    #[tokio::test]
    async fn full_path_without_tls_encrypts_the_password() {
        let key = RsaPrivateKey::new(&mut OsRng, 1024).unwrap();
        let pem = RsaPublicKey::from(&key).to_public_key_pem(LineEnding::LF).unwrap();
        let (ours, mut server) = pair();
        let endpoint = endpoint();
        let script = async {
            server.send(&greeting("caching_sha2_password", false)).await.unwrap();
            server.receive().await.unwrap();
            server.send(&[answer::MORE, FULL_LOGIN]).await.unwrap();
            assert_eq!(server.receive().await.unwrap()[..], [KEY_REQUEST_CACHING]);
            server.send(&[&[answer::MORE], pem.as_bytes()].concat()).await.unwrap();
            let sealed = server.receive().await.unwrap();
            let masked = key.decrypt(Oaep::new::<Sha1>(), &sealed).unwrap();
            let plain: Vec<u8> = masked.iter().zip(CHALLENGE.iter().cycle()).map(|(a, b)| a ^ b).collect();
            assert_eq!(plain, "pässword\0".as_bytes());
            server.send(&[answer::OK, 0, 0, 2, 0, 0, 0]).await.unwrap();
        };
        let (login, ()) = tokio::join!(authenticate(ours, &endpoint), script);
        login.unwrap();
    }

    #[tokio::test]
    async fn switches_to_the_plugin_of_the_account() {
        let (ours, mut server) = pair();
        let endpoint = endpoint();
        let script = async {
            server.send(&greeting("caching_sha2_password", false)).await.unwrap();
            server.receive().await.unwrap();
            server.send(b"\xfemysql_native_password\0ABCDEFGHIJKLMNOPQRST\0").await.unwrap();
            let expected = scramble_native(b"ABCDEFGHIJKLMNOPQRST", "pässword".as_bytes()).unwrap();
            assert_eq!(server.receive().await.unwrap()[..], expected);
            server.send(b"\xff\x15\x04#28000Access denied for user 'dm'").await.unwrap();
        };
        let (login, ()) = tokio::join!(authenticate(ours, &endpoint), script);
        assert!(matches!(login.err().unwrap(), ReadError::AccessDenied(refusal) if refusal.code == 1045));
    }

    #[tokio::test]
    async fn a_clear_password_is_never_sent_in_the_open() {
        for plugin in ["mysql_clear_password", "dialog", ""] {
            let (ours, mut server) = pair();
            let endpoint = endpoint();
            let script = async {
                server.send(&greeting("mysql_clear_password", false)).await.unwrap();
                let response = server.receive().await.unwrap();
                assert!(!response.windows(8).any(|window| window == &"pässword".as_bytes()[..8]));
                server.send(&[b"\xfe", plugin.as_bytes(), b"\0"].concat()).await.unwrap();
            };
            let (login, ()) = tokio::join!(authenticate(ours, &endpoint), script);
            assert!(matches!(login.err().unwrap(), ReadError::Setup(_)), "{plugin}");
        }
    }

    #[tokio::test]
    async fn tls_that_is_wanted_and_not_offered_stops() {
        let (ours, mut server) = pair();
        let endpoint = Endpoint { tls: Some(Default::default()), ..endpoint() };
        let script = async { server.send(&greeting("mysql_native_password", false)).await.unwrap() };
        let (login, ()) = tokio::join!(authenticate(ours, &endpoint), script);
        assert!(matches!(login.err().unwrap(), ReadError::Setup(_)));
    }
}
