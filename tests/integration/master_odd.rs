//! Things that make no sense, from everyone who can say something to a worker: values in etcd, masters, and whoever finds
//! `worker-addr`. The agent says what is wrong, stays up, and does what does make sense.

use std::time::{Duration, Instant};

use dm_agent::control::proto::pb;
use rand::{Rng, RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::agent::AgentOptions;
use crate::support::cluster::{ClusterLink, WORKER};
use crate::support::etcd::{delete, put_bytes};
use crate::support::eventually;
use crate::support::fixture::shared_pair;
use crate::support::mini_master::{MiniMaster, key};
use crate::support::process::{free_port, fresh_folder};
use crate::support::proxy::Proxy;
use crate::support::servers::Kind;

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("SEED={seed}");
    seed
}

/// Every key that a worker reads, with values of no sense, while a task runs: it runs on, and what is right again is taken.
#[tokio::test]
async fn values_of_no_sense_disturb_no_other_task() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mvalues", &source, &target, 60).await;
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed());
    let (id, task) = (link.source_id.clone(), link.task.clone());
    let mut noise = vec![0; 300_000];
    rng.fill_bytes(&mut noise);
    let starts = link.agent.status().await["tasks"][0]["starts"].clone();
    let etcd = link.master.etcd.read().await;
    // Another task of the same source: all of these are of it, or of nobody.
    let config = key("/dm-master/upstream/subtask/", &[&id, "t_odd"]);
    let stage = key("/dm-master/stage/subtask/", &[&id, "t_odd"]);
    let values: &[&[u8]] = &[
        b"",
        b"\0",
        b"null",
        b"[]",
        b"{}",
        b"{\"expect\":\"Running\"}",
        b"{\"expect\":99999999999999999999}",
        b"{\"expect\":2,\"source\":7}",
        b"\xff\xfe\xff",
        b"name = \"t_odd\"\n[[[",
        b"name = 7",
        &noise,
    ];
    for value in values {
        etcd.write(vec![put_bytes(&config, value), put_bytes(&stage, b"{\"expect\":2}")]).await;
        etcd.write(vec![put_bytes(&stage, value)]).await;
        etcd.write(vec![put_bytes(&key("/dm-master/task-cli-args/", &["t_odd", &id]), value)]).await;
        etcd.write(vec![put_bytes(&key("/dm-master/v2/stage/relay/", &[&id]), value)]).await;
        etcd.write(vec![put_bytes(&key("/dm-master/stage/validator/", &[&id, &task]), value)]).await;
        let answer = link.master.query(WORKER, "").await.expect("QueryStatus");
        let ours = answer.sub_task_status.iter().find(|status| status.name == task);
        assert_eq!(ours.expect("never gone").stage(), pb::Stage::Running, "{:?}", &value[..value.len().min(40)]);
    }
    for name in ["", "zz", "2f2f", "ff", "00/zz", "746f/"] {
        for prefix in ["/dm-master/stage/subtask/", "/dm-master/upstream/subtask/"] {
            let of_source = format!("{}/{name}", key(prefix, &[&id]));
            etcd.write(vec![put_bytes(&of_source, b"{\"expect\":2}")]).await;
        }
    }
    drop(etcd);
    link.insert(2).await;
    link.wait_equal().await;
    assert_eq!(
        link.agent.status().await["tasks"]
            .as_array()
            .and_then(|all| { all.iter().find(|one| one["name"] == task.as_str()).map(|one| one["starts"].clone()) }),
        Some(starts),
        "it was begun anew"
    );
    link.pause().await.expect_quick();
    link.resume().await.expect_quick();
    // The bound itself: while it makes no sense, what was is held.
    for value in [&b"?"[..], b"{}", b"{\"source\":\"nobody-has-it\",\"worker\":\"worker1\"}", &noise] {
        let etcd = link.master.etcd.read().await;
        etcd.write(vec![put_bytes(&key("/dm-master/bound-worker/", &[WORKER]), value)]).await;
        drop(etcd);
        link.master.query(WORKER, "").await.expect("it answers");
    }
    link.master.repeat_bounds().await;
    let etcd = link.master.etcd.read().await;
    etcd.write(vec![delete(&config), delete(&stage), delete(&key("/dm-master/v2/stage/relay/", &[&id]))]).await;
    drop(etcd);
    link.wait_for("it runs", |status| status.stage() == pb::Stage::Running).await;
    link.insert(2).await;
    link.wait_equal().await;
    assert!(!link.agent.log().contains("panicked"), "{}", link.agent.log());
}

/// Whoever answers at `join` is no master: the agent says so in DM's words, and ends with 2; it never takes it for one.
#[tokio::test]
async fn what_answers_at_join_is_no_master() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let port = listener.local_addr().expect("an address").port();
    let serving = tokio::spawn(async move {
        for turn in 0_u32.. {
            let (mut stream, _) = listener.accept().await.expect("accept");
            tokio::spawn(async move {
                match turn % 4 {
                    0 => drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await),
                    1 => drop(stream.write_all(&[0x41; 70_000]).await),
                    // The beginning of HTTP/2, and then a frame that claims 16 MiB.
                    2 => drop(stream.write_all(b"\0\0\0\x04\0\0\0\0\0\xff\xff\xff\0\0\0\0\0\x01aaaa").await),
                    _ => while stream.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {},
                }
            });
        }
    });
    let folder = fresh_folder("no-master");
    let config = folder.join("dm-agent.toml");
    let text = format!(
        "name = \"w\"\nworker-addr = \"127.0.0.1:{}\"\njoin = \"127.0.0.1:{port}\"\n[agent]\nstate-dir = \"{dir}/state\"\n\
         admin-socket = \"{dir}/admin.sock\"\n",
        free_port(),
        dir = folder.display()
    );
    std::fs::write(&config, text).expect("write a configuration");
    let began = Instant::now();
    let answer = crate::support::agent::run_daemon(&["--config", &config.display().to_string()]).await;
    assert_eq!(answer.exit, Some(2), "{answer:?}");
    assert!(answer.text().contains("code=40077") && answer.text().contains("cannot join"), "{answer:?}");
    assert!(!answer.text().contains("panicked") && began.elapsed() < Duration::from_secs(60), "{answer:?}");
    serving.abort();
}

/// A master that goes mad behind a worker's back: its answers are no answers. Nothing is applied without a lease, and when it is
/// itself again all goes on.
#[tokio::test]
async fn a_master_that_goes_mad_is_a_lost_one() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let (master, proxy): (MiniMaster, Proxy) = MiniMaster::start_behind().await;
    let top = format!("join = \"127.0.0.1:{}\"\nkeepalive-ttl = 6\n", proxy.port);
    let options = AgentOptions { name: WORKER.into(), top, ..AgentOptions::default() };
    let front: u16 = master.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let mut link = ClusterLink::start_in("mmad", &source, &target, master, &options).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let mad = listener.local_addr().expect("an address").port();
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed());
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut noise = vec![0; rng.random_range(1..40_000)];
            rng.fill_bytes(&mut noise);
            // Some look like HTTP/2 at first.
            if rng.random_bool(0.5) {
                noise.splice(0..0, *b"\0\0\0\x04\0\0\0\0\0");
            }
            tokio::spawn(async move {
                let _ = stream.write_all(&noise).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            });
        }
    });
    proxy.lead_to(mad);
    eventually("fenced", Duration::from_secs(7), async || {
        let status = link.agent.status().await;
        if status["tasks"][0]["stage"] == "Paused" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let rows = link.target_rows().await;
    link.insert(2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(link.target_rows().await, rows);
    proxy.lead_to(front);
    link.wait_for("it runs again", |status| status.stage() == pb::Stage::Running).await;
    link.wait_equal().await;
    serving.abort();
    link.agent.assert_quiet_log();
}

/// One gRPC call over HTTP/2 in plain: its frames as given.
async fn frames(address: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let mut headers = vec![0x83, 0x86]; // POST, http
    let mut literal = |name: &str, value: &str| {
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).expect("short"));
            headers.extend(text.as_bytes());
        }
    };
    literal(":path", path);
    literal(":authority", "x");
    literal("content-type", "application/grpc");
    literal("te", "trailers");
    let frame = |kind: u8, flags: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    };
    out.extend(frame(1, 4, &headers));
    let mut parts = body.chunks(16_000).peekable();
    while let Some(part) = parts.next() {
        out.extend(frame(0, u8::from(parts.peek().is_none()), part));
    }
    let mut stream = TcpStream::connect(address).await.expect("connect");
    let _ = stream.write_all(&out).await;
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(3), stream.read(&mut answer)).await;
    answer.truncate(read.ok().and_then(Result::ok).unwrap_or(0));
    answer
}

/// Random, oversized, cut and malformed requests at `worker-addr`, of gRPC and of HTTP, many at once: the agent stays up and
/// small, and a master is answered as before.
#[tokio::test]
async fn whatever_comes_to_the_port_hurts_nobody() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MariaDb).await;
    let mut link = ClusterLink::start("mbytes", &source, &target, 60).await;
    let address = link.agent.worker_addr();
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed());
    let before = link.agent.rss_kb();
    // Messages: a length that lies, one that is compressed and is not, fields that are cut, of unknown kinds, strings that are
    // no text.
    let bodies: [&[u8]; 8] = [
        b"\0\xff\xff\xff\xff\x0a",
        b"\x01\0\0\0\x02\x0a\0",
        b"\0\0\0\0\x02\x0a\x7f",
        b"\0\0\0\0\x03\x0a\x01\xff",
        b"\x07\0\0\0\0",
        b"\0\0\0\0\x0b\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0",
        b"",
    ];
    for body in bodies {
        for method in ["QueryStatus", "HandleError", "OperateSchema", "CheckSubtasksCanUpdate", "PurgeRelay"] {
            frames(&address, &format!("/pb.Worker/{method}"), body).await;
        }
    }
    let mut large = b"\0\x01\xff\xff\xff".to_vec();
    large.resize(40 << 20, 0x0a);
    frames(&address, "/pb.Worker/QueryStatus", &large).await;
    for _ in 0..60 {
        let mut noise = vec![0; rng.random_range(1..3000)];
        rng.fill_bytes(&mut noise);
        match rng.random_range(0..3) {
            0 => noise.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").for_each(drop),
            1 => noise.splice(0..0, *b"GET /status HTTP/1.1\r\n").for_each(drop),
            _ => {}
        }
        let mut stream = TcpStream::connect(&address).await.expect("connect");
        let _ = stream.write_all(&noise).await;
        let _ = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0; 256])).await;
    }
    // Malformed HTTP: methods, versions, lengths, lines without an end, a head that does not end.
    for head in [
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "\r\n\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET /status HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_owned(),
        "POST /status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
        "GET /status HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000)),
        format!("GET /status HTTP/1.1\r\n{}\r\n", "h: v\r\n".repeat(5000)),
        "GET /status HTTP/1.1\nHost: \0\n\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(&address).await.expect("connect");
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = vec![0; 512];
        let read = tokio::time::timeout(Duration::from_secs(3), stream.read(&mut answer)).await;
        // Empty lines may stand before a request, which is then waited for.
        let waits = head.trim().is_empty();
        assert_eq!(read.is_err(), waits, "{:?}", &head[..head.len().min(60)]);
        let Ok(read) = read else { continue };
        let text = String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned();
        assert!(text.is_empty() || text.starts_with("HTTP/1."), "{text}");
        assert!(
            !text.starts_with("HTTP/1.1 200") || head.contains("\n\n") || head.starts_with("POST"),
            "{head:.60}: {text}"
        );
    }
    // Connections that say nothing, more than are let in: when they go, there is room again.
    let mut idle = Vec::new();
    for _ in 0..150 {
        idle.push(TcpStream::connect(&address).await.expect("connect"));
    }
    drop(idle);
    link.insert(2).await;
    link.wait_equal().await;
    eventually("a master is answered", Duration::from_secs(10), async || {
        let answer = link.master.query(WORKER, &link.task).await.map_err(|status| status.to_string())?;
        if answer.result { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    link.pause().await.expect_quick();
    let grown = link.agent.peak_rss_kb().saturating_sub(before);
    assert!(grown < 100_000, "{grown} KiB more than before");
    link.agent.assert_quiet_log();
}
