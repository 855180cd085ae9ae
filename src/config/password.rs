//! DM's encrypted passwords: `base64(IV ‖ "@" ‖ ciphertext)`, AES-256 in CFB mode with full-block feedback.
//!
//! There is no checksum in this form, so a text is a ciphertext exactly when it has the form and what comes out is
//! UTF-8; everything else is a plain password. That is DM's rule, and it holds on every use.

use std::fmt;
use std::path::{Path, PathBuf};

use aes::Aes256;
use cfb_mode::cipher::{AsyncStreamCipher, KeyIvInit};

use crate::model::{Sealed, Secret};

/// The key that a cluster's encrypted passwords are made with: 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; 32]);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// The file cannot be read.
    #[error("read secret key file {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not 32 bytes in hexadecimal digits. Says what was found, never the digits.
    #[error("a secret key has 64 hexadecimal digits, not {found}")]
    Malformed {
        /// What is there instead.
        found: String,
    },
}

impl SecretKey {
    /// Takes the 32 bytes that a master answers a registration with.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretKeyError> {
        let key =
            bytes.try_into().map_err(|_| SecretKeyError::Malformed { found: format!("{} bytes", bytes.len()) })?;
        Ok(SecretKey(key))
    }

    /// Parses 64 hexadecimal digits, white space around them ignored.
    pub fn from_hex(text: &str) -> Result<Self, SecretKeyError> {
        let digits = text.trim().as_bytes();
        let mut bytes = Vec::with_capacity(32);
        for pair in digits.chunks(2) {
            let [high, low] = pair else { break };
            let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16)) else {
                return Err(SecretKeyError::Malformed { found: "something that is no hexadecimal number".into() });
            };
            bytes.push((high << 4 | low) as u8);
        }
        if digits.len() != 64 {
            return Err(SecretKeyError::Malformed { found: digits.len().to_string() });
        }
        SecretKey::from_bytes(&bytes)
    }

    /// Reads the file that dm-master's `secret-key-path` names.
    pub fn from_file(path: &Path) -> Result<Self, SecretKeyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SecretKeyError::Unreadable { path: path.to_owned(), source })?;
        SecretKey::from_hex(&text)
    }

    /// The plain password: decrypted if it is one of DM's ciphertexts, else as it stands.
    pub fn reveal(&self, password: &Secret) -> Secret {
        self.decrypt(password).map_or_else(|| password.clone(), Secret::new)
    }

    fn decrypt(&self, password: &Secret) -> Option<String> {
        let Sealed { iv, mut ciphertext } = password.sealed()?;
        let cipher = cfb_mode::Decryptor::<Aes256>::new_from_slices(&self.0, &iv).ok()?;
        cipher.decrypt(&mut ciphertext);
        String::from_utf8(ciphertext).ok()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::model::MASK)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use proptest::prelude::*;

    // tests/golden/rpc/secret-key.txt: a real dm-master's key, and two runs of `dmctl encrypt dmpw`.
    const KEY: &str = "35eb3ba5aae6702e05f5459be6dfe51cad4d8c80b10a742633ec017932791107";
    const CIPHERTEXTS: [&str; 2] = ["4k8KBGQHFKVhYQq1xzB29UB2JgSI", "krgH6krYcfkYiF7vOK2g0UAqkiKe"];

    #[test]
    fn decrypts_what_dmctl_encrypted() {
        let key = SecretKey::from_hex(KEY).unwrap();
        for ciphertext in CIPHERTEXTS {
            assert_eq!(key.reveal(&Secret::new(ciphertext)).expose(), "dmpw");
        }
    }

    #[test]
    fn leaves_plain_passwords_alone() {
        let key = SecretKey::from_hex(KEY).unwrap();
        for plain in ["", "dmpw", "@", "QUJD", "4k8KBGQHFKVhYQq1xzB29Q==", "a b"] {
            assert_eq!(key.reveal(&Secret::new(plain)).expose(), plain);
        }
    }

    #[test]
    fn refuses_other_keys_without_showing_them() {
        for (text, found) in
            [("", "0"), ("35eb", "4"), (&KEY[1..], "63"), (&KEY.replace('3', "x"), "hexadecimal number")]
        {
            let error = SecretKey::from_hex(text).unwrap_err().to_string();
            assert!(error.contains(found) && (text.is_empty() || !error.contains(text)), "{error}");
        }
        assert!(SecretKey::from_bytes(&[0; 16]).is_err());
        assert_eq!(format!("{:?}", SecretKey::from_hex(KEY).unwrap()), "******");
    }

    proptest! {
        #[test]
        fn any_text_is_some_password(text in ".*") {
            SecretKey::from_hex(KEY).unwrap().reveal(&Secret::new(text));
        }

        #[test]
        fn any_bytes_are_some_password(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            SecretKey::from_hex(KEY).unwrap().reveal(&Secret::new(STANDARD.encode(bytes)));
        }
    }
}
