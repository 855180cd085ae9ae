//! An authority of a test's own, and certificates signed by it.

use std::path::PathBuf;

use dm_agent::tls::{Pem, TlsFiles, cluster_client, server_name};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::process::fresh_folder;

/// An authority.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// Where the files of one party are.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The party's own.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        let folder = fresh_folder("certificates");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "cluster");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("sign");
        std::fs::write(folder.join("ca.pem"), certificate.pem()).expect("write ca.pem");
        Authority { folder, issuer: Issuer::new(params, key) }
    }

    /// A certificate for 127.0.0.1 with a common name; issued again it replaces the files.
    pub fn issue(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("sign");
        let path = |suffix: &str| self.folder.join(format!("{name}.{suffix}"));
        std::fs::write(path("pem"), certificate.pem()).expect("write a certificate");
        std::fs::write(path("key"), key.serialize_pem()).expect("write a key");
        Identity { ca: self.folder.join("ca.pem"), cert: path("pem"), key: path("key") }
    }
}

impl Identity {
    /// As the agent's own code reads them.
    pub fn files(&self) -> TlsFiles {
        let pem = |path: &PathBuf| Some(Pem::Path(path.clone()));
        TlsFiles { ca: pem(&self.ca), cert: pem(&self.cert), key: pem(&self.key), allowed_cn: Vec::new() }
    }

    /// Lines of `dm-agent.toml`.
    pub fn toml(&self) -> String {
        let (ca, cert, key) = (self.ca.display(), self.cert.display(), self.key.display());
        format!("ssl-ca = \"{ca}\"\nssl-cert = \"{cert}\"\nssl-key = \"{key}\"\n")
    }

    /// A connection to a port of this machine.
    pub async fn connect(&self, address: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let config = cluster_client(&self.files()).await.expect("certificates of the test");
        let tcp = TcpStream::connect(address).await?;
        TlsConnector::from(config).connect(server_name("127.0.0.1").expect("a name"), tcp).await
    }

    /// A channel to a port of this machine.
    pub fn channel(&self, address: &str) -> Channel {
        let (identity, address) = (self.clone(), address.to_owned());
        let connector = tower::service_fn(move |_| {
            let (identity, address) = (identity.clone(), address.clone());
            async move { identity.connect(&address).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://cluster").connect_with_connector_lazy(connector)
    }
}
