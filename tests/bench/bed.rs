//! The servers and the history that cases share, made by the first case that asks.
//!
//! Every server commits durably, so that a reference gains nothing by not flushing. What is written once here is read by many
//! cases: the OLTP history by those on catching up, pulling, decoding and parking, the bulk history by those on large events.

use crate::history::{Bulk, Oltp};
use crate::support::servers::{Kind, Server, ServerOptions};

/// Settings of every server.
const COMMON: [&str; 2] = ["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=512M"];
/// Settings of sources.
const SOURCE: [&str; 1] = ["--sync-binlog=1"];
/// Settings of targets.
const TARGET: [&str; 1] = ["--skip-log-bin"];
/// Size of the redo log by product.
fn redo(kind: Kind) -> &'static str {
    match kind {
        Kind::MySql => "--innodb-redo-log-capacity=512M",
        Kind::MariaDb => "--innodb-log-file-size=512M",
    }
}

/// The settings in words, for the head of the report.
pub fn settings() -> String {
    let list = |settings: &[&str]| settings.iter().map(|one| one.trim_start_matches('-')).collect::<Vec<_>>().join(" ");
    let common = [&COMMON[..], &[redo(Kind::MySql), redo(Kind::MariaDb)]].concat();
    format!("all: {}; sources: {}; targets: {}", list(&common), list(&SOURCE), list(&TARGET))
}

/// A source.
pub async fn source(kind: Kind) -> Server {
    start(kind, &SOURCE).await
}

/// A target.
pub async fn target(kind: Kind, more: &[&str]) -> Server {
    start(kind, &[&TARGET[..], more].concat()).await
}

async fn start(kind: Kind, more: &[&str]) -> Server {
    let args = COMMON.iter().chain([&redo(kind)]).chain(more).map(|arg| (*arg).to_owned()).collect();
    Server::start(kind, &ServerOptions { args, ..ServerOptions::default() }).await
}

/// What there is so far.
#[derive(Default)]
pub struct Bed {
    maria: Option<Server>,
    oltp: Option<Oltp>,
    bulk: Option<Bulk>,
}

impl Bed {
    /// The MariaDB target.
    pub async fn maria(&mut self) -> &Server {
        if self.maria.is_none() {
            self.maria = Some(target(Kind::MariaDb, &[]).await);
        }
        self.maria.as_ref().expect("it was put there just now")
    }

    /// The OLTP source, its MariaDB target, and an agent's state parked before all of its history.
    pub async fn oltp(&mut self) -> (&mut Oltp, &Server) {
        self.maria().await;
        let maria = self.maria.as_ref().expect("it was put there just now");
        if self.oltp.is_none() {
            self.oltp = Some(Oltp::begin(maria).await);
        }
        (self.oltp.as_mut().expect("it was put there just now"), maria)
    }

    /// The source whose events are large.
    pub async fn bulk(&mut self) -> &mut Bulk {
        if self.bulk.is_none() {
            let maria = self.maria().await;
            self.bulk = Some(Bulk::write(maria).await);
        }
        self.bulk.as_mut().expect("it was put there just now")
    }
}
