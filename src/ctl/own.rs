//! The commands that dmctl does not have: status, log-level, events. They ask the agent's own service.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tonic::transport::Channel;

use super::connect::Session;
use super::error::CtlError;
use super::screen::{self, Progress, Room};
use super::table::TableArg;
use super::{Verdict, screen::clock};
use crate::control::proto::agent::agent_client::AgentClient;
use crate::control::proto::agent::{
    Event, EventsRequest, ResyncTableRequest, SetLogLevelRequest, StatusReply, StatusRequest, WatchStatusRequest,
};
use crate::control::proto::status_json;

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

fn agent(session: Session) -> Result<AgentClient<Channel>, CtlError> {
    session.agent.ok_or_else(|| {
        CtlError::Usage("only an agent answers this, over its socket: leave --master-addr out".to_owned())
    })
}

/// status: once, or at each interval until interrupted or the agent ends.
pub async fn status(
    session: Session,
    watch: Option<Duration>,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let mut agent = agent(session)?;
    let mut progress = Progress::default();
    let Some(interval) = watch else {
        let reply = agent.status(StatusRequest {}).await?.into_inner();
        let room = if std::io::stdout().is_terminal() { window(false) } else { Room::default() };
        out.write_all(shown(&reply, json, &mut progress, room).as_bytes())?;
        return Ok(Verdict::Done);
    };
    let terminal = !json && std::io::stdout().is_terminal();
    let mut first = true;
    let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
    let mut replies = agent.watch_status(WatchStatusRequest { interval_ms }).await?.into_inner();
    while let Some(reply) = replies.message().await? {
        let room = if terminal { window(true) } else { Room::default() };
        let text = shown(&reply, json, &mut progress, room);
        // Into a file or a pipe one screen follows the other, with a line between them.
        let before = match (terminal, first || json) {
            (true, _) => CLEAR,
            (false, true) => "",
            (false, false) => "\n",
        };
        first = false;
        write!(out, "{before}{text}")?;
        out.flush()?;
    }
    Err(CtlError::Unreachable("the agent closed the connection".to_owned()))
}

fn shown(reply: &StatusReply, json: bool, progress: &mut Progress, room: Room) -> String {
    if json { status_json(reply) } else { screen::render(reply, progress, room) }
}

/// The terminal's size now: a window can be drawn larger while it is watched. A serial line says zero, that is unknown.
fn window(limit_lines: bool) -> Room {
    let known = |cells: u16| (cells > 0).then_some(usize::from(cells));
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) => Room { columns: known(size.ws_col), lines: known(size.ws_row).filter(|_| limit_lines) },
        Err(_) => Room::default(),
    }
}

/// log-level.
pub async fn log_level(session: Session, level: String, out: &mut (dyn Write + Send)) -> Result<Verdict, CtlError> {
    let reply = agent(session)?.set_log_level(SetLogLevelRequest { level }).await?.into_inner();
    writeln!(out, "log level is now {}", reply.level)?;
    Ok(Verdict::Done)
}

/// resync-table.
pub async fn resync_table(
    session: Session,
    task: String,
    name: TableArg,
    sources: Vec<String>,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let TableArg { schema, table } = name;
    let request = ResyncTableRequest { task: task.clone(), sources, schema: schema.clone(), table: table.clone() };
    let reply = agent(session)?.resync_table(request).await?.into_inner();
    writeln!(out, "{schema}.{table} of task {task} on {} is read again; see `dm-agentctl status`", reply.source_id)?;
    if !reply.note.is_empty() {
        writeln!(out, "note: {}", reply.note)?;
    }
    Ok(Verdict::Done)
}

/// events.
pub async fn events(
    session: Session,
    follow: bool,
    recent: u32,
    out: &mut (dyn Write + Send),
) -> Result<Verdict, CtlError> {
    let mut events = agent(session)?.events(EventsRequest { recent, follow }).await?.into_inner();
    while let Some(event) = events.message().await? {
        writeln!(out, "{}", event_line(&event))?;
        out.flush()?;
    }
    Ok(Verdict::Done)
}

fn event_line(event: &Event) -> String {
    let about = match (event.task.is_empty(), event.source_id.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!(" {}", event.task),
        (true, false) => format!(" {}", event.source_id),
        (false, false) => format!(" {}@{}", event.task, event.source_id),
    };
    format!("{}  {:<9}{about}  {}", clock(event.at_ms), event.kind, event.text)
}
