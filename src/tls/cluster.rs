//! TLS between masters and workers: both sides show a certificate of the cluster's authority.
//!
//! `cert-allowed-cn` names common names, as DM has it. A peer that connects to us must have one of them where the list
//! is given; a master that we connect to may have one of them in place of its host's name.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::files::{TlsError, TlsFiles, authorities, identity};
use super::verifier::{Names, is_allowed, verifying};

/// What a connection to a master needs; HTTP/2 only.
pub async fn cluster_client(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = verifying(files, Names::HostOrCommon(files.allowed_cn.clone())).await?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// What our own port needs: every client shows a certificate, browsers and scrapers too.
pub async fn cluster_server(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    files.validate()?;
    let ca = files.ca.as_ref().ok_or(TlsError::Incomplete("ssl-ca"))?;
    let (chain, key) = identity(files).await?.ok_or(TlsError::Incomplete("ssl-cert"))?;
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(authorities(ca).await?);
    let web = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let verifier = Arc::new(Peer { web, names: files.allowed_cn.clone() });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client of our port.
#[derive(Debug)]
struct Peer {
    web: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl ClientCertVerifier for Peer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.web.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.web.verify_client_cert(certificate, chain, now)?;
        if self.names.is_empty() || is_allowed(certificate, &self.names) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web.supported_verify_schemes()
    }
}
