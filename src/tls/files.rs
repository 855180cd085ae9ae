//! Where certificates and keys are, and how they are read.

use std::fmt;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A PEM document: a file that is read at each connect, so that a renewed one is picked up, or its content.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file on this machine.
    Path(PathBuf),
    /// The text itself, as `ssl-ca-bytes` and its like carry it.
    Inline(Vec<u8>),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::Path(path) => write!(f, "{}", path.display()),
            Pem::Inline(bytes) => write!(f, "({} bytes inline)", bytes.len()),
        }
    }
}

/// What TLS needs. With `ca` the server's certificate and name are verified against it and nothing else; without, the
/// connection is encrypted and the server is not authenticated, as DM does it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Authorities that may have signed the server's certificate.
    pub ca: Option<Pem>,
    /// Our certificate chain, where the server asks for one. Needs `key`.
    pub cert: Option<Pem>,
    /// Our private key. Needs `cert`.
    pub key: Option<Pem>,
    /// Names of which the server's certificate must carry one, in place of the host's. Empty: the host's own name.
    pub allowed_cn: Vec<String>,
}

/// TLS files or names that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {what} {path}")]
    Read {
        /// Which of the files.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Not a PEM document of the kind expected.
    #[error("{0} holds no usable PEM section")]
    Pem(&'static str),
    /// Names to be checked, and no authority to check them against.
    #[error("cert-allowed-cn is set without ssl-ca: an unverified certificate proves no name")]
    NamesWithoutCa,
    /// One of certificate and key is missing.
    #[error("ssl-cert and ssl-key belong together, one of them is missing")]
    HalfIdentity,
    /// A host name that cannot stand in a certificate.
    #[error("'{0}' is neither a host name nor an IP address")]
    Name(String),
    /// A port with TLS needs a certificate of its own and an authority for its clients'.
    #[error("TLS of the cluster needs ssl-ca, ssl-cert and ssl-key: {0} is missing")]
    Incomplete(&'static str),
    /// rustls refuses the certificates or the key.
    #[error("use the TLS certificates")]
    Rustls(#[from] rustls::Error),
    /// rustls refuses the authorities.
    #[error("use the authorities of ssl-ca")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

impl TlsFiles {
    /// What can be said wrong of the settings alone.
    pub fn validate(&self) -> Result<(), TlsError> {
        if self.cert.is_some() != self.key.is_some() {
            return Err(TlsError::HalfIdentity);
        }
        if self.ca.is_none() && !self.allowed_cn.is_empty() {
            return Err(TlsError::NamesWithoutCa);
        }
        Ok(())
    }
}

async fn read(pem: &Pem, what: &'static str) -> Result<Vec<u8>, TlsError> {
    match pem {
        Pem::Inline(bytes) => Ok(bytes.clone()),
        Pem::Path(path) => {
            tokio::fs::read(path).await.map_err(|source| TlsError::Read { what, path: path.clone(), source })
        }
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|list| !list.is_empty()).ok_or(TlsError::Pem(what))
}

/// The authorities in a PEM document.
pub(super) async fn authorities(ca: &Pem) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&read(ca, "ssl-ca").await?, "ssl-ca")? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// A certificate chain and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Our own identity; `None` where none is configured.
pub(super) async fn identity(files: &TlsFiles) -> Result<Option<Identity>, TlsError> {
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else { return Ok(None) };
    let chain = certificates(&read(cert, "ssl-cert").await?, "ssl-cert")?;
    let key = read(key, "ssl-key").await?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| TlsError::Pem("ssl-key"))?;
    Ok(Some((chain, key)))
}
