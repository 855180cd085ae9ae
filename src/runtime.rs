//! Background tasks with an owner: named, traced, and ended when the owner lets go of them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument;

/// A task that ends with its owner: dropping this aborts it.
#[derive(Debug)]
pub struct Owned<T> {
    name: &'static str,
    handle: JoinHandle<T>,
}

/// Starts a task. The span of the caller is its parent.
pub fn spawn<T: Send + 'static>(name: &'static str, future: impl Future<Output = T> + Send + 'static) -> Owned<T> {
    let span = tracing::info_span!("task", role = name);
    Owned { name, handle: tokio::spawn(future.instrument(span)) }
}

impl<T> Owned<T> {
    /// Ends it at its next wait.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Whether it has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Future for Owned<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(context)
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Work on a thread of its own, with whatever it spawns: its memory is of one arena, and what takes it long keeps no other task
/// waiting. It ends with its owner.
#[derive(Debug)]
pub struct Aside<T> {
    done: oneshot::Receiver<T>,
    /// Its end is the order to stop.
    _owner: oneshot::Sender<()>,
}

/// Starts it. Fails where the system has no thread for it.
pub fn aside<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> io::Result<Aside<T>> {
    let span = tracing::info_span!("task", role = name);
    let (owner, mut gone) = oneshot::channel::<()>();
    let (sender, done) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let ended = runtime.block_on(async {
            tokio::select! {
                biased;
                _ = &mut gone => None,
                outcome = future.instrument(span) => Some(outcome),
            }
        });
        // Not dropped: that waits for names that are still being looked up.
        runtime.shutdown_background();
        // Who does not wait any more has been told to be gone.
        let _ = ended.map(|outcome| sender.send(outcome));
    })?;
    Ok(Aside { done, _owner: owner })
}

impl<T> Future for Aside<T> {
    /// An error where it ended without an outcome: it panicked, and the log says how.
    type Output = Result<T, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.done).poll(context)
    }
}

/// When a loop last went round; clones share it. For the watchdog, which asks whether a part still moves.
#[derive(Debug, Clone)]
pub struct Beat {
    begun: Instant,
    struck: Arc<AtomicU64>,
}

impl Beat {
    /// One that struck just now.
    pub fn new() -> Self {
        Beat { begun: Instant::now(), struck: Arc::default() }
    }

    /// One that struck so long ago and not since.
    #[cfg(test)]
    pub fn of_age(age: Duration) -> Self {
        let begun = Instant::now().checked_sub(age).expect("a clock that has run for longer");
        Beat { begun, struck: Arc::default() }
    }

    /// The loop goes round.
    pub fn strike(&self) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.struck.store(millis, Ordering::Relaxed);
    }

    /// How long ago it did.
    pub fn age(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.struck.load(Ordering::Relaxed)))
    }
}

impl Default for Beat {
    fn default() -> Self {
        Beat::new()
    }
}
