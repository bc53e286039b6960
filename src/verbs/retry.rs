//! Waits and tries again, for a verb that ends when it is done or its time is over.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::etcd::Error;

/// Between two tries while something has to happen first.
pub(super) const TRY_EVERY: Duration = Duration::from_millis(500);

/// What came of one try.
pub(super) enum Tried<T> {
    /// It is done.
    Done(T),
    /// No waiting can mend this.
    Failed(anyhow::Error),
    /// Not yet, because of this; or, without a reason, because somebody else was quicker.
    NotYet(Option<anyhow::Error>),
}

impl<T> Tried<T> {
    /// What `error` is to whoever tries again: etcd may be back in a moment, and a refusal may not.
    pub(super) fn of_error(error: Error) -> Self {
        if is_final(&error) { Self::Failed(error.into()) } else { Self::NotYet(Some(error.into())) }
    }
}

/// Tries `within` this time until it is done or failed.
///
/// # Errors
/// Why it failed, or why it was not done at the last try that had an answer. Safe to drop if `attempt` is.
pub(super) async fn retry<T>(
    within: Duration,
    mut attempt: impl AsyncFnMut() -> Tried<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    let mut last = Error::no_answer().into();
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Tried::Done(done)) => return Ok(done),
            Ok(Tried::Failed(error)) => return Err(error),
            Ok(Tried::NotYet(reason)) => last = reason.unwrap_or(last),
            Err(_) => return Err(last),
        }
        if timeout_at(deadline, sleep(TRY_EVERY)).await.is_err() {
            return Err(last);
        }
    }
}

/// Whether trying again at once changes nothing.
pub(super) fn is_final(error: &Error) -> bool {
    error.is_refusal() || matches!(error, Error::Unusable(_))
}
