//! Tries again and again, for a verb that ends when it is done or when its time is over.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::etcd::Error;

/// The pause between two tries.
pub(super) const TRY_EVERY: Duration = Duration::from_millis(500);

/// The result of one try.
pub(super) enum Tried<T> {
    /// It is done.
    Done(T),
    /// It failed, and waiting cannot help.
    Failed(anyhow::Error),
    /// It is not done yet, for this reason. Without a reason: another process wrote first.
    NotYet(Option<anyhow::Error>),
}

impl<T> Tried<T> {
    /// How to go on after `error`: a refusal or an unusable option is final, everything else may be over in a moment.
    pub(super) fn of_error(error: Error) -> Self {
        if is_final(&error) { Self::Failed(error.into()) } else { Self::NotYet(Some(error.into())) }
    }
}

/// Calls `attempt` until it is done or failed, or the time `within` is over.
///
/// # Errors
/// The reason of a try that failed. When the time is over: the reason of the last try that ended; if none ended, that
/// etcd gave no answer. Safe to drop if `attempt` is.
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

/// Whether trying again at once cannot help.
pub(super) fn is_final(error: &Error) -> bool {
    error.is_refusal() || matches!(error, Error::Unusable(_))
}
