//! Tests of where a source stands.

use super::super::api::Receiving;
use super::known::later_of;
use super::*;
use crate::model::{BinlogPosition, GtidSet, Received};

fn at(offset: u64, last: u64) -> Location {
    let set = format!("9231c604-e680-11f1-ab28-628677c36cd1:1-{last}");
    let position = BinlogPosition::parse("b.000001", offset).unwrap();
    Location::new(position, GtidSet::parse(Flavor::MySql, &set).unwrap())
}

#[test]
fn a_source_stands_at_least_where_we_have_received_it() {
    let (early, late) = (at(100, 1), at(200, 2));
    let stands = |seen: &Location, received: &Location| later_of(Some(seen.clone()), Some(&Received(received.clone())));
    assert_eq!(stands(&early, &late), Some(late.clone()));
    assert_eq!(stands(&late, &early), Some(late.clone()));
    assert_eq!(later_of(Some(early.clone()), None), Some(early.clone()));
    assert_eq!(later_of(None, Some(&Received(late))), None, "a source that does not answer stands nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_panics_is_told_of_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = CheckpointDb::open(dir.path().join("checkpoint")).await.unwrap();
    let yaml = "source-id: s\nfrom: {host: 127.0.0.1, port: 1, user: u, password: p}\n";
    let config = SourceConfig::from_yaml(yaml).unwrap();
    let receive = ReceiveSpec {
        endpoint: crate::supervisor::endpoint::endpoint(&config.from, None),
        flavor: Flavor::MySql,
        enable_gtid: false,
        server_id: 7,
        replica_uuid: uuid::Uuid::nil(),
        report_host: String::new(),
    };
    let limits = RelayLimits { dir: dir.path().join("relay"), budget: 1 << 30, floor: 0 };
    let source = Source::open(config, receive, limits, db).await.unwrap();
    source.task_added();
    let at = Location::new(
        crate::model::BinlogPosition::parse("b.000001", 4).unwrap(),
        crate::model::GtidSet::empty(Flavor::MySql),
    );
    source.relay.start_at(at, "").await.unwrap();
    let dead = spawn("receive", async { panic!("a fault put in by the test") });
    while !dead.is_finished() {
        tokio::task::yield_now().await;
    }
    *lock(&source.receiver) = Some(dead);
    source.revive().await;
    let Receiving::Stopped { failure } = source.status().receiving else { panic!("{:?}", source.status()) };
    assert!(failure.message.contains("the receiver broke off"), "{failure}");
    // Not at once, in case it breaks off again, but when an operator asks, or after a while.
    source.revive().await;
    assert!(lock(&source.receiver).is_none());
    *lock(&source.faulted) = Some(SystemTime::now() - AFTER_FAULT);
    source.revive().await;
    assert!(lock(&source.receiver).is_some());
    source.close(true).await.unwrap();
}
