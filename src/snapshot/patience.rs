//! How long a server is waited for, and how often what failed is tried again.

use std::time::Duration;

use crate::error::{Code, Failure, Retry, retry_of};

/// How often a lost connection is made anew, and the longest pause between.
const ATTEMPTS: u32 = 8;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Pause before another attempt.
pub(super) fn pause(attempt: u32) -> Duration {
    (Duration::from_millis(50) * 2_u32.saturating_pow(attempt)).min(LONGEST_PAUSE)
}

/// Whether the failure is of the connection or of the moment, and not of what was asked.
pub(super) fn is_passing(failure: &Failure) -> bool {
    // A server that is starting again refuses connections for a while.
    let unreachable = failure.known_code() == Some(Code::DriverError) && !failure.raw_cause.starts_with("Error ");
    unreachable || retry_of(failure) == Retry::InPlace
}

/// Whether an attempt after this failure may do better.
pub(super) fn worth_another(failure: &Failure, attempt: u32) -> bool {
    attempt < ATTEMPTS && is_passing(failure)
}

/// Waits for an answer, but not for ever.
pub(super) async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, mysql_async::Error>>,
) -> Result<T, mysql_async::Error> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let text = format!("no answer within {} s", patience.as_secs());
            Err(mysql_async::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text).into()))
        }
    }
}
