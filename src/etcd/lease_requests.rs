//! What is asked of etcd about one lease: to grant it under an id of our choice, to keep it alive, to revoke it.

use std::time::Duration;

use etcd_client::{LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::Instant;

use super::{dial::Member, error::Error};
use crate::lease::{LeaseId, Ttl};

/// The longest TTL that etcd grants for its own sake: one and a half times an election time-out, which is 50 s at most
/// (`embed/config.go`, `maxElectionMs`; `lessor.go`, `minLeaseTTL`).
const LONGEST_MINIMUM: Duration = Duration::from_secs(75);

/// Grants `id` for `ttl` (whole seconds). Gives the TTL that etcd chose, which is longer where
/// `ttl` is below its minimum of 1.5 election timeouts; or, in words, one that cannot be.
///
/// # Errors
/// [`Error::LeaseExists`] when `id` is somebody's already.
pub(super) async fn grant(
    client: Member,
    id: LeaseId,
    ttl: Duration,
) -> Result<Result<Duration, String>, Error> {
    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let answer = client.lease().grant(seconds, Some(LeaseGrantOptions::new().with_id(id.get()))).await?;
    // Whoever promises less than a second, or for ever, is no member to rely on.
    let granted = u64::try_from(answer.ttl()).map_or(Duration::ZERO, Duration::from_secs);
    if granted.is_zero() || granted > ttl.max(LONGEST_MINIMUM) {
        let absurd = format!("etcd granted a TTL of {} s, and {seconds} s were asked for", answer.ttl());
        return Ok(Err(absurd));
    }
    Ok(Ok(granted))
}

/// Revokes `id`, which deletes the keys attached to it and no others. Gives whether it existed.
pub(super) async fn revoke(client: &Member, id: LeaseId) -> Result<bool, Error> {
    match client.lease().revoke(id.get()).await.map_err(Error::from) {
        Ok(_) => Ok(true),
        Err(Error::LeaseNotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Asks how long `id` lives. None when it is not there.
pub(super) async fn time_to_live(client: Member, id: LeaseId) -> Result<Option<Ttl>, Error> {
    let answer = client.lease().time_to_live(id.get(), None).await?;
    let seconds = |n: i64| u64::try_from(n).ok().map(Duration::from_secs);
    // Etcd says -1 of a lease that is not there.
    Ok(seconds(answer.granted_ttl()).zip(seconds(answer.ttl())).map(|(granted, left)| Ttl { granted, left }))
}

/// A stream of keep-alives, one outstanding at a time. Dropping it ends the stream; the lease then
/// ends with its TTL.
pub(super) struct KeepAlive {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    /// When the last renewal that was answered had been sent.
    sent: Instant,
}

impl KeepAlive {
    /// Renews once, over a new stream.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] when etcd says that the lease is gone.
    pub(super) async fn start(client: &Member, id: LeaseId) -> Result<Self, Error> {
        let sent = Instant::now();
        let (keeper, answers) = client.lease().keep_alive(id.get()).await?;
        Ok(Self { keeper, answers, sent })
    }

    /// When the last renewal that was answered had been sent.
    pub(super) fn sent(&self) -> Instant {
        self.sent
    }

    /// Renews once more, and then knows when that had been sent.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] when etcd says that the lease is gone. After any error, or when dropped, the stream is of
    /// no use any more: an answer may come late.
    pub(super) async fn renew(&mut self) -> Result<(), Error> {
        let sent = Instant::now();
        self.ask().await?;
        self.sent = sent;
        Ok(())
    }

    async fn ask(&mut self) -> Result<(), Error> {
        self.keeper.keep_alive().await?;
        match self.answers.message().await? {
            // That is how etcd says it on an open stream: no error, a TTL of zero.
            Some(answer) if answer.ttl() <= 0 => Err(Error::LeaseNotFound),
            Some(_) => Ok(()),
            None => Err(Error::Unavailable("the keep-alive stream ended".to_owned())),
        }
    }
}
