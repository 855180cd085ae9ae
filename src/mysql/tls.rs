//! TLS for both kinds of connection: rustls for our own replication stream, `SslOpts` for mysql_async.
//!
//! The rules are the same for both: with an authority the certificate must be signed by it and carry the host's name,
//! or one of the allowed names where those are given; without one the connection is encrypted only. Names are looked
//! for among the certificate's subject alternative names, where rustls looks; a bare common name is not enough.

use std::path::PathBuf;
use std::sync::Arc;

use mysql_async::{ClientIdentity, SslOpts};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::endpoint::{Pem, TlsFiles};

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
    /// rustls refuses the certificates or the key.
    #[error("use the TLS certificates")]
    Rustls(#[from] rustls::Error),
    /// rustls refuses the authorities.
    #[error("use the authorities of ssl-ca")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

impl TlsFiles {
    /// What can be said wrong of the settings alone.
    pub(super) fn validate(&self) -> Result<(), TlsError> {
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

/// The name a certificate is checked against.
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))
}

/// Reads the files and builds what a TLS client needs; done at each connect, so that renewed files are picked up.
pub async fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    files.validate()?;
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &files.ca {
        None => Arc::new(EncryptOnly(provider.clone())),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&read(ca, "ssl-ca").await?, "ssl-ca")? {
                roots.add(certificate)?;
            }
            let web = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
            let names: Result<Vec<_>, _> = files.allowed_cn.iter().map(|name| server_name(name)).collect();
            Arc::new(SignedBy { web, names: names? })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(&read(cert, "ssl-cert").await?, "ssl-cert")?;
            let key = read(key, "ssl-key").await?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| TlsError::Pem("ssl-key"))?;
            builder.with_client_auth_cert(chain, key)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// The same for mysql_async, which reads the files itself. `name` replaces the host's in the check.
pub(super) fn ssl_opts(files: &TlsFiles, name: Option<&str>) -> SslOpts {
    let source = |pem: &Pem| match pem {
        Pem::Path(path) => path.clone().into(),
        Pem::Inline(bytes) => bytes.clone().into(),
    };
    let mut opts = SslOpts::default();
    if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
        opts = opts.with_client_identity(Some(ClientIdentity::new(source(cert), source(key))));
    }
    match &files.ca {
        None => opts.with_danger_accept_invalid_certs(true),
        Some(ca) => {
            let opts = opts.with_root_certs(vec![source(ca)]).with_disable_built_in_roots(true);
            opts.with_danger_tls_hostname_override(name.map(str::to_owned))
        }
    }
}

/// Any certificate will do, as long as the server holds its key.
#[derive(Debug)]
struct EncryptOnly(Arc<CryptoProvider>);

impl ServerCertVerifier for EncryptOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Signed by the authorities, for the host or for one of the names.
#[derive(Debug)]
struct SignedBy {
    web: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for SignedBy {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let check = |name: &ServerName<'_>| self.web.verify_server_cert(cert, chain, name, ocsp, now);
        let Some((first, others)) = self.names.split_first() else { return check(host) };
        others.iter().fold(check(first), |verdict, name| verdict.or_else(|_| check(name)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.web.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.web.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let names = TlsFiles { allowed_cn: vec!["db".into()], ..TlsFiles::default() };
        assert!(matches!(names.validate(), Err(TlsError::NamesWithoutCa)));
        let half = TlsFiles { cert: Some(Pem::Inline(Vec::new())), ..TlsFiles::default() };
        assert!(matches!(half.validate(), Err(TlsError::HalfIdentity)));
        assert!(TlsFiles::default().validate().is_ok());
    }

    #[tokio::test]
    async fn what_is_no_certificate_is_named() {
        let files = TlsFiles { ca: Some(Pem::Inline(b"rubbish".to_vec())), ..TlsFiles::default() };
        assert!(matches!(client_config(&files).await, Err(TlsError::Pem("ssl-ca"))));
        let files = TlsFiles { ca: Some(Pem::Path("/nowhere/ca.pem".into())), ..TlsFiles::default() };
        assert!(matches!(client_config(&files).await, Err(TlsError::Read { what: "ssl-ca", .. })));
        assert!(client_config(&TlsFiles::default()).await.is_ok());
    }

    #[test]
    fn names_are_hosts_or_addresses() {
        assert!(server_name("db.example").is_ok() && server_name("::1").is_ok() && server_name("10.0.0.1").is_ok());
        assert!(matches!(server_name("not a name"), Err(TlsError::Name(_))));
    }
}
