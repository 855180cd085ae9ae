//! The agent under test, as a process, and `dm-agentctl` beside it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::eventually;
use super::process::{Process, copy_folder, free_port, fresh_folder, read_lossy, tail};
use super::socket;

/// How long a start, a recovery included, may take until the agent says it is ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a drained stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long one command of `dm-agentctl` may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// `name`: the worker's name in every answer.
    pub name: String,
    /// `log-level`.
    pub log_level: &'static str,
    /// Further top-level lines of `dm-agent.toml`.
    pub top: String,
    /// Further lines of its `[agent]` table.
    pub agent: String,
    /// `state-dir`; a folder of the run by default.
    pub state_dir: Option<PathBuf>,
    /// A state folder to begin with a copy of.
    pub state: Option<PathBuf>,
    /// Environment of its process.
    pub env: Vec<(String, String)>,
}

impl Default for AgentOptions {
    fn default() -> AgentOptions {
        AgentOptions {
            name: "worker1".into(),
            log_level: "debug",
            top: String::new(),
            agent: String::new(),
            state_dir: None,
            state: None,
            env: Vec::new(),
        }
    }
}

/// What `dm-agentctl` said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The command, for messages.
    pub command: String,
    /// Exit code; `None` if it was killed.
    pub exit: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// The output as JSON; lines before the first brace (warnings, as DM prints them) are left out.
    pub fn json(&self) -> Value {
        let start = self.stdout.find('{').unwrap_or_else(|| panic!("no JSON from {self:?}"));
        serde_json::from_str(&self.stdout[start..]).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Whether the answer and every source in it say `"result": true`.
    pub fn succeeded(&self) -> bool {
        let is_true = |value: &Value| value["result"] == Value::Bool(true);
        let json = self.json();
        is_true(&json) && json["sources"].as_array().is_none_or(|sources| sources.iter().all(is_true))
    }

    /// Panics unless it succeeded.
    #[track_caller]
    pub fn expect_success(&self) -> &Answer {
        assert!(self.succeeded(), "{} was refused: {self:#?}", self.command);
        self
    }

    /// Everything printed.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// Panics unless it was refused with all these words in the message.
    #[track_caller]
    pub fn expect_refusal(&self, words: &[&str]) {
        let refused = self.exit != Some(0) || !self.succeeded();
        assert!(refused, "was to be refused: {self:#?}");
        for word in words {
            assert!(self.text().contains(word), "the refusal does not say {word:?}: {self:#?}");
        }
    }
}

/// A running agent with its state folder. Dropping it kills the process.
pub struct Agent {
    folder: PathBuf,
    state_dir: PathBuf,
    config: PathBuf,
    env: Vec<(String, String)>,
    process: Process,
    /// Fragments of ERROR lines that the test provokes.
    expected_errors: Vec<String>,
}

impl Agent {
    /// Starts an agent in a folder of its own and waits until it is ready.
    pub async fn start(options: &AgentOptions) -> Agent {
        let folder = fresh_folder("agent");
        let config = folder.join("dm-agent.toml");
        let state_dir = options.state_dir.clone().unwrap_or_else(|| folder.join("state"));
        let text = format!(
            "name = \"{}\"\nworker-addr = \"127.0.0.1:{}\"\nlog-level = \"{}\"\n{}\n\
             [agent]\nstate-dir = \"{state}\"\nadmin-socket = \"{folder}/admin.sock\"\n{}\n",
            options.name,
            free_port(),
            options.log_level,
            options.top,
            options.agent,
            state = state_dir.display(),
            folder = folder.display(),
        );
        std::fs::write(&config, text).expect("write dm-agent.toml");
        if let Some(state) = &options.state {
            copy_folder(state, &state_dir);
        }
        let env = options.env.clone();
        let process = launch(&folder, &config, &env);
        let mut agent = Agent { folder, state_dir, config, env, process, expected_errors: Vec::new() };
        agent.wait_until_ready().await;
        agent
    }

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// The state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone()
    }

    /// Runs `dm-agentctl` with these arguments.
    pub async fn ctl(&self, args: &[&str]) -> Answer {
        run_ctl(&self.socket(), args).await
    }

    /// Writes a file into the agent's folder and gives its path as text, for `ctl`.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("write a file");
        path.display().to_string()
    }

    /// Runs the daemon's program once with these arguments, as a second instance would be.
    pub async fn run_daemon(&self, args: &[&str]) -> Answer {
        run_daemon(args).await
    }

    /// `worker-addr`.
    pub fn worker_addr(&self) -> String {
        let text = read_lossy(&self.config);
        let line = text.lines().find_map(|line| line.strip_prefix("worker-addr = \""));
        line.expect("worker-addr is set").trim_end_matches('"').to_owned()
    }

    /// The configuration file's path.
    pub fn config(&self) -> String {
        self.config.display().to_string()
    }

    /// GET on the admin socket.
    pub async fn get(&self, path: &str) -> socket::HttpAnswer {
        socket::get(&self.socket(), path).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// The agent's own status.
    pub async fn status(&self) -> Value {
        let answer = self.get("/status").await;
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error} in /status: {}", answer.body))
    }

    /// Its only source's part of that.
    pub async fn source_status(&self) -> Value {
        self.status().await["sources"][0].clone()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// kill -9, without a new start.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: rustix::process::Signal) {
        self.process.signal(signal);
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate(STOP_LIMIT)
    }

    /// Starts it again on the same state (killing it first if it runs) and waits until it is ready.
    pub async fn restart(&mut self) {
        self.process.kill9();
        self.process = launch(&self.folder, &self.config, &self.env);
        self.wait_until_ready().await;
    }

    /// Starts it again on the same state; how it ended where it did not become ready.
    pub async fn try_restart(&mut self) -> Result<(), ExitStatus> {
        self.process.kill9();
        self.process = launch(&self.folder, &self.config, &self.env);
        self.ready_or_ended().await
    }

    /// Resident memory in KiB.
    pub fn rss_kb(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The highest resident memory of this process so far, in KiB.
    pub fn peak_rss_kb(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, key: &str) -> u64 {
        let status = read_lossy(Path::new(&format!("/proc/{}/status", self.pid())));
        let line = status.lines().find(|line| line.starts_with(key));
        let number = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|word| word.parse().ok());
        number.unwrap_or_else(|| panic!("{key} of process {} is not known: has it ended?", self.pid()))
    }

    /// The log of all its starts.
    pub fn log(&self) -> String {
        self.process.log_text()
    }

    /// Says that an ERROR line with this fragment is what the test provokes.
    pub fn expect_error(&mut self, fragment: &str) {
        self.expected_errors.push(fragment.into());
    }

    /// Panics if the log has a panic or an ERROR line nobody expected: ERROR means that a human must act.
    pub fn assert_quiet_log(&self) {
        let log = self.log();
        let bad: Vec<&str> = log.lines().filter(|line| is_alarm(line, &self.expected_errors)).collect();
        assert!(bad.is_empty(), "unexpected in the agent's log:\n{}", bad.join("\n"));
    }

    async fn wait_until_ready(&mut self) {
        if let Err(status) = self.ready_or_ended().await {
            panic!("the agent ended at its start ({status}):\n{}", tail(&self.log(), 40));
        }
    }

    async fn ready_or_ended(&mut self) -> Result<(), ExitStatus> {
        let socket = self.socket();
        let process = &mut self.process;
        eventually("the agent is ready or has ended", READY_LIMIT, async || {
            if let Some(status) = process.exit_status() {
                return Ok(Err(status));
            }
            match socket::get(&socket, "/readyz").await {
                Ok(answer) if answer.status == 200 => Ok(Ok(())),
                Ok(answer) => Err(format!("/readyz: {} {}", answer.status, answer.body)),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

fn is_alarm(line: &str, expected: &[String]) -> bool {
    // In a line of text the level is the first word, or the second behind the time: texts may have the word, too. In a
    // dm-worker's form it stands in brackets, which texts have behind a quote only.
    let error = line.contains("\"level\":\"ERROR\"")
        || line.contains("] [ERROR] [")
        || line.split_whitespace().take(2).any(|word| word == "ERROR");
    let panic = line.contains("panicked at");
    panic || (error && !expected.iter().any(|fragment| line.contains(fragment)))
}

fn launch(folder: &Path, config: &Path, env: &[(String, String)]) -> Process {
    let args = ["--config".to_owned(), config.display().to_string()];
    let backtrace = ("RUST_BACKTRACE".to_owned(), "1".to_owned());
    let env: Vec<_> = env.iter().cloned().chain([backtrace]).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_dm-agent"));
    Process::start("dm-agent", program, &args, &env, &folder.join("agent.log"))
}

/// Runs the daemon's program once with these arguments.
pub async fn run_daemon(args: &[&str]) -> Answer {
    run(Path::new(env!("CARGO_BIN_EXE_dm-agent")), args, &[]).await
}

/// Runs `dm-agentctl` against a socket.
pub async fn run_ctl(socket: &Path, args: &[&str]) -> Answer {
    let socket = socket.display().to_string();
    run(Path::new(env!("CARGO_BIN_EXE_dm-agentctl")), args, &[("DM_AGENT_SOCKET", &socket)]).await
}

async fn run(program: &Path, args: &[&str], envs: &[(&str, &str)]) -> Answer {
    let limit = COMMAND_LIMIT.as_secs().to_string();
    let mut command = Command::new("timeout");
    command.args(["-k", "5", &limit]).arg(program).args(args).envs(envs.iter().copied());
    let began = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.stdin(std::process::Stdio::null()).output()).await;
    let output = output.expect("the blocking task ends").unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let command = format!("{name} {}", args.join(" "));
    assert_ne!(output.status.code(), Some(124), "{command}: no answer within {:?}", began.elapsed());
    Answer {
        command,
        exit: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
