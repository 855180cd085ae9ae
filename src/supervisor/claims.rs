//! Who is changing what: one command at a time on a source or a task, so that two of them never leave half of each.
//!
//! A command that finds its object taken is refused at once and says by what; nothing waits, so nothing can wait in a
//! circle. Pausing and resuming need no claim: the task's driver puts them in order. A claim ends when it is dropped.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::{Supervisor, TaskKey, read};
use crate::error::{Code, Failure};

/// What is taken, and by which command.
#[derive(Debug, Default)]
pub(super) struct Claims {
    sources: BTreeMap<String, SourceClaim>,
    tasks: BTreeMap<TaskKey, &'static str>,
}

#[derive(Debug)]
struct SourceClaim {
    command: &'static str,
    /// No task may be started on it meanwhile.
    alone: bool,
}

impl Claims {
    fn take_source(&mut self, id: &str, command: &'static str, alone: bool) -> Result<(), Failure> {
        if let Some(claim) = self.sources.get(id) {
            return Err(under_way(&format!("source {id}"), claim.command));
        }
        if alone && let Some(((_, task), other)) = self.tasks.iter().find(|((source, _), _)| source == id) {
            return Err(under_way(&format!("task {task} of source {id}"), other));
        }
        self.sources.insert(id.to_owned(), SourceClaim { command, alone });
        Ok(())
    }

    fn take_tasks(&mut self, keys: &[TaskKey], command: &'static str) -> Result<(), Failure> {
        for key in keys {
            if let Some(other) = self.tasks.get(key) {
                return Err(under_way(&format!("task {} of source {}", key.1, key.0), other));
            }
            if let Some(claim) = self.sources.get(&key.0).filter(|claim| claim.alone) {
                return Err(under_way(&format!("source {}", key.0), claim.command));
            }
        }
        self.tasks.extend(keys.iter().map(|key| (key.clone(), command)));
        Ok(())
    }
}

fn under_way(what: &str, command: &str) -> Failure {
    Failure::new(Code::NotSet, format!("another command on {what} is under way: {command}"))
        .workaround("Please try again when it has ended.")
}

/// The right to change something, until it is dropped.
pub(super) struct Claim<'a> {
    supervisor: &'a Supervisor,
    source: Option<String>,
    tasks: Vec<TaskKey>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claims = self.supervisor.inner.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = &self.source {
            claims.sources.remove(id);
        }
        claims.tasks.retain(|key, _| !self.tasks.contains(key));
    }
}

impl Supervisor {
    /// Takes a source, and with `alone` also the right to start and stop its tasks.
    pub(super) fn claim_source(&self, id: &str, command: &'static str, alone: bool) -> Result<Claim<'_>, Failure> {
        let mut claims = self.inner.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.take_source(id, command, alone)?;
        Ok(Claim { supervisor: self, source: Some(id.to_owned()), tasks: Vec::new() })
    }

    /// Takes tasks, all or none.
    pub(super) fn claim_tasks(&self, keys: Vec<TaskKey>, command: &'static str) -> Result<Claim<'_>, Failure> {
        let mut claims = self.inner.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.take_tasks(&keys, command)?;
        Ok(Claim { supervisor: self, source: None, tasks: keys })
    }

    /// Takes names for new tasks, or says which of them are taken.
    pub(super) fn claim_names(&self, task: &str, keys: Vec<TaskKey>) -> Result<Claim<'_>, Failure> {
        let exists = |sources: Vec<&str>| {
            let message = format!("subtasks with name {task} for sources [{}] already exist", sources.join(" "));
            Failure::new(Code::TaskExists, message)
        };
        let mut claims = self.inner.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = {
            let (tasks, broken) = (read(&self.inner.tasks), read(&self.inner.broken));
            let starting = |key: &TaskKey| claims.tasks.get(key) == Some(&START_TASK);
            let taken = |key: &&TaskKey| tasks.contains_key(*key) || broken.tasks.contains_key(*key) || starting(key);
            keys.iter().filter(taken).map(|key| key.0.as_str()).collect::<Vec<_>>()
        };
        if !taken.is_empty() {
            return Err(exists(taken));
        }
        claims.take_tasks(&keys, START_TASK)?;
        Ok(Claim { supervisor: self, source: None, tasks: keys })
    }
}

/// The command that makes names exist.
const START_TASK: &str = "start-task";

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: &str, task: &str) -> TaskKey {
        (source.to_owned(), task.to_owned())
    }

    #[test]
    fn one_command_at_a_time_on_each_thing() {
        let mut claims = Claims::default();
        claims.take_tasks(&[key("s", "t")], "stop-task").unwrap();
        let refused = claims.take_tasks(&[key("s", "u"), key("s", "t")], START_TASK).unwrap_err();
        assert!(refused.message.contains("task t of source s") && refused.message.contains("stop-task"), "{refused}");
        assert!(!claims.tasks.contains_key(&key("s", "u")), "all or none");
        // Its relay may be operated, the source not be removed.
        assert!(claims.take_source("s", "operate-source stop", true).is_err());
        claims.take_source("s", "pause-relay", false).unwrap();
        assert!(claims.take_source("s", "resume-relay", false).is_err());
        claims.take_tasks(&[key("s", "u")], START_TASK).unwrap();
        claims.take_source("other", "operate-source stop", true).unwrap();
        assert!(claims.take_tasks(&[key("other", "t")], START_TASK).is_err());
    }
}
