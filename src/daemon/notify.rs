//! What systemd is told: ready, status, reloading, stopping, alive. Nothing happens where there is no service manager.
//!
//! Telling is best effort: a notification that cannot be sent is logged and never stops the agent. One that is missing
//! at the start or from the watchdog makes systemd act, which is right.

use std::time::Duration;

use sd_notify::NotifyState;

/// The way to the service manager.
#[derive(Debug, Clone, Copy)]
pub struct Notifier {
    enabled: bool,
}

impl Notifier {
    /// Finds out from the environment whether someone listens.
    pub fn of_process() -> Self {
        Notifier { enabled: std::env::var_os("NOTIFY_SOCKET").is_some() }
    }

    /// The store is open and the sockets listen (at the start), or a reload is done.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// One line for `systemctl status`: `paused(operator) recv=…:1-900 apply=…:1-700 runway=31h`.
    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(&one_line(status))]);
    }

    /// A reload begins. [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            // Without the time systemd would not take it for a reload.
            Err(error) => tracing::warn!(%error, "read monotonic clock"),
        }
    }

    /// The agent drains and stops.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    /// Recovering or draining takes this much longer, from now.
    pub fn extend_timeout(&self, by: Duration) {
        let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        self.send(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// Alive: to be sent after every part has shown that it moves.
    pub fn alive(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// How often [`Notifier::alive`] is to be sent: half of what systemd waits. `None` without a watchdog.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        sd_notify::watchdog_enabled()
            .filter(|interval| self.enabled && !interval.is_zero())
            .map(|interval| interval / 2)
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if self.enabled
            && let Err(error) = sd_notify::notify(states)
        {
            tracing::debug!(%error, "notify service manager");
        }
    }
}

/// A line end would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_stays_one_assignment() {
        assert_eq!(one_line("a\nREADY=1\r\nb"), "a READY=1  b");
    }

    #[test]
    fn without_a_manager_nothing_is_sent_and_no_watchdog_runs() {
        let notifier = Notifier { enabled: false };
        notifier.ready("x");
        assert_eq!(notifier.watchdog_interval(), None);
    }
}
