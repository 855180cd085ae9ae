//! TLS between masters and workers: both sides show a certificate of the cluster's authority.
//!
//! `cert-allowed-cn` names common names, as DM has it. A peer that connects to us must have one of them where the list
//! is given; a master that we connect to may have one of them in place of its host's name.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef};

use super::client::EncryptOnly;
use super::files::{TlsError, TlsFiles, authorities, identity};

/// id-at-commonName.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// What a connection to a master needs; HTTP/2 only.
pub async fn cluster_client(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    files.validate()?;
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &files.ca {
        None => Arc::new(EncryptOnly(provider.clone())),
        Some(ca) => {
            let roots = Arc::new(authorities(ca).await?);
            let web = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
            Arc::new(Master { web, names: files.allowed_cn.clone() })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity(files).await? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
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

/// The subject's common names; empty for what cannot be read.
fn common_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = Certificate::from_der(certificate) else { return Vec::new() };
    let attributes = parsed.tbs_certificate.subject.0.iter().flat_map(|name| name.0.iter());
    attributes
        .filter(|attribute| attribute.oid == COMMON_NAME)
        .filter_map(|attribute| text(AnyRef::from(&attribute.value)))
        .collect()
}

fn text(value: AnyRef<'_>) -> Option<String> {
    if let Ok(text) = Utf8StringRef::try_from(value) {
        return Some(text.as_str().to_owned());
    }
    if let Ok(text) = PrintableStringRef::try_from(value) {
        return Some(text.as_str().to_owned());
    }
    TeletexStringRef::try_from(value).ok().map(|text| text.as_str().to_owned())
}

fn is_allowed(certificate: &CertificateDer<'_>, names: &[String]) -> bool {
    common_names(certificate).iter().any(|name| names.contains(name))
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

/// A master: signed by the authority, for its host or with an allowed common name.
#[derive(Debug)]
struct Master {
    web: Arc<WebPkiServerVerifier>,
    names: Vec<String>,
}

impl ServerCertVerifier for Master {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.web.verify_server_cert(certificate, chain, host, ocsp, now) {
            // The chain is checked before the name: only the name is wrong.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if is_allowed(certificate, &self.names) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
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
