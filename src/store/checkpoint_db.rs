//! The checkpoint database: small records that must outlive the process, in one store with one thread.
//!
//! Separate from the relay's stores, whose large flushes it must not wait for. Invariant: a write that returned `Ok` is
//! durable. Writes that wait at the same time share one flush. Nothing is written where the disk is nearly full: the
//! write is refused and the database stays usable. It is created aside and renamed into place, so that a
//! database without its generation is one that lost records, which is an error and not an empty start; so is one that has
//! fewer flushes behind it than were told as durable ([`Tally`]), which would forget a park or bring an old checkpoint back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::tally::Tally;
use super::{Profile, StoreError, Table, disk, open};

/// Requests that may wait for the thread.
const QUEUE: usize = 256;
/// Writes that share one flush.
const GROUP: usize = 128;
/// Entries read at a time while listing.
const PAGE: usize = 256;
/// Free bytes below which nothing is written. A write that meets a full disk half way makes the table unusable for the
/// rest of the process; one that is refused before costs nothing.
const RESERVE: u64 = 4 << 20;
/// A request that takes longer has met a disk that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

const GENERATION: &str = "generation";
/// Flushes so far.
const FLUSHES: &str = "flushes";

/// Whose record it is: keys of different namespaces never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// The database's own.
    Meta,
    /// Source configurations, by source id.
    Source,
    /// Subtask configurations.
    Task,
    /// Why subtasks are parked, and what they failed with.
    Park,
    /// Checkpoints and the lanes' window.
    Checkpoint,
    /// DDL that was begun.
    Ddl,
    /// Operators of handle-error and binlog.
    Operator,
    /// Table structures set or learned.
    Schema,
    /// Where the relay log of each source ends.
    Relay,
}

impl Namespace {
    fn key(self, key: &str) -> Vec<u8> {
        let name = match self {
            Namespace::Meta => "meta",
            Namespace::Source => "source",
            Namespace::Task => "task",
            Namespace::Park => "park",
            Namespace::Checkpoint => "checkpoint",
            Namespace::Ddl => "ddl",
            Namespace::Operator => "operator",
            Namespace::Schema => "schema",
            Namespace::Relay => "relay",
        };
        format!("{name}/{key}").into_bytes()
    }
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Key and value, raw.
type Entry = (Vec<u8>, Vec<u8>);
/// Key and new value, none to remove it.
type Change = (Vec<u8>, Option<Vec<u8>>);

enum Request {
    Get { key: Vec<u8>, reply: Reply<Option<Vec<u8>>> },
    List { prefix: Vec<u8>, reply: Reply<Vec<Entry>> },
    Write { changes: Vec<Change>, reply: Reply<()> },
    Close { reply: Reply<()> },
}

/// A handle on the database; clones share it.
#[derive(Clone, Debug)]
pub struct CheckpointDb {
    requests: mpsc::Sender<Request>,
    generation: u64,
    path: PathBuf,
}

impl CheckpointDb {
    /// Opens the database in `path`, creating it where there is none, on a thread of its own.
    pub async fn open(path: PathBuf) -> Result<CheckpointDb, StoreError> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (opened, outcome) = oneshot::channel();
        let owned = path.clone();
        std::thread::Builder::new()
            .name("checkpoint-db".to_owned())
            .spawn(move || match open_or_create(&owned) {
                Ok(opened_one) => {
                    if opened.send(Ok(opened_one.generation)).is_ok() {
                        opened_one.serve(queue);
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            })
            .map_err(|error| StoreError::from_io("start the thread of", &path, error))?;
        let generation = outcome.await.map_err(|_| StoreError::Closed { path: path.clone() })??;
        Ok(CheckpointDb { requests, generation, path })
    }

    /// A random number from the database's creation. The downstream keeps a copy: another number there than here says
    /// that this database is not the one that wrote it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The record of `key`.
    pub async fn get<T: DeserializeOwned>(&self, ns: Namespace, key: &str) -> Result<Option<T>, StoreError> {
        let key = ns.key(key);
        let found = self.ask(|reply| Request::Get { key: key.clone(), reply }).await?;
        found.map(|value| self.decode(&key, &value)).transpose()
    }

    /// All records whose keys begin with `prefix`, in order.
    pub async fn list<T: DeserializeOwned>(&self, ns: Namespace, prefix: &str) -> Result<Vec<(String, T)>, StoreError> {
        let start = ns.key("").len();
        let found = self.ask(|reply| Request::List { prefix: ns.key(prefix), reply }).await?;
        found
            .into_iter()
            .map(|(key, value)| {
                Ok((String::from_utf8_lossy(&key[start.min(key.len())..]).into_owned(), self.decode(&key, &value)?))
            })
            .collect()
    }

    /// The same, each record on its own: one that does not parse is an error in its place.
    pub async fn list_each<T: DeserializeOwned>(
        &self,
        ns: Namespace,
    ) -> Result<Vec<(String, Result<T, StoreError>)>, StoreError> {
        let start = ns.key("").len();
        let found = self.ask(|reply| Request::List { prefix: ns.key(""), reply }).await?;
        let name = |key: &[u8]| String::from_utf8_lossy(&key[start.min(key.len())..]).into_owned();
        Ok(found.into_iter().map(|(key, value)| (name(&key), self.decode(&key, &value))).collect())
    }

    /// Stores a record; durable when it returns.
    pub async fn put<T: Serialize>(&self, ns: Namespace, key: &str, value: &T) -> Result<(), StoreError> {
        self.write(Changes::new().put(ns, key, value)).await
    }

    /// Removes a record; durable when it returns.
    pub async fn remove(&self, ns: Namespace, key: &str) -> Result<(), StoreError> {
        self.write(Changes::new().remove(ns, key)).await
    }

    /// Makes several changes with one flush; all durable when it returns. A crash before may leave some of them.
    pub async fn write(&self, changes: Changes) -> Result<(), StoreError> {
        let changes = changes.0.map_err(|error| StoreError::Io {
            doing: "serialize a record of",
            path: self.path.clone(),
            source: io::Error::other(error),
        })?;
        self.ask(|reply| Request::Write { changes, reply }).await
    }

    /// Flushes and closes it; other handles get [`StoreError::Closed`] from here on.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ask(|reply| Request::Close { reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let closed = || StoreError::Closed { path: self.path.clone() };
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.requests.send(request(reply)).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| {
            let source = io::Error::from(io::ErrorKind::TimedOut);
            Err(StoreError::Io { doing: "wait for", path: self.path.clone(), source })
        })
    }

    fn decode<T: DeserializeOwned>(&self, key: &[u8], value: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(value).map_err(|error| StoreError::Corrupt {
            path: self.path.clone(),
            what: format!("the record {} does not parse: {error}", String::from_utf8_lossy(key)),
        })
    }
}

/// Changes that are made together.
pub struct Changes(Result<Vec<Change>, serde_json::Error>);

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}

impl Changes {
    /// None yet.
    pub fn new() -> Self {
        Changes(Ok(Vec::new()))
    }

    /// Sets a record.
    pub fn put<T: Serialize>(self, ns: Namespace, key: &str, value: &T) -> Self {
        Changes(self.0.and_then(|mut all| {
            all.push((ns.key(key), Some(serde_json::to_vec(value)?)));
            Ok(all)
        }))
    }

    /// Removes a record.
    pub fn remove(mut self, ns: Namespace, key: &str) -> Self {
        if let Ok(all) = &mut self.0 {
            all.push((ns.key(key), None));
        }
        self
    }
}

/// The database on its thread.
struct Opened {
    table: Box<dyn Table>,
    path: PathBuf,
    generation: u64,
    /// Flushes so far.
    flushes: u64,
    tally: Tally,
    /// Who waits for the next one.
    waiting: Vec<Reply<()>>,
}

fn open_or_create(path: &Path) -> Result<Opened, StoreError> {
    if !path.exists() {
        create(path)?;
    }
    let table = open(path, Profile::Records)?;
    let number = |name| -> Result<Option<u64>, StoreError> {
        let stored = table.get(&Namespace::Meta.key(name))?;
        Ok(stored.and_then(|value| serde_json::from_slice(&value).ok()))
    };
    let lost = || StoreError::Corrupt { path: path.to_owned(), what: "its first record is gone".to_owned() };
    let generation = number(GENERATION)?.ok_or_else(lost)?;
    let flushes = number(FLUSHES)?.unwrap_or(0);
    let tally = Tally::open(path, generation, flushes)?;
    Ok(Opened { table, path: path.to_owned(), generation, flushes, tally, waiting: Vec::new() })
}

fn create(path: &Path) -> Result<(), StoreError> {
    let fail = |error| StoreError::from_io("create", path, error);
    let aside = path.with_extension("new");
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let mut table = open(&aside, Profile::Records)?;
    table.put(&Namespace::Meta.key(GENERATION), rand::random::<u64>().to_string().as_bytes())?;
    table.flush()?;
    table.close()?;
    fs::rename(&aside, path).map_err(fail)?;
    path.parent().map_or(Ok(()), disk::sync_dir).map_err(fail)
}

impl Opened {
    /// The thread: reads at once, writes in groups of those that wait.
    fn serve(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(request) = queue.blocking_recv() {
            let mut next = Some(request);
            while let Some(request) = next {
                match request {
                    Request::Get { key, reply } => {
                        drop(reply.send(self.table.get(&key).map(|value| value.map(|bytes| bytes.to_vec()))));
                    }
                    Request::List { prefix, reply } => drop(reply.send(list(self.table.as_ref(), &prefix))),
                    Request::Write { changes, reply } => {
                        match room(&self.path).and_then(|()| apply(self.table.as_mut(), changes)) {
                            Ok(()) => self.waiting.push(reply),
                            Err(error) => drop(reply.send(Err(error))),
                        }
                    }
                    Request::Close { reply } => {
                        self.answer_writes();
                        drop(reply.send(self.table.close()));
                        return;
                    }
                }
                next = if self.waiting.len() < GROUP { queue.try_recv().ok() } else { None };
            }
            self.answer_writes();
        }
        if let Err(error) = self.table.close() {
            tracing::error!(path = %self.path.display(), %error, "checkpoint database not closed");
        }
    }

    fn answer_writes(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let failed = self.flush().err();
        for reply in self.waiting.drain(..) {
            let answer = match &failed {
                None => Ok(()),
                Some(error) => Err(StoreError::Io {
                    doing: "flush",
                    path: self.path.clone(),
                    source: io::Error::other(error.to_string()),
                }),
            };
            drop(reply.send(answer));
        }
    }

    /// Makes durable what was written, and that it was.
    fn flush(&mut self) -> Result<(), StoreError> {
        let flushes = self.flushes + 1;
        self.table.put(&Namespace::Meta.key(FLUSHES), flushes.to_string().as_bytes())?;
        self.table.flush()?;
        self.flushes = flushes;
        self.tally.tell(flushes)
    }
}

/// Refuses where the disk is nearly full.
fn room(path: &Path) -> Result<(), StoreError> {
    match disk::free_bytes(path) {
        Ok(free) if free < RESERVE => Err(StoreError::Full { doing: "write to", path: path.to_owned() }),
        // A disk that does not say is asked by the write itself.
        _ => Ok(()),
    }
}

fn apply(table: &mut dyn Table, changes: Vec<Change>) -> Result<(), StoreError> {
    changes.into_iter().try_for_each(|(key, value)| match value {
        Some(value) => table.put(&key, &value),
        None => table.remove(&key),
    })
}

fn list(table: &dyn Table, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
    let mut found = Vec::new();
    let mut from = prefix.to_vec();
    loop {
        let page = table.range(&from, PAGE)?;
        let full = page.len() == PAGE;
        for (key, value) in page {
            if !key.starts_with(prefix) {
                return Ok(found);
            }
            from = [&key, &[0][..]].concat();
            found.push((key.to_vec(), value.to_vec()));
        }
        if !full {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_outlive_a_reopen_and_list_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let db = CheckpointDb::open(path.clone()).await.unwrap();
        for n in 0..600 {
            let key = format!("mysql-01/{n:04}");
            let all = Changes::new().put(Namespace::Task, &key, &n).put(Namespace::Park, "x", &vec![n]);
            db.write(all).await.unwrap();
        }
        db.remove(Namespace::Task, "mysql-01/0003").await.unwrap();
        let generation = db.generation();
        db.close().await.unwrap();
        assert!(matches!(db.put(Namespace::Task, "a", &1).await, Err(StoreError::Closed { .. })));

        let db = CheckpointDb::open(path).await.unwrap();
        assert_eq!(db.generation(), generation);
        assert_eq!(db.get::<u32>(Namespace::Task, "mysql-01/0003").await.unwrap(), None);
        assert_eq!(db.get::<Vec<u32>>(Namespace::Park, "x").await.unwrap(), Some(vec![599]));
        let all = db.list::<u32>(Namespace::Task, "mysql-01/").await.unwrap();
        assert_eq!(all.len(), 599);
        assert_eq!(all[3], ("mysql-01/0004".to_owned(), 4));
        assert!(db.list::<u32>(Namespace::Task, "mysql-02/").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_bad_record_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let db = CheckpointDb::open(dir.path().join("checkpoint")).await.unwrap();
        db.put(Namespace::Task, "a", &1_u32).await.unwrap();
        db.put(Namespace::Task, "b", &"no number").await.unwrap();
        let found = db.list_each::<u32>(Namespace::Task).await.unwrap();
        assert!(matches!(&found[..], [(a, Ok(1)), (b, Err(StoreError::Corrupt { .. }))] if a == "a" && b == "b"));
    }

    #[tokio::test]
    async fn writes_that_wait_together_all_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let db = CheckpointDb::open(dir.path().join("checkpoint")).await.unwrap();
        let keys: Vec<_> = (0..100).map(|n| format!("{n:03}")).collect();
        let mut writes: Vec<_> = keys.iter().map(|key| Box::pin(db.put(Namespace::Schema, key, key))).collect();
        std::future::poll_fn(|cx| {
            writes.retain_mut(|write| write.as_mut().poll(cx).is_pending());
            if writes.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        assert_eq!(db.list::<String>(Namespace::Schema, "").await.unwrap().len(), 100);
    }

    /// A copy of some time ago looks sound to the engine.
    #[tokio::test]
    async fn a_database_of_some_time_ago_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let db = CheckpointDb::open(path.clone()).await.unwrap();
        db.put(Namespace::Park, "t", &"running").await.unwrap();
        db.close().await.unwrap();
        let copy = dir.path().join("copy");
        let copied = std::process::Command::new("cp").arg("-a").args([&path, &copy]).status().unwrap();
        assert!(copied.success());

        let db = CheckpointDb::open(path.clone()).await.unwrap();
        db.put(Namespace::Park, "t", &"parked").await.unwrap();
        db.close().await.unwrap();
        fs::rename(&path, dir.path().join("new")).unwrap();
        fs::rename(&copy, &path).unwrap();
        let error = CheckpointDb::open(path.clone()).await.unwrap_err();
        assert!(error.to_string().contains("its last writes are gone"), "{error}");

        // The remedy: another one in its place.
        fs::rename(&path, dir.path().join("old")).unwrap();
        CheckpointDb::open(path).await.unwrap().put(Namespace::Park, "t", &1).await.unwrap();
    }

    #[tokio::test]
    async fn a_database_that_lost_its_records_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let db = CheckpointDb::open(path.clone()).await.unwrap();
        db.close().await.unwrap();
        for entry in fs::read_dir(path.join("metadata")).unwrap() {
            let file = entry.unwrap().path();
            fs::write(file, b"").unwrap();
        }
        let error = CheckpointDb::open(path.clone()).await.unwrap_err();
        let failure = crate::error::Failure::from(&error);
        assert!(failure.message.contains("damaged") && failure.workaround.contains(&path.display().to_string()));
    }
}
