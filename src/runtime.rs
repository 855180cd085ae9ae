//! Background tasks with an owner: named, traced, and ended when the owner lets go of them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

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
