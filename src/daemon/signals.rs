//! Signals, turned into orders on a channel by a thread of their own.
//!
//! ```text
//! SIGTERM, SIGINT, SIGQUIT   first: Drain    second: Abort    third: the process ends there and then
//! SIGUSR1                    Reload
//! SIGHUP                     alone: Reload    in a cluster: one of the stops
//! ```
//! In a cluster SIGHUP is what it is to dm-worker, since that is who the scripts and tools around it take it for.
//! The third works even where the runtime is jammed and reads no order: being killed is always correct, only slower to
//! come back from.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
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

/// What SIGHUP is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// As to daemons that keep their log open.
    Reloads,
    /// As to dm-worker.
    Stops,
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
    pub fn start(hangup: Hangup) -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1])?;
        let handle = signals.handle();
        let (sender, orders) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut escalation = Escalation { hangup, stops: 0 };
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
#[derive(Debug)]
struct Escalation {
    hangup: Hangup,
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
            SIGUSR1 => Some(Action::Order(Order::Reload)),
            SIGHUP if self.hangup == Hangup::Reloads => Some(Action::Order(Order::Reload)),
            SIGTERM | SIGINT | SIGQUIT | SIGHUP => {
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

    fn taken(hangup: Hangup, signals: &[i32]) -> Vec<Action> {
        let mut escalation = Escalation { hangup, stops: 0 };
        signals.iter().filter_map(|signal| escalation.take(*signal)).collect()
    }

    const RELOAD: Action = Action::Order(Order::Reload);
    const DRAIN: Action = Action::Order(Order::Drain);
    const ABORT: Action = Action::Order(Order::Abort);

    #[test]
    fn stops_escalate_and_reloads_do_not() {
        let signals = [SIGHUP, SIGUSR1, SIGTERM, SIGHUP, SIGINT, SIGUSR1, SIGQUIT];
        let expected = [RELOAD, RELOAD, DRAIN, RELOAD, ABORT, RELOAD, Action::Exit];
        assert_eq!(taken(Hangup::Reloads, &signals), expected);
        assert_eq!(taken(Hangup::Reloads, &[signal_hook::consts::signal::SIGUSR2]), []);
    }

    #[test]
    fn in_a_cluster_a_hangup_is_a_stop() {
        let signals = [SIGUSR1, SIGHUP, SIGUSR1, SIGTERM, SIGHUP];
        assert_eq!(taken(Hangup::Stops, &signals), [RELOAD, DRAIN, RELOAD, ABORT, Action::Exit]);
    }

    #[test]
    fn a_raised_signal_becomes_an_order() {
        let mut watch = SignalWatch::start(Hangup::Reloads).unwrap();
        signal_hook::low_level::raise(SIGUSR1).unwrap();
        assert_eq!(watch.blocking_next(), Some(Order::Reload));
    }
}
