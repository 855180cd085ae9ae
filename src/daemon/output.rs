//! Where log lines are written: standard error or a file, by a thread of its own behind a bounded queue.
//!
//! A terminal that is held, a full pipe or a slow disk must not stop the agent, so lines that do not fit into the queue
//! are dropped and counted, and the next line says how many. A line that cannot be written (closed pipe, full disk) is
//! dropped as well. Lines still queued at a kill are lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Lines that may wait.
const QUEUE: usize = 4096;

enum Message {
    Line(Vec<u8>),
    /// Open the file anew; it was moved away.
    Reopen,
    /// Answer when everything before this is written.
    Flush(SyncSender<()>),
}

/// The queue's end for writers. Each `write` is one line.
#[derive(Debug, Clone)]
pub(super) struct Output {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Sink {
    Stderr,
    File { path: PathBuf, file: File },
}

impl Output {
    /// Starts the thread. A file that cannot be opened is an error now, and kept from being one later.
    pub fn start(file: Option<&Path>) -> io::Result<Self> {
        let sink = match file {
            None => Sink::Stderr,
            Some(path) => Sink::File { path: path.to_owned(), file: open(path)? },
        };
        let (queue, messages) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = dropped.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || write_all(sink, &messages, &counter))?;
        Ok(Output { queue, dropped })
    }

    /// Opens the file anew.
    pub fn reopen(&self) {
        // A full queue is worked off into the old file; the next reload tries again.
        let _ = self.queue.try_send(Message::Reopen);
    }

    /// Waits until everything said before is written, or the time is over.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }
}

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.queue.try_send(Message::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn write_all(mut sink: Sink, messages: &Receiver<Message>, dropped: &AtomicU64) {
    for message in messages {
        match message {
            Message::Line(line) => {
                let lost = dropped.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    sink.write(
                        format!("dm-agent: {lost} log lines were dropped: the log is written too slowly\n").as_bytes(),
                    );
                }
                sink.write(&line);
            }
            Message::Reopen => sink.reopen(),
            // Nobody waits any more if this fails.
            Message::Flush(done) => drop(done.try_send(())),
        }
    }
}

impl Sink {
    /// An error is dropped: there is no other place to tell it.
    fn write(&mut self, line: &[u8]) {
        let _ = match self {
            Sink::Stderr => io::stderr().write_all(line),
            Sink::File { file, .. } => file.write_all(line),
        };
    }

    /// Keeps the old file if the new one cannot be opened, and says so in it.
    fn reopen(&mut self) {
        let Sink::File { path, file } = self else { return };
        match open(path) {
            Ok(new) => *file = new,
            Err(error) => {
                let _ = writeln!(file, "dm-agent: open log file {}: {error}; the old one is used on", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_moved_file_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut output = Output::start(Some(&path)).unwrap();
        output.write_all(b"one\n").unwrap();
        output.flush(LIMIT);
        std::fs::rename(&path, &old).unwrap();
        output.write_all(b"two\n").unwrap();
        output.reopen();
        output.write_all(b"three\n").unwrap();
        output.flush(LIMIT);
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, messages) = sync_channel(1);
        let mut output = Output { queue, dropped: Arc::default() };
        for _ in 0..3 {
            output.write_all(b"x\n").unwrap();
        }
        assert_eq!(output.dropped.load(Ordering::Relaxed), 2);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let dropped = output.dropped.clone();
        drop(output);
        write_all(Sink::File { path: path.clone(), file: open(&path).unwrap() }, &messages, &dropped);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "dm-agent: 2 log lines were dropped: the log is written too slowly\nx\n"
        );
    }

    #[test]
    fn an_impossible_file_is_an_error_at_the_start() {
        assert!(Output::start(Some(Path::new("/nowhere/log"))).is_err());
    }
}
