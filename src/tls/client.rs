//! The client side of a database connection.
//!
//! With an authority the certificate must be signed by it and carry the host's name, or one of the allowed names where
//! those are given; without one the connection is encrypted only. Names are looked for among the certificate's subject
//! alternative names, where rustls looks; a bare common name is not enough.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::files::{TlsError, TlsFiles, authorities, identity};

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
            let roots = Arc::new(authorities(ca).await?);
            let web = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
            let names: Result<Vec<_>, _> = files.allowed_cn.iter().map(|name| server_name(name)).collect();
            Arc::new(SignedBy { web, names: names? })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match identity(files).await? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Any certificate will do, as long as the server holds its key.
#[derive(Debug)]
pub(super) struct EncryptOnly(pub Arc<CryptoProvider>);

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
    use crate::tls::Pem;

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
