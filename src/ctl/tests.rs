//! The grammar, and what a wrong command line says.

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("dm-agentctl").chain(line.split(' ')))
}

#[test]
fn the_grammar_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_recorded_command_lines_are_understood() {
    let mut understood = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/dmctl")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let line = text.lines().next().unwrap().strip_prefix("$ dmctl ").unwrap().to_owned();
        let accepted = text.trim_end().ends_with("# exit 0");
        // The old aliases, validation, and lines whose quoting the recording does not keep.
        let left_out = ["validation", "handle-error", "operate-schema", "show-ddl-locks"];
        if !accepted || left_out.iter().any(|c| line.starts_with(c)) || line.contains("--start-time 2") {
            continue;
        }
        let cli = parse(&line).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        check_usage(&cli).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        understood += 1;
    }
    assert!(understood > 100, "only {understood} command lines found");
}

#[test]
fn switches_may_be_written_as_in_go() {
    let parse = |line: &str| {
        let words = std::iter::once("dm-agentctl").chain(line.split(' ')).map(OsString::from);
        Cli::try_parse_from(args::gos_switches(words))
    };
    for (line, expected) in [("start-task t --remove-meta=true", true), ("start-task t --remove-meta=false", false)] {
        let Command::StartTask { remove_meta, .. } = parse(line).unwrap().command else { panic!("{line}") };
        assert_eq!(remove_meta, expected, "{line}");
    }
    for (flag, expected) in [("", true), (" --flush", true), (" --flush=false", false), (" --sync --flush=true", true)]
    {
        let line = format!("binlog-schema update t1 d t{flag} f.sql -s a");
        let parsed = parse(&line).unwrap_or_else(|error| panic!("{line}: {error}")).command;
        let Command::BinlogSchema(args::SchemaCommand::Update { flush, file, .. }) = parsed else { panic!("{line}") };
        assert_eq!((flush, file.as_deref()), (expected, Some(Path::new("f.sql"))), "{line}");
    }
    // Takes a value elsewhere: left as it is.
    assert!(parse("operate-source create f.yaml --worker=true").is_ok());
    assert!(parse("start-task t --remove-meta=perhaps").is_err());
}

#[test]
fn a_command_without_its_task_explains_itself() {
    for command in ["pause-task", "resume-task", "stop-task"] {
        let error = check_usage(&parse(command).unwrap()).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.exit_code(), 1);
        assert!(text.starts_with("give a task, or one source with -s") && text.contains("Examples:"), "{text}");
        assert!(text.contains(&format!("Usage: dm-agentctl {command} ")), "{text}");
    }
    assert!(check_usage(&parse("pause-task -s a,b").unwrap()).is_err());
    assert!(check_usage(&parse("pause-task -s a").unwrap()).is_ok());
    assert!(check_usage(&parse("purge-relay -f mysql-bin.000002").unwrap()).is_err());
}

#[test]
fn wrong_lines_exit_with_one_and_help_with_zero() {
    let code =
        |line: &str| format!("{:?}", main(std::iter::once("dm-agentctl").chain(line.split(' ')).map(OsString::from)));
    let (zero, one) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::from(1)));
    assert_eq!(code("pause-task --help"), zero);
    assert_eq!(code("no-such-command"), one);
    assert_eq!(code("pause-task t1 --socket /nonexistent/admin.sock"), one);
    assert_eq!(code("status --socket /nonexistent/admin.sock --master-addr x:1"), one);
}

#[tokio::test]
async fn commands_that_need_nobody_print_without_a_connection() {
    let mut out = Vec::new();
    let verdict = run(parse("completions bash").unwrap(), &mut out).await.unwrap();
    assert_eq!(verdict, Verdict::Done);
    assert!(String::from_utf8(out).unwrap().contains("pause-task"));
    let mut out = Vec::new();
    run(parse("operate-source -p").unwrap(), &mut out).await.unwrap();
    assert!(String::from_utf8(out).unwrap().contains("source-id:"));
}

#[test]
fn a_failed_source_is_a_refusal() {
    let source = |result| CommonWorkerResponse { result, ..Default::default() };
    assert_eq!(Verdict::of(true, &[source(true)]), Verdict::Done);
    assert_eq!(Verdict::of(true, &[source(true), source(false)]), Verdict::Refused);
    assert_eq!(Verdict::of(false, &[]), Verdict::Refused);
}

/// Runs a command against a real socket with a backend double behind it.
async fn against_an_agent(line: &str) -> (Result<Verdict, CtlError>, String) {
    use crate::control::master_api::tests::Double;
    use crate::control::pb_status::tests::{agent, running_task, source};
    use crate::control::{AdminServer, AdminSocket};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let double = Double::new(agent(vec![source()], vec![running_task()]));
    let server = AdminServer::start(AdminSocket::bind(&path).unwrap(), None, double).unwrap();
    let mut out = Vec::new();
    let cli = parse(&format!("{line} --socket {}", path.display())).unwrap();
    let verdict = run(cli, &mut out).await;
    drop(server);
    (verdict, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn answers_over_a_socket_are_those_of_dmctl() {
    for (line, recording, verdict) in [
        ("pause-task t1", "pause-task", Verdict::Done),
        ("resume-task t1", "resume-task", Verdict::Done),
        ("stop-task t1", "stop-task", Verdict::Done),
        ("pause-task nope", "pause-task-nonexistent", Verdict::Refused),
        ("pause-task t1 -s wrong-source", "pause-task-wrong-source", Verdict::Refused),
        ("pause-task -s mysql-01", "pause-task-s", Verdict::Done),
        ("resume-task -s mysql-01", "resume-task-s", Verdict::Done),
        ("query-status", "query-status-10-list-running", Verdict::Done),
        ("query-status nope", "query-status-02-unknown-task", Verdict::Refused),
        ("operate-source show", "operate-source-show-01", Verdict::Done),
        ("pause-relay -s mysql-01", "pause-relay", Verdict::Done),
        ("start-relay -s mysql-01", "start-relay-no-worker", Verdict::Done),
        ("purge-relay -s mysql-01 --filename mysql-bin.000006", "purge-relay-ok", Verdict::Done),
        ("get-config task t9", "get-config-task-unknown", Verdict::Refused),
        ("binlog-schema delete t1 d1 t -s mysql-01", "binlog-schema-delete", Verdict::Done),
        ("binlog-schema update t1 d1 t --from-source -s mysql-01", "binlog-schema-update-from-source", Verdict::Done),
    ] {
        let path = format!("{}/tests/golden/dmctl/{recording}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let golden = &text[text.find("\n{\n").unwrap() + 1..text.rfind("\n}\n").unwrap() + 3];
        let (answer, out) = against_an_agent(line).await;
        assert_eq!(out, golden, "{line}");
        assert_eq!(answer.unwrap(), verdict, "{line}");
    }
}

#[tokio::test]
async fn our_own_commands_answer_over_a_socket() {
    let (_, screen) = against_an_agent("status").await;
    assert!(screen.contains("TASK t1 on mysql-01: Running"), "{screen}");
    let (_, json) = against_an_agent("status --json").await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["worker"], "worker1");
    let (_, level) = against_an_agent("log-level debug").await;
    assert_eq!(level, "log level is now debug\n");
    assert_eq!(against_an_agent("events").await.1, "");
    let (refused, _) = against_an_agent("shard-ddl-lock").await;
    assert_eq!(refused.unwrap_err().exit_code(), 2);
}

/// dmctl's own help, as recorded, names every command that a script may use.
#[test]
fn every_command_of_dmctl_is_there() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/help");
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let line = text.lines().next().unwrap().to_owned();
        let command = line.strip_prefix("# dmctl ").unwrap_or_default().trim_end_matches("--help").trim().to_owned();
        // Commands that its list shows, also where no help of theirs was recorded.
        let listed = text.lines().skip_while(|line| *line != "Available Commands:").skip(1);
        for line in listed.take_while(|line| line.starts_with("  ")) {
            let name = line.split_whitespace().next().unwrap();
            names.push(format!("{command} {name}").trim().to_owned());
        }
        names.push(command);
    }
    assert!(names.len() > 60, "{names:?}");
    for name in names.iter().filter(|name| !name.is_empty() && *name != "help") {
        let words = std::iter::once("dm-agentctl").chain(name.split_whitespace()).chain(["--help"]);
        let error = Cli::try_parse_from(words).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{name}: {error}");
    }
}

/// What an agent that stands alone cannot do, it says, with what to do instead; the exit code is 2.
#[tokio::test]
async fn what_makes_no_sense_without_a_cluster_is_answered_with_a_sentence() {
    for (line, said) in [
        ("shard-ddl-lock", "does not merge shards"),
        ("show-ddl-locks", "does not merge shards"),
        ("shard-ddl-lock unlock l", "does not merge shards"),
        ("unlock-ddl-lock l", "does not merge shards"),
        ("validation start t1", "does not validate"),
        ("validation stop --all-task", "does not validate"),
        ("validation status t1", "does not validate"),
        ("validation show-error t1", "does not validate"),
        ("validation ignore-error t1 --all", "does not validate"),
        ("validation update t1", "does not validate"),
        ("offline-member --worker --name w", "ask a dm-master"),
        ("operate-leader evict", "ask a dm-master"),
        ("encrypt x", "ask a dm-master"),
        ("decrypt x", "ask a dm-master"),
    ] {
        let (answer, out) = against_an_agent(line).await;
        let error = answer.unwrap_err();
        assert_eq!((error.exit_code(), out.as_str()), (2, ""), "{line}: {error}");
        assert!(error.to_string().contains(said), "{line}: {error}");
    }
    for line in [
        "binlog skip t1 -b mysql-bin.000001:4",
        "handle-error t1 skip",
        "binlog-schema list t1 d t -s mysql-01",
        "operate-schema get t1 -d d -t t -s mysql-01",
    ] {
        let (answer, out) = against_an_agent(line).await;
        assert_eq!(answer.unwrap(), Verdict::Done, "{line}: {out}");
    }
    let (answer, out) = against_an_agent("binlog skip nope").await;
    let recorded = include_str!("../../tests/golden/dmctl/binlog-skip-notask.txt");
    let recorded = recorded.split_once('\n').unwrap().1.split_once("# exit").unwrap().0;
    assert_eq!((answer.unwrap(), out.trim()), (Verdict::Refused, recorded.trim()));
    let (answer, out) = against_an_agent("config source nope").await;
    assert_eq!(answer.unwrap(), Verdict::Refused, "{out}");
}
