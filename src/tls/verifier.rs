//! Whether the other side's certificate is good: its signature, and the name it carries.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef};

use super::files::{TlsError, TlsFiles, authorities, identity};

/// id-at-commonName.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Which name a server's certificate must carry.
#[derive(Debug)]
pub(super) enum Names {
    /// One of these, or where there are none the host's.
    InPlaceOfHost(Vec<ServerName<'static>>),
    /// The host's, or one of these as its common name.
    HostOrCommon(Vec<String>),
}

/// A client's settings from its files. Without an authority any certificate will do.
pub(super) async fn verifying(files: &TlsFiles, names: Names) -> Result<ClientConfig, TlsError> {
    files.validate()?;
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &files.ca {
        None => Arc::new(EncryptOnly(provider.clone())),
        Some(ca) => {
            let roots = Arc::new(authorities(ca).await?);
            let web = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
            Arc::new(SignedBy { web, names })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match identity(files).await? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    })
}

/// Where a certificate of the right authority that carries no name at all will do: on the address at which a dm-worker
/// checks nothing. A MySQL makes such certificates for itself. A name that is there must be right here, too.
pub fn needs_no_name(host: &str) -> bool {
    host == "127.0.0.1"
}

/// Whether nothing is wrong with a certificate but that it carries no name: its chain is checked before.
pub fn is_nameless(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) if presented.is_empty()
    )
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

/// Whether one of the common names is in the list.
pub(super) fn is_allowed(certificate: &CertificateDer<'_>, names: &[String]) -> bool {
    common_names(certificate).iter().any(|name| names.contains(name))
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
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Signed by the authorities, with a name that is right.
#[derive(Debug)]
struct SignedBy {
    web: Arc<WebPkiServerVerifier>,
    names: Names,
}

impl ServerCertVerifier for SignedBy {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let check = |name: &ServerName<'_>| self.web.verify_server_cert(cert, chain, name, ocsp, now);
        match &self.names {
            Names::InPlaceOfHost(names) => match names.split_first() {
                Some((first, others)) => {
                    others.iter().fold(check(first), |verdict, name| verdict.or_else(|_| check(name)))
                }
                None => check(host).or_else(|error| match is_nameless(&error) && needs_no_name(&host.to_str()) {
                    true => Ok(ServerCertVerified::assertion()),
                    false => Err(error),
                }),
            },
            Names::HostOrCommon(names) => match check(host) {
                // The chain is checked before the name: only the name is wrong.
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) if is_allowed(cert, names) => Ok(ServerCertVerified::assertion()),
                verdict => verdict,
            },
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
