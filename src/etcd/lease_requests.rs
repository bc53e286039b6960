//! The requests about one lease: grant it with an id of our choice, keep it alive, revoke it.

use std::time::Duration;

use etcd_client::{LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::Instant;

use super::{dial::Member, error::Error};
use crate::lease::{LeaseId, Ttl};

/// The longest TTL to which etcd may raise ours: one and a half times the election timeout, which is at most 50 s
/// (`embed/config.go`, `maxElectionMs`; `lessor.go`, `minLeaseTTL`).
const LONGEST_MINIMUM: Duration = Duration::from_secs(75);

/// Grants a lease with `id` for `ttl` (whole seconds). Returns the TTL that etcd chose, which is longer if `ttl` is
/// below its minimum of 1.5 election timeouts. If that TTL cannot be true, it returns a sentence that says so.
///
/// # Errors
/// [`Error::LeaseExists`] if `id` is taken already.
pub(super) async fn grant(
    client: Member,
    id: LeaseId,
    ttl: Duration,
) -> Result<Result<Duration, String>, Error> {
    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let answer = client.lease().grant(seconds, Some(LeaseGrantOptions::new().with_id(id.get()))).await?;
    // A member that promises less than a second, or a TTL without an end, cannot be relied on.
    let granted = u64::try_from(answer.ttl()).map_or(Duration::ZERO, Duration::from_secs);
    if granted.is_zero() || granted > ttl.max(LONGEST_MINIMUM) {
        let absurd = format!("etcd granted a TTL of {} s, and {seconds} s were asked for", answer.ttl());
        return Ok(Err(absurd));
    }
    Ok(Ok(granted))
}

/// Revokes `id`, which deletes the keys that are attached to it and no others. Returns whether it existed.
pub(super) async fn revoke(client: &Member, id: LeaseId) -> Result<bool, Error> {
    match client.lease().revoke(id.get()).await.map_err(Error::from) {
        Ok(_) => Ok(true),
        Err(Error::LeaseNotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Asks how long `id` still lives. `None` if it does not exist.
pub(super) async fn time_to_live(client: Member, id: LeaseId) -> Result<Option<Ttl>, Error> {
    let answer = client.lease().time_to_live(id.get(), None).await?;
    let seconds = |n: i64| u64::try_from(n).ok().map(Duration::from_secs);
    // Etcd answers -1 for a lease that does not exist.
    Ok(seconds(answer.granted_ttl()).zip(seconds(answer.ttl())).map(|(granted, left)| Ttl { granted, left }))
}

/// A stream of keep-alives, of which one at a time is unanswered. Dropping it ends the stream; the lease then ends
/// after its TTL.
pub(super) struct KeepAlive {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    /// When we sent the last renewal that was answered.
    sent: Instant,
}

impl KeepAlive {
    /// Opens a new stream, and renews once over it.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] if etcd says that the lease is gone.
    pub(super) async fn start(client: &Member, id: LeaseId) -> Result<Self, Error> {
        let sent = Instant::now();
        let (keeper, answers) = client.lease().keep_alive(id.get()).await?;
        Ok(Self { keeper, answers, sent })
    }

    /// When we sent the last renewal that was answered.
    pub(super) fn sent(&self) -> Instant {
        self.sent
    }

    /// Renews once more. If it succeeds, [`KeepAlive::sent`] is the time when this renewal was sent.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] if etcd says that the lease is gone. After any error, and after a drop, the stream
    /// cannot be used any more, because an old answer may still come.
    pub(super) async fn renew(&mut self) -> Result<(), Error> {
        let sent = Instant::now();
        self.ask().await?;
        self.sent = sent;
        Ok(())
    }

    async fn ask(&mut self) -> Result<(), Error> {
        self.keeper.keep_alive().await?;
        match self.answers.message().await? {
            // On an open stream, etcd tells the end of a lease as a TTL of zero, and not as an error.
            Some(answer) if answer.ttl() <= 0 => Err(Error::LeaseNotFound),
            Some(_) => Ok(()),
            None => Err(Error::Unavailable("the keep-alive stream ended".to_owned())),
        }
    }
}
