//! Signals, turned into orders on a channel by a thread of their own.
//!
//! ```text
//! SIGTERM, SIGINT, SIGQUIT   first: Drain    second: Abort    third: the process ends there and then
//! SIGHUP                     Reload
//! ```
//! The third works even where the runtime is jammed and reads no order: being killed is always correct, only slower to
//! come back from.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tokio::sync::mpsc;

/// What a signal orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Finish what is in flight, then stop.
    Drain,
    /// Stop at once.
    Abort,
    /// Read the configuration again.
    Reload,
}

/// Orders that wait to be read. Few: each kind of stop comes once, and one reload covers those behind it.
const QUEUE: usize = 8;

/// The thread that waits for signals, and its orders. Dropping it gives the signals back to nobody: they are then
/// ignored until the process ends.
#[derive(Debug)]
pub struct SignalWatch {
    orders: mpsc::Receiver<Order>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl SignalWatch {
    /// Takes the signals over. Call it once, before other threads are started.
    pub fn start() -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP])?;
        let handle = signals.handle();
        let (sender, orders) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut escalation = Escalation::default();
            for signal in signals.forever() {
                match escalation.take(signal) {
                    // A full queue holds a reload already, and the one stop before this one.
                    Some(Action::Order(order)) => drop(sender.try_send(order)),
                    Some(Action::Exit) => std::process::exit(128 + signal),
                    None => {}
                }
            }
        })?;
        Ok(SignalWatch { orders, handle, thread: Some(thread) })
    }

    /// The next order; `None` when there will be none. Cancel safe.
    pub async fn next(&mut self) -> Option<Order> {
        self.orders.recv().await
    }

    /// The same outside of a runtime.
    pub fn blocking_next(&mut self) -> Option<Order> {
        self.orders.blocking_recv()
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; nothing more can be done about it here.
            let _ = thread.join();
        }
    }
}

/// Which stop a signal is.
#[derive(Debug, Default)]
struct Escalation {
    stops: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Order(Order),
    Exit,
}

impl Escalation {
    fn take(&mut self, signal: i32) -> Option<Action> {
        match signal {
            SIGHUP => Some(Action::Order(Order::Reload)),
            SIGTERM | SIGINT | SIGQUIT => {
                self.stops = self.stops.saturating_add(1);
                Some(match self.stops {
                    1 => Action::Order(Order::Drain),
                    2 => Action::Order(Order::Abort),
                    _ => Action::Exit,
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_escalate_and_reloads_do_not() {
        let mut escalation = Escalation::default();
        let taken: Vec<_> = [SIGHUP, SIGTERM, SIGHUP, SIGINT, SIGQUIT].map(|signal| escalation.take(signal)).into();
        let expected = [
            Action::Order(Order::Reload),
            Action::Order(Order::Drain),
            Action::Order(Order::Reload),
            Action::Order(Order::Abort),
            Action::Exit,
        ];
        assert_eq!(taken, expected.map(Some));
        assert_eq!(escalation.take(signal_hook::consts::signal::SIGUSR1), None);
    }

    #[test]
    fn a_raised_signal_becomes_an_order() {
        let mut watch = SignalWatch::start().unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert_eq!(watch.blocking_next(), Some(Order::Reload));
    }
}
