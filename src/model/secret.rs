//! Text that must not be seen: passwords and keys.
//!
//! Invariant: nothing prints it. `Debug`, `Display` and `Serialize` give `******`, as DM masks passwords; the plain
//! text leaves only through [`Secret::expose`], which is called where a connection is opened or a file is stored.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

/// What stands in place of a secret, in DM's output and ours.
pub const MASK: &str = "******";

/// What `dmctl encrypt` makes: `base64(IV ‖ "@" ‖ ciphertext)`.
pub struct Sealed {
    /// Initialisation vector.
    pub iv: [u8; 16],
    /// What is to be decrypted.
    pub ciphertext: Vec<u8>,
}

/// A password or key.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Takes the plain text in.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The plain text. Never hand it to a log, an error or a status.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its parts, where it has the form of one of DM's encrypted passwords. There is no checksum in that form: a plain
    /// password may have it, too.
    pub fn sealed(&self) -> Option<Sealed> {
        let bytes = STANDARD.decode(&self.0).ok()?;
        let (iv, rest) = bytes.split_first_chunk()?;
        let (b'@', ciphertext) = rest.split_first()? else { return None };
        Some(Sealed { iv: *iv, ciphertext: ciphertext.to_vec() })
    }

    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_printed() {
        let secret = Secret::new("dmpw");
        let printed = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!printed.contains("dmpw"), "{printed}");
        assert_eq!(secret.expose(), "dmpw");
    }

    #[test]
    fn an_encrypted_one_is_known_by_its_form() {
        let sealed = Secret::new("4k8KBGQHFKVhYQq1xzB29UB2JgSI").sealed().expect("dmctl made it");
        assert_eq!(sealed.ciphertext.len(), "dmpw".len());
        for plain in ["", "dmpw", "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(Secret::new(plain).sealed().is_none(), "{plain}");
        }
    }
}
