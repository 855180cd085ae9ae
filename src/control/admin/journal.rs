//! What happened lately: the daemon's events and the audit of commands, kept for `dm-agentctl events`.
//!
//! Invariant: each command that may change something leaves exactly one audit line, whether it was done, refused,
//! denied, or its client went away before the answer. The line holds names, never configurations.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast;

use super::detail::millis;
use super::peer::Peer;
use crate::control::backend::AgentEvent;
use crate::control::proto::agent::Event;

/// Events kept for those who ask later; as many may wait for a slow listener.
const KEPT: usize = 512;

/// Longest text of arguments in an audit line, in characters.
const ARGUMENTS_LIMIT: usize = 300;

/// The recent events, and whoever listens for more.
pub struct Journal {
    recent: Mutex<VecDeque<Event>>,
    sender: broadcast::Sender<Event>,
}

impl Journal {
    /// An empty one.
    pub fn new() -> Self {
        Journal { recent: Mutex::new(VecDeque::new()), sender: broadcast::channel(KEPT).0 }
    }

    /// Takes an event of the daemon in.
    pub fn record(&self, event: AgentEvent) {
        let AgentEvent { at, kind, source_id, task, text } = event;
        self.push(Event { at_ms: millis(at), kind: kind.to_owned(), source_id, task, text });
    }

    /// Says that events were lost because they came faster than they were taken in.
    pub fn lost(&self, count: u64) {
        let text = format!("{count} events came too fast to be kept");
        self.push(Event { at_ms: millis(SystemTime::now()), kind: "lost".to_owned(), text, ..Event::default() });
    }

    fn push(&self, event: Event) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(event.clone());
        // Under the lock, so that a listener that just read the recent ones misses none and gets none twice. Nobody
        // listening is no error.
        drop(self.sender.send(event));
    }

    /// The newest `count` (0: all that are kept), and everything that comes after them.
    pub fn listen(&self, count: usize) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = if count == 0 { 0 } else { recent.len().saturating_sub(count) };
        (recent.iter().skip(skipped).cloned().collect(), self.sender.subscribe())
    }

    /// Opens the audit of a command. `arguments` must hold no secrets.
    pub fn audit(self: &Arc<Self>, peer: &Peer, command: &'static str, arguments: &str) -> Audit {
        let arguments = arguments.chars().take(ARGUMENTS_LIMIT).collect();
        Audit { journal: self.clone(), peer: peer.clone(), command, arguments, result: None }
    }
}

/// One command under audit; the line is written when this goes.
pub struct Audit {
    journal: Arc<Journal>,
    peer: Peer,
    command: &'static str,
    arguments: String,
    result: Option<String>,
}

impl Audit {
    /// Says how it ended.
    pub fn finish(mut self, result: impl Into<String>) {
        self.result = Some(result.into());
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| "the client went away before the answer".to_owned());
        let (uid, pid) = (self.peer.uid, self.peer.pid.unwrap_or(0));
        // As Debug, so that a line break in an argument cannot forge a line.
        tracing::info!(target: "audit", uid, pid, command = self.command, args = ?self.arguments, ?result, "admin command");
        let text = format!("{}: {} {:?}: {result}", self.peer, self.command, self.arguments);
        let (at_ms, kind) = (millis(SystemTime::now()), "audit".to_owned());
        self.journal.push(Event { at_ms, kind, text, ..Event::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::peer::Level;

    fn event(text: &str) -> AgentEvent {
        let (source_id, task) = (String::new(), String::new());
        AgentEvent { at: SystemTime::UNIX_EPOCH, kind: "stage", source_id, task, text: text.to_owned() }
    }

    #[test]
    fn keeps_the_newest_and_passes_on_what_follows() {
        let journal = Journal::new();
        (0..KEPT + 3).for_each(|n| journal.record(event(&n.to_string())));
        let (recent, mut next) = journal.listen(0);
        assert_eq!((recent.len(), &*recent[0].text), (KEPT, "3"));
        journal.record(event("later"));
        assert_eq!(next.try_recv().unwrap().text, "later");
        assert_eq!(journal.listen(2).0.len(), 2);
    }

    #[test]
    fn every_command_leaves_a_line_even_when_its_client_goes() {
        let journal = Arc::new(Journal::new());
        let peer = Peer { uid: 7, pid: Some(8), level: Level::Admin };
        journal.audit(&peer, "pause-task", "t1").finish("ok");
        drop(journal.audit(&peer, "stop-task", "t2\nforged"));
        let lines: Vec<String> = journal.listen(0).0.into_iter().map(|e| e.text).collect();
        assert_eq!(lines[0], "uid 7 pid 8: pause-task \"t1\": ok");
        assert_eq!(lines[1], "uid 7 pid 8: stop-task \"t2\\nforged\": the client went away before the answer");
    }
}
