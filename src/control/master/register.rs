//! Registration: the first word to the masters. Nothing of a worker is in the cluster's hands before it is accepted.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::channel::Masters;
use crate::control::proto::pb::RegisterWorkerRequest;
use crate::control::proto::pb::master_client::MasterClient;

/// How often all addresses are tried.
const ROUNDS: usize = 5;
/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one address may take to connect and to answer.
const CALL_LIMIT: Duration = Duration::from_secs(3);

/// Why a worker is not in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A master said no, and why.
    Refused(String),
    /// No master answered; what the last one met.
    Unreachable(String),
}

impl Refusal {
    /// What was said or met.
    pub fn why(&self) -> &str {
        match self {
            Refusal::Refused(why) | Refusal::Unreachable(why) => why,
        }
    }
}

/// Registers a name with an address; answers the cluster's key for passwords, empty where it has none.
///
/// All addresses of `join` are tried in turn, in [`ROUNDS`] rounds. A refusal counts for more than silence.
pub async fn register(masters: &Masters, name: &str, address: &str) -> Result<Vec<u8>, Refusal> {
    let mut refusal = Refusal::Unreachable("no master is named".to_owned());
    for round in 0..ROUNDS {
        if round > 0 {
            sleep(PAUSE).await;
        }
        for master in masters.join() {
            match ask(masters, master, name, address).await {
                Ok(key) => return Ok(key),
                Err(met) => {
                    tracing::warn!(master, why = met.why(), "register");
                    if matches!((&refusal, &met), (Refusal::Unreachable(_), _) | (_, Refusal::Refused(_))) {
                        refusal = met;
                    }
                }
            }
        }
    }
    Err(refusal)
}

async fn ask(masters: &Masters, master: &str, name: &str, address: &str) -> Result<Vec<u8>, Refusal> {
    let unreachable = |why: String| Refusal::Unreachable(format!("{master}: {why}"));
    let connected = timeout(CALL_LIMIT, masters.connect_to(master)).await;
    let channel = match connected {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return Err(unreachable(causes(&error))),
        Err(_) => return Err(unreachable("no connection within 3 s".to_owned())),
    };
    let request = RegisterWorkerRequest { name: name.to_owned(), address: address.to_owned() };
    match timeout(CALL_LIMIT, MasterClient::new(channel).register_worker(request)).await {
        Ok(Ok(answer)) => {
            let answer = answer.into_inner();
            if answer.result { Ok(answer.secret_key) } else { Err(Refusal::Refused(answer.msg)) }
        }
        Ok(Err(status)) => Err(unreachable(format!("{:?} {}", status.code(), status.message()))),
        Err(_) => Err(unreachable("no answer within 3 s".to_owned())),
    }
}

/// An error with those below it, which hold what matters.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
