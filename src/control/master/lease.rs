//! The lease that says to the cluster that this worker is there, and the guard that says when it may be over.
//!
//! Two halves. [`KeepAlive`] talks to etcd: it gets the lease, attaches this worker's key to it and renews it. [`guard`]
//! never talks to anybody: it compares the time of the last renewal with the clock, and says [`Tenure::Lost`] a margin
//! before the lease can have run out, whatever the other half is waiting for.
//!
//! Invariant: while [`Tenure::Held`] is said, less than the lease's time, counted from before the last successful renewal
//! was sent, has passed by a clock that goes on while the machine sleeps and that nobody sets.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::channel::Masters;
use super::keys;
use crate::control::proto::etcd::kv_client::KvClient;
use crate::control::proto::etcd::lease_client::LeaseClient;
use crate::control::proto::etcd::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest};

/// How long a request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long a lease may take to be given back.
const REVOKE_LIMIT: Duration = Duration::from_secs(3);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the guard looks at the clock: a timer alone stands still while the machine sleeps.
const GUARD_TICK: Duration = Duration::from_millis(100);
/// The least time in which applying must come to a stop: its cut-off, and the way there.
const LEAST_MARGIN: Duration = Duration::from_secs(2);

/// Whether the lease is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenure {
    /// It is not, or may soon not be.
    Lost,
    /// It is, without a break, since the key was written at this revision.
    Held {
        /// etcd revision.
        since: i64,
        /// etcd's number of the cluster that it is in.
        cluster: u64,
    },
}

/// Time since the machine was started, sleep included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boottime(Duration);

impl Boottime {
    /// The time now.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        // Neither part is ever negative on this clock.
        Boottime(Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0)))
    }

    fn after(self, span: Duration) -> Self {
        Boottime(self.0 + span)
    }
}

/// What the renewals say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    since: i64,
    cluster: u64,
    until: Boottime,
}

impl Hold {
    fn tenure(hold: Option<Hold>, now: Boottime) -> Tenure {
        match hold {
            Some(hold) if now < hold.until => Tenure::Held { since: hold.since, cluster: hold.cluster },
            _ => Tenure::Lost,
        }
    }
}

/// How long before its end a lease counts as lost.
fn margin(ttl: Duration) -> Duration {
    // A lease so short that no margin is left is taken as it is: half of it.
    (ttl / 6).max(LEAST_MARGIN).min(ttl / 2)
}

/// Says whether the lease is held, for as long as there are renewals to look at.
pub async fn guard(mut holds: watch::Receiver<Option<Hold>>, tenure: watch::Sender<Tenure>) {
    loop {
        let now = Hold::tenure(*holds.borrow_and_update(), Boottime::now());
        tenure.send_if_modified(|said| std::mem::replace(said, now) != now);
        tokio::select! {
            changed = holds.changed() => if changed.is_err() { break },
            () = sleep(GUARD_TICK) => {}
        }
    }
    tenure.send_replace(Tenure::Lost);
}

/// Keeps a lease alive.
pub struct KeepAlive {
    masters: Masters,
    worker: String,
    /// How long the lease lasts; another value moves the key to another lease.
    ttl: watch::Receiver<Duration>,
    hold: watch::Sender<Option<Hold>>,
}

/// A lease that the key is attached to.
struct Attached {
    id: i64,
    cluster: u64,
    ttl: Duration,
    /// Before the request was sent that began its time.
    renewed: Boottime,
}

/// Why a lease is not renewed any more.
enum End {
    Stopped,
    OtherTtl,
    Gone(String),
}

impl KeepAlive {
    /// For a worker.
    pub fn new(
        masters: Masters,
        worker: String,
        ttl: watch::Receiver<Duration>,
        hold: watch::Sender<Option<Hold>>,
    ) -> Self {
        KeepAlive { masters, worker, ttl, hold }
    }

    /// Keeps it until `stop`, then gives it back, so that the cluster knows at once.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut before: Option<i64> = None;
        let mut joined = OffsetDateTime::now_utc();
        loop {
            let (number, channel) = self.masters.channel();
            let mut granted = None;
            let attached = tokio::select! {
                () = stop.cancelled() => None,
                attached = self.attach(channel, joined, &mut granted) => Some(attached),
            };
            let Some(attached) = attached else {
                // The key may be on it already, whether that was answered or not.
                self.give_back(granted).await;
                return self.give_back(before).await;
            };
            let mut attached = match attached {
                Ok(attached) => attached,
                Err(why) => {
                    tracing::warn!(why, "get a lease");
                    self.masters.give_up(number);
                    if self.hold.borrow().is_none_or(|hold| Boottime::now() >= hold.until) {
                        // Nothing binds us to a cluster that does not answer.
                        self.masters.belong_to(None);
                    }
                    tokio::select! {
                        () = stop.cancelled() => return self.give_back(before).await,
                        () = sleep(PAUSE) => continue,
                    }
                }
            };
            // Only after the key has moved: watchers then see no gap.
            self.give_back(before.replace(attached.id)).await;
            match self.renew_until(&mut attached, &stop).await {
                End::Stopped => return self.give_back(before).await,
                End::OtherTtl => {}
                End::Gone(why) => {
                    tracing::warn!(why, "the lease is lost");
                    self.hold.send_replace(None);
                    self.masters.belong_to(None);
                    joined = OffsetDateTime::now_utc();
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// A lease, and the key on it; the lease is in `id` as soon as there is one.
    async fn attach(
        &mut self,
        channel: Channel,
        joined: OffsetDateTime,
        id: &mut Option<i64>,
    ) -> Result<Attached, String> {
        let (mut lease, mut kv) = (LeaseClient::new(channel.clone()), KvClient::new(channel));
        let ttl = *self.ttl.borrow_and_update();
        let renewed = Boottime::now();
        let seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let granted = timeout(REQUEST_LIMIT, lease.lease_grant(LeaseGrantRequest { ttl: seconds, id: 0 })).await;
        // A server may give more time than asked for: the key then stays longer than we say that we hold it.
        let granted = answer(granted)?;
        *id = Some(granted.id);
        self.masters.check(granted.header.as_ref()).map_err(|error| error.to_string())?;
        let (id, cluster) = (granted.id, granted.header.map_or(0, |header| header.cluster_id));
        let value = alive_value(&self.worker, joined);
        let put = PutRequest { key: keys::alive(&self.worker).into(), value: value.into(), lease: id };
        let put = answer(timeout(REQUEST_LIMIT, kv.put(put)).await)?;
        let revision = put.header.map_or(0, |header| header.revision);
        let unbroken = self.hold.borrow().filter(|hold| Boottime::now() < hold.until);
        self.masters.belong_to((cluster != 0).then_some(cluster));
        let attached = Attached { id, cluster, ttl, renewed };
        self.hold(&attached, unbroken.map_or(revision, |hold| hold.since));
        tracing::info!(lease = id, ttl = ttl.as_secs(), revision, "lease held");
        Ok(attached)
    }

    fn hold(&self, attached: &Attached, since: i64) {
        let until = attached.renewed.after(attached.ttl - margin(attached.ttl));
        self.hold.send_replace(Some(Hold { since, cluster: attached.cluster, until }));
    }

    async fn renew_until(&mut self, attached: &mut Attached, stop: &CancellationToken) -> End {
        let mut pause = attached.ttl / 3;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopped,
                changed = self.ttl.changed() => match changed {
                    Ok(()) if *self.ttl.borrow() == attached.ttl => continue,
                    Ok(()) => return End::OtherTtl,
                    Err(_) => return End::Stopped,
                },
                () = sleep(pause) => {}
            }
            let sent = Boottime::now();
            let limit = (attached.ttl / 6).clamp(Duration::from_millis(500), Duration::from_secs(3));
            let (number, channel) = self.masters.channel();
            match timeout(limit, self.renew(channel, attached.id)).await {
                Ok(Ok(true)) => {
                    attached.renewed = sent;
                    let since = self.hold.borrow().map_or(0, |hold| hold.since);
                    self.hold(attached, since);
                    pause = attached.ttl / 3;
                    continue;
                }
                Ok(Ok(false)) => return End::Gone("etcd does not know it any more".to_owned()),
                Ok(Err(why)) => tracing::warn!(why, "renew the lease"),
                Err(_) => tracing::warn!(limit = ?limit, "renew the lease: no answer"),
            }
            self.masters.give_up(number);
            if Boottime::now() >= attached.renewed.after(attached.ttl) {
                return End::Gone("it could not be renewed in its time".to_owned());
            }
            pause = PAUSE.min(attached.ttl / 10);
        }
    }

    /// Whether the lease is still there. A cluster that never had it has no say.
    async fn renew(&self, channel: Channel, id: i64) -> Result<bool, String> {
        let request = tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut answers = LeaseClient::new(channel).lease_keep_alive(request).await.map_err(text)?.into_inner();
        let answer = answers.message().await.map_err(text)?.ok_or("the answer is missing")?;
        self.masters.check(answer.header.as_ref()).map_err(|error| error.to_string())?;
        Ok(answer.ttl > 0)
    }

    async fn give_back(&self, id: Option<i64>) {
        let Some(id) = id else { return };
        let mut lease = LeaseClient::new(self.masters.channel().1);
        let revoked = timeout(REVOKE_LIMIT, lease.lease_revoke(LeaseRevokeRequest { id })).await;
        if let Err(why) = answer(revoked) {
            tracing::debug!(lease = id, why, "give a lease back");
        }
    }
}

/// What the leased key holds.
fn alive_value(worker: &str, joined: OffsetDateTime) -> String {
    // This format takes every time there is.
    let joined = joined.format(&Rfc3339).unwrap_or_default();
    serde_json::json!({ "worker-name": worker, "join-time": joined }).to_string()
}

fn text(status: tonic::Status) -> String {
    format!("{:?} {}", status.code(), status.message())
}

type Answer<T> = Result<Result<tonic::Response<T>, tonic::Status>, tokio::time::error::Elapsed>;

fn answer<T>(answer: Answer<T>) -> Result<T, String> {
    match answer {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(text(status)),
        Err(_) => Err("no answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_as_lost_before_it_can_be_over() {
        let seconds = Duration::from_secs;
        for (ttl, left) in [(60, 10), (1800, 300), (15, 2), (10, 2), (3, 1)] {
            let margin = margin(seconds(ttl));
            assert!(margin >= seconds(left) && margin <= seconds(ttl) / 2, "{ttl}: {margin:?}");
        }
        assert_eq!(margin(seconds(1)), Duration::from_millis(500));
    }

    /// `tests/golden/tape`: what a real worker said to its master at its start.
    #[test]
    fn the_first_words_are_those_of_a_real_worker() {
        use base64::Engine;
        use prost::Message;

        use crate::control::proto::pb::RegisterWorkerRequest;

        let tape = include_str!("../../../tests/golden/tape/worker-to-master.jsonl");
        let said: Vec<serde_json::Value> = tape.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let requests = |method: &str| -> Vec<serde_json::Value> {
            let of = |line: &&serde_json::Value| {
                line["dir"] == "request" && line["method"].as_str().unwrap().ends_with(method)
            };
            said.iter().filter(of).cloned().collect()
        };
        let register = &requests("/RegisterWorker")[0];
        let ours = RegisterWorkerRequest { name: "worker1".into(), address: "127.0.0.1:18262".into() };
        assert_eq!(
            base64::engine::general_purpose::STANDARD.encode(ours.encode_to_vec()),
            register["b64"].as_str().unwrap()
        );
        assert_eq!(requests("/LeaseGrant")[0]["msg"]["TTL"], "60");
        let put = &requests("/Put")[0]["msg"];
        assert_eq!(put["key"], keys::alive("worker1"));
        let theirs: serde_json::Value = serde_json::from_str(put["value"].as_str().unwrap()).unwrap();
        let joined = OffsetDateTime::parse(theirs["join-time"].as_str().unwrap(), &Rfc3339).unwrap();
        let ours: serde_json::Value = serde_json::from_str(&alive_value("worker1", joined)).unwrap();
        assert_eq!(ours, theirs);
        let watched: Vec<String> = requests("/Watch")
            .iter()
            .filter_map(|request| request["msg"]["create_request"]["key"].as_str().map(str::to_owned))
            .collect();
        for key in [keys::bound("worker1"), keys::relay_worker("worker1"), keys::relay_stage("mysql-01")] {
            assert!(watched.contains(&key), "{key} is none of {watched:?}");
        }
        for kind in [keys::OfSource::Stages, keys::OfSource::Validators] {
            let first = String::from_utf8(kind.range("mysql-01").key).unwrap();
            assert!(watched.contains(&first), "{first} is none of {watched:?}");
        }
    }

    #[test]
    fn the_clock_decides() {
        let until = Boottime(Duration::from_secs(50));
        let hold = Some(Hold { since: 7, cluster: 1, until });
        assert_eq!(Hold::tenure(hold, Boottime(Duration::from_secs(49))), Tenure::Held { since: 7, cluster: 1 });
        assert_eq!(Hold::tenure(hold, until), Tenure::Lost);
        assert_eq!(Hold::tenure(None, Boottime(Duration::ZERO)), Tenure::Lost);
        assert!(Boottime::now() <= Boottime::now());
    }

    #[tokio::test]
    async fn the_guard_needs_nobody_to_tell_it() {
        let (hold, holds) = watch::channel(None);
        let (said, mut tenure) = watch::channel(Tenure::Lost);
        let _guard = crate::runtime::spawn("guard", guard(holds, said));
        let until = Boottime::now().after(Duration::from_millis(300));
        hold.send_replace(Some(Hold { since: 3, cluster: 1, until }));
        tenure.wait_for(|tenure| *tenure == Tenure::Held { since: 3, cluster: 1 }).await.unwrap();
        tenure.wait_for(|tenure| *tenure == Tenure::Lost).await.unwrap();
        assert!(Boottime::now() >= until);
        hold.send_replace(Some(Hold { since: 9, cluster: 1, until: Boottime::now().after(Duration::from_secs(60)) }));
        tenure.wait_for(|tenure| *tenure == Tenure::Held { since: 9, cluster: 1 }).await.unwrap();
        drop(hold);
        tenure.wait_for(|tenure| *tenure == Tenure::Lost).await.unwrap();
    }
}
