//! Somebody who writes to a source while a test looks at something else.

use std::time::Duration;

use super::db::Address;

/// A second connection that writes to the schema until it is told to stop.
pub struct Writer {
    stop: tokio::sync::watch::Sender<bool>,
    /// Rounds done.
    rounds: tokio::sync::watch::Receiver<u64>,
    task: tokio::task::JoinHandle<u64>,
}

impl Writer {
    /// Runs the statements of a round after those of the one before, each on its own.
    pub fn start(port: u16, schema: &str, statements: impl Fn(u64) -> Vec<String> + Send + 'static) -> Writer {
        let (stop, seen) = tokio::sync::watch::channel(false);
        let (done, rounds) = tokio::sync::watch::channel(0);
        let schema = schema.to_owned();
        let task = tokio::spawn(async move {
            let mut db = Address::root(port).try_connect().await.expect("connect");
            db.run(&format!("USE {schema}")).await;
            let mut round = 0;
            while !*seen.borrow() {
                for sql in statements(round) {
                    // Duplicate keys belong to the load; tables may be gone.
                    let _ = db.error_number(&sql).await;
                }
                round += 1;
                done.send_replace(round);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            round
        });
        Writer { stop, rounds, task }
    }

    /// Waits until it has done so many rounds more.
    pub async fn more_rounds(&self, count: u64) {
        let mut rounds = self.rounds.clone();
        let wanted = *rounds.borrow() + count;
        let reached = rounds.wait_for(|done| *done >= wanted);
        let reached = tokio::time::timeout(Duration::from_secs(120), reached).await;
        reached.expect("rounds go on").expect("the writer lives");
    }

    /// Ends it; how many rounds it did.
    pub async fn end(self) -> u64 {
        self.stop.send_replace(true);
        self.task.await.expect("the writer ends")
    }
}
