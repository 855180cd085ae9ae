//! TLS to both ends, with an authority made for the test: what fits works, what does not is refused with the file or name, and renewed
//! certificates are taken without a restart.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::support::agent::{Agent, AgentOptions};
use crate::support::docs::{SourceFile, TaskFile};
use crate::support::fixture::{Link, LinkOptions, shared_pair};
use crate::support::process::fresh_folder;
use crate::support::servers::{Kind, Server, ServerOptions, shared};

/// An authority, with its certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("make a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("sign itself");
        let folder = fresh_folder("ca");
        std::fs::write(folder.join("ca.pem"), issuer.pem()).expect("write the authority");
        Authority { issuer, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Writes `<file>.pem` and `<file>.key`: a certificate for `name`, valid until the end of that year.
    fn issue(&self, file: &Path, name: &str, until: i32) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().expect("make a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("sign");
        std::fs::write(file.with_extension("pem"), certificate.pem()).expect("write a certificate");
        std::fs::write(file.with_extension("key"), key.serialize_pem()).expect("write a key");
    }

    /// `security` of a client with a certificate of its own.
    fn security(&self) -> String {
        self.issue(&self.folder.join("client"), "agent", 2099);
        let file = |name: &str| self.file(name);
        format!(
            "  security:\n    ssl-ca: {}\n    ssl-cert: {}\n    ssl-key: {}\n",
            file("ca.pem"),
            file("client.pem"),
            file("client.key")
        )
    }
}

/// A server that lets the account `dm` in only with a certificate of this authority.
async fn server(kind: Kind, authority: &Authority) -> (Server, PathBuf) {
    let certificate = fresh_folder("cert").join("server");
    authority.issue(&certificate, "127.0.0.1", 2099);
    let path = |extension: &str| certificate.with_extension(extension).display().to_string();
    let args = vec![
        format!("--ssl-ca={}", authority.file("ca.pem")),
        format!("--ssl-cert={}", path("pem")),
        format!("--ssl-key={}", path("key")),
    ];
    let server = Server::start(kind, &ServerOptions { args, ..ServerOptions::default() }).await;
    server.root().await.run("ALTER USER 'dm'@'%' REQUIRE X509").await;
    (server, certificate)
}

/// Has the server read its certificate again.
async fn reload(server: &Server) {
    let sql = match server.kind {
        Kind::MySql => "ALTER INSTANCE RELOAD TLS",
        Kind::MariaDb => "FLUSH SSL",
    };
    server.root().await.run(sql).await;
}

/// Ends all connections of the account.
async fn disconnect(server: &Server) {
    let mut root = server.root().await;
    for row in root.texts("SELECT id FROM information_schema.processlist WHERE user = 'dm'").await {
        // It may have gone by itself.
        let _ = root.try_run(&format!("KILL {}", row[0])).await;
    }
}

async fn both_ends(source: Kind, target: Kind) {
    let (mut up, mut down) = (Authority::new("up"), Authority::new("down"));
    let (source, source_files) = server(source, &up).await;
    let (target, target_files) = server(target, &down).await;
    let options =
        LinkOptions { source_extra: up.security(), target_session: down.security(), ..LinkOptions::default() };
    let mut link = Link::start("tls", &source, &target, &options).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    link.wait_equal().await;
    // New authorities and certificates in the same files, on both sides.
    for (authority, server, files) in [(&mut up, &source, &source_files), (&mut down, &target, &target_files)] {
        let folder = authority.folder.clone();
        *authority = Authority { folder: folder.clone(), ..Authority::new("renewed") };
        std::fs::write(folder.join("ca.pem"), authority.issuer.pem()).expect("write the authority");
        authority.issue(files, "127.0.0.1", 2099);
        authority.issue(&folder.join("client"), "agent", 2099);
        reload(server).await;
        disconnect(server).await;
    }
    link.source.run("INSERT INTO t VALUES (2)").await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

#[tokio::test]
async fn mysql_to_mariadb_over_tls() {
    both_ends(Kind::MySql, Kind::MariaDb).await;
}

#[tokio::test]
async fn mariadb_to_mysql_over_tls() {
    both_ends(Kind::MariaDb, Kind::MySql).await;
}

/// A MySQL with the certificates that it makes for itself, as source and as target, at the address where a dm-worker takes them.
#[tokio::test]
async fn a_mysqls_own_certificates_will_do_on_this_machine() {
    let (source, target) = shared_pair(Kind::MySql, Kind::MySql).await;
    let security =
        |server: &Server| format!("  security:\n    ssl-ca: {}\n", server.folder.join("data/ca.pem").display());
    let (source_extra, target_session) = (security(&source), security(&target));
    let options = LinkOptions { source_extra, target_session, ..LinkOptions::default() };
    let mut link = Link::start("owntls", &source, &target, &options).await;
    link.source.run_all(["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    link.wait_equal().await;
    link.agent.assert_quiet_log();
}

/// Each thing that does not fit, for a source and for a downstream: refused at once, with what it is and what to do.
async fn what_does_not_fit(kind: Kind) {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (server, files) = server(kind, &ours).await;
    let good = ours.security();
    let ca = ours.file("ca.pem");
    let no_certificate = format!("  security:\n    ssl-ca: {ca}\n");
    let named = |name: &str| format!("{good}    cert-allowed-cn: [{name}]\n");
    let nowhere = good.replace("client.key", "nowhere.key");
    type Case<'a> = (&'a str, String, (&'a str, i32), &'a [&'a str]);
    // What is asked for, what the server shows, and what must be said; nothing for what must work.
    let cases: [Case<'_>; 9] = [
        ("fits", good.clone(), ("127.0.0.1", 2099), &[]),
        ("no TLS", String::new(), ("127.0.0.1", 2099), &["1045", "password"]),
        ("no certificate of ours", no_certificate, ("127.0.0.1", 2099), &["1045"]),
        ("an authority that did not sign", good.replace(&ca, &other.file("ca.pem")), ("127.0.0.1", 2099), &["ssl-ca"]),
        ("expired", good.clone(), ("127.0.0.1", 2021), &["xpired"]),
        ("another name", good.clone(), ("db.example", 2099), &["name", "cert-allowed-cn"]),
        ("a name that is allowed", named("db.example"), ("db.example", 2099), &[]),
        ("a name that is not allowed", named("else.example"), ("db.example", 2099), &["name", "cert-allowed-cn"]),
        ("a file that is missing", nowhere, ("127.0.0.1", 2099), &["nowhere.key", "ssl-key"]),
    ];
    let mut agent = Agent::start(&AgentOptions::default()).await;
    // Tasks that cannot reach their downstream.
    agent.expect_error("connect to dm@");
    // A source without TLS, so that a downstream can be spoilt alone.
    let args = if kind == Kind::MariaDb { vec!["--skip-ssl".to_owned()] } else { Vec::new() };
    let plain = shared(kind, &ServerOptions { args, ..ServerOptions::default() }).await;
    let path = agent.file("plain.yaml", &SourceFile::new("plain", kind, plain.port).yaml());
    agent.ctl(&["operate-source", "create", &path]).await.expect_success();
    let task_to = |source: &str, port: u16, security: &str| {
        let target_extra = security.to_owned();
        let task = TaskFile { schemas: vec!["d".into()], target_extra, ..TaskFile::new("t", source, port) };
        agent.file("task.yaml", &task.yaml())
    };
    for (what, security, (name, until), words) in cases {
        if kind == Kind::MySql && until < 2026 {
            // MySQL does not take such a certificate.
            continue;
        }
        ours.issue(&files, name, until);
        reload(&server).await;
        let source = SourceFile { extra: security.clone(), ..SourceFile::new("s", kind, server.port) };
        let path = agent.file("source.yaml", &source.yaml());
        let answer = agent.ctl(&["operate-source", "create", &path]).await;
        println!("{what}: {}", answer.text());
        if !words.is_empty() {
            answer.expect_refusal(words);
            let answer = agent.ctl(&["start-task", &task_to("plain", server.port, &security)]).await;
            println!("{what}, downstream: {}", answer.text());
            answer.expect_refusal(words);
            answer.expect_refusal(&[&server.port.to_string()]);
            agent.ctl(&["stop-task", "t"]).await;
            continue;
        }
        answer.expect_success();
        agent.ctl(&["start-task", &task_to("s", server.port, &security)]).await.expect_success();
        agent.ctl(&["stop-task", "t"]).await.expect_success();
        agent.ctl(&["operate-source", "stop", "-s", "s"]).await.expect_success();
    }
    // A server that has no TLS (MariaDB), or a certificate without any name (MySQL's own): where a dm-worker checks nothing it
    // will do, if it is of this authority.
    let own = format!("  security:\n    ssl-ca: {}\n", plain.folder.join("data/ca.pem").display());
    let foreign = format!("  security:\n    ssl-ca: {ca}\n");
    let (security, words) = match kind {
        Kind::MariaDb => (foreign, ["server has no TLS", "remove `security`"]),
        Kind::MySql => {
            agent.ctl(&["start-task", &task_to("plain", plain.port, &own)]).await.expect_success();
            agent.ctl(&["stop-task", "t"]).await.expect_success();
            let text = std::fs::read_to_string(task_to("plain", plain.port, &own)).expect("the task's file");
            let text = text.replace("127.0.0.1", "localhost");
            let path = agent.file("localhost.yaml", &text);
            agent.ctl(&["start-task", &path]).await.expect_refusal(&["carries no name", "`ssl-ca`"]);
            (foreign, ["UnknownIssuer", "`ssl-ca`"])
        }
    };
    agent.ctl(&["start-task", &task_to("plain", plain.port, &security)]).await.expect_refusal(&words);
    let source = SourceFile { extra: security, ..SourceFile::new("s", kind, plain.port) };
    let path = agent.file("source.yaml", &source.yaml());
    agent.ctl(&["operate-source", "create", &path]).await.expect_refusal(&words);
    assert_eq!(agent.get("/healthz").await.status, 200);
    agent.assert_quiet_log();
}

#[tokio::test]
async fn what_does_not_fit_mysql() {
    what_does_not_fit(Kind::MySql).await;
}

#[tokio::test]
async fn what_does_not_fit_mariadb() {
    what_does_not_fit(Kind::MariaDb).await;
}
