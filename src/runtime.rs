//! Background tasks with an owner: named, traced, and ended when the owner lets go of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

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
