//! The login's packets: the server's greeting and our response (protocol version 10).

use super::cursor::Cursor;
use super::error::ReadError;
use super::wire::{answer, refusal};
use crate::mysql::MAX_PACKET;

/// Capability bits, as MySQL and MariaDB number them.
mod capability {
    pub(super) const LONG_PASSWORD: u32 = 1;
    pub(super) const LONG_FLAG: u32 = 1 << 2;
    pub(super) const PROTOCOL_41: u32 = 1 << 9;
    pub(super) const SSL: u32 = 1 << 11;
    pub(super) const TRANSACTIONS: u32 = 1 << 13;
    pub(super) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(super) const PLUGIN_AUTH: u32 = 1 << 19;
    pub(super) const CONNECT_ATTRIBUTES: u32 = 1 << 20;
    pub(super) const PLUGIN_AUTH_LENGTH: u32 = 1 << 21;
}

/// utf8mb4_general_ci, known to every server of both flavours.
const CHARSET: u8 = 45;
const PROTOCOL_VERSION: u8 = 10;
/// Bytes of the challenge that passwords are scrambled with.
pub(super) const NONCE_LEN: usize = 20;

/// What the server says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Greeting {
    /// Version as the server prints it.
    pub(super) version: String,
    /// Challenge for the password.
    pub(super) nonce: Vec<u8>,
    /// Plugin that the server would use.
    pub(super) plugin: String,
    capabilities: u32,
}

impl Greeting {
    pub(super) fn parse(packet: &[u8]) -> Result<Self, ReadError> {
        match packet.first() {
            Some(&PROTOCOL_VERSION) => {}
            Some(&answer::ERROR) => return Err(ReadError::refused(refusal(packet))),
            other => return Err(ReadError::Protocol(format!("greeting of protocol version {other:?}"))),
        }
        Self::fields(Cursor::new(&packet[1..])).ok_or_else(|| ReadError::Protocol("greeting is cut short".into()))
    }

    fn fields(mut cursor: Cursor<'_>) -> Option<Self> {
        let version = String::from_utf8_lossy(cursor.zero_terminated()).into_owned();
        let _connection = cursor.u32()?;
        let mut nonce = cursor.take(8)?.to_vec();
        cursor.u8()?;
        let low = cursor.u16()?;
        let _charset_and_status = cursor.take(3)?;
        let high = cursor.u16()?;
        let nonce_len = cursor.u8()?;
        let _reserved = cursor.take(10)?;
        let second = cursor.take(usize::from(nonce_len).saturating_sub(8).max(13).min(cursor.rest().len()))?;
        nonce.extend_from_slice(second);
        nonce.truncate(NONCE_LEN);
        let plugin = String::from_utf8_lossy(cursor.zero_terminated()).into_owned();
        Some(Greeting { version, nonce, plugin, capabilities: u32::from(low) | u32::from(high) << 16 })
    }

    /// Whether the server offers TLS.
    pub(super) fn offers_tls(&self) -> bool {
        self.capabilities & capability::SSL != 0
    }

    fn our_capabilities(&self, tls: bool) -> u32 {
        let wanted = capability::LONG_PASSWORD
            | capability::LONG_FLAG
            | capability::PROTOCOL_41
            | capability::TRANSACTIONS
            | capability::SECURE_CONNECTION
            | capability::PLUGIN_AUTH
            | capability::CONNECT_ATTRIBUTES
            | capability::PLUGIN_AUTH_LENGTH
            | if tls { capability::SSL } else { 0 };
        // MariaDB clears bit 0 to say that it is MariaDB; the client keeps it to say that it is not.
        wanted & (self.capabilities | capability::LONG_PASSWORD)
    }

    fn head(&self, tls: bool) -> Vec<u8> {
        let mut bytes = self.our_capabilities(tls).to_le_bytes().to_vec();
        bytes.extend_from_slice(&(MAX_PACKET as u32).to_le_bytes());
        bytes.push(CHARSET);
        bytes.extend_from_slice(&[0; 23]);
        bytes
    }

    /// Asks for TLS, ahead of the response.
    pub(super) fn tls_request(&self) -> Vec<u8> {
        self.head(true)
    }

    /// Our response: the account, and `proof` of the password for `plugin`.
    pub(super) fn response(&self, tls: bool, user: &str, plugin: &str, proof: &[u8]) -> Vec<u8> {
        let capabilities = self.our_capabilities(tls);
        let mut bytes = self.head(tls);
        bytes.extend_from_slice(user.as_bytes());
        bytes.push(0);
        if capabilities & capability::PLUGIN_AUTH_LENGTH != 0 {
            put_short(&mut bytes, proof);
        } else {
            // Every proof is shorter than 251 bytes except a clear password, which is cut by this old form.
            let proof = &proof[..proof.len().min(usize::from(u8::MAX))];
            bytes.push(proof.len() as u8);
            bytes.extend_from_slice(proof);
        }
        if capabilities & capability::PLUGIN_AUTH != 0 {
            bytes.extend_from_slice(plugin.as_bytes());
            bytes.push(0);
        }
        if capabilities & capability::CONNECT_ATTRIBUTES != 0 {
            let mut attributes = Vec::new();
            for (name, value) in [("program_name", "dm-agent"), ("_client_version", env!("CARGO_PKG_VERSION"))] {
                put_short(&mut attributes, name.as_bytes());
                put_short(&mut attributes, value.as_bytes());
            }
            put_short(&mut bytes, &attributes);
        }
        bytes
    }
}

/// Bytes behind their length, in the protocol's variable-length form; up to 64 KiB, more is cut.
fn put_short(bytes: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(usize::from(u16::MAX))];
    match text.len() {
        short @ 0..=250 => bytes.push(short as u8),
        long => {
            bytes.push(0xfc);
            bytes.extend_from_slice(&(long as u16).to_le_bytes());
        }
    }
    bytes.extend_from_slice(text);
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A greeting as a server sends it, for scripted servers.
    pub(crate) fn greeting(plugin: &str, tls: bool) -> Vec<u8> {
        let capabilities = if tls { u32::MAX } else { !capability::SSL };
        let mut bytes = vec![PROTOCOL_VERSION];
        bytes.extend(b"9.7.4\0");
        bytes.extend(8u32.to_le_bytes());
        bytes.extend(b"abcdefgh\0");
        bytes.extend((capabilities as u16).to_le_bytes());
        bytes.extend([CHARSET, 2, 0]);
        bytes.extend(((capabilities >> 16) as u16).to_le_bytes());
        bytes.push(21);
        bytes.extend([0; 10]);
        bytes.extend(b"ijklmnopqrst\0");
        bytes.extend(plugin.as_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn reads_a_greeting() {
        let greeting = Greeting::parse(&greeting("caching_sha2_password", true)).unwrap();
        assert_eq!(greeting.version, "9.7.4");
        assert_eq!(greeting.nonce, b"abcdefghijklmnopqrst");
        assert_eq!(greeting.plugin, "caching_sha2_password");
        assert!(greeting.offers_tls());
    }

    #[test]
    fn a_refusal_in_place_of_a_greeting_is_kept() {
        let error = Greeting::parse(b"\xff\x10\x04Too many connections").unwrap_err();
        assert!(matches!(error, ReadError::Refused(refusal) if refusal.code == 1040));
    }

    #[test]
    fn long_proofs_keep_their_length() {
        let mut bytes = Vec::new();
        put_short(&mut bytes, &[7; 300]);
        assert_eq!((bytes[0], bytes[1], bytes[2], bytes.len()), (0xfc, 44, 1, 303));
    }

    proptest! {
        #[test]
        fn arbitrary_greetings_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Greeting::parse(&bytes);
            bytes.insert(0, PROTOCOL_VERSION);
            if let Ok(greeting) = Greeting::parse(&bytes) {
                let _ = greeting.response(true, "u", "p", &[1; 400]);
            }
        }
    }
}
