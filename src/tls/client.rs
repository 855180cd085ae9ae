//! The client side of a database connection.
//!
//! With an authority the certificate must be signed by it and carry the host's name, or one of the allowed names where
//! those are given; without one the connection is encrypted only. Names are looked for among the certificate's subject
//! alternative names, where rustls looks; a bare common name is not enough (the driver of SQL connections takes none).

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::files::{TlsError, TlsFiles};
use super::verifier::{Names, verifying};

/// The name a certificate is checked against.
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))
}

/// Reads the files and builds what a TLS client needs; done at each connect, so that renewed files are picked up.
pub async fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let names: Result<Vec<_>, _> = files.allowed_cn.iter().map(|name| server_name(name)).collect();
    Ok(Arc::new(verifying(files, Names::InPlaceOfHost(names?)).await?))
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
