//! A watch that reports a cancellation, and the end of its stream, as an error.
//!
//! The client library reports neither: a watch that is refused, or compacted away, or on a member that was cut off, is
//! `Ok` and silent. Silence is no failure either, because etcd's grpc-proxy answers no request for progress. So the
//! users of a watch also read at each tick, and that read decides.

use etcd_client::{ResponseHeader, WatchOptions, WatchResponse, WatchStream};

use super::{dial::Member, error::Error};

/// A watch that etcd has confirmed.
pub(super) struct Watch {
    stream: WatchStream,
    /// The watch has told everything up to this revision.
    told: i64,
}

impl Watch {
    /// Watches `key` from `revision` on. Returns when etcd has confirmed the watch.
    ///
    /// # Errors
    /// [`Error::Compacted`] if `revision` is gone: read the key again.
    pub(super) async fn key(client: Member, key: &str, revision: i64) -> Result<Self, Error> {
        let options = WatchOptions::new().with_start_revision(revision);
        let stream = client.watch().watch(key, Some(options)).await?;
        Self::confirmed(stream, revision).await
    }

    /// Watches the keys from `from` to before `end`, from `revision` on. Returns when etcd has confirmed the watch.
    ///
    /// Etcd cuts its messages into pieces of its limit for a request, which is 1.5 MB by default. We accept 2 MB, so
    /// without the pieces we could not receive many large changes at once.
    ///
    /// # Errors
    /// [`Error::Compacted`] if `revision` is gone: list the keys again.
    pub(super) async fn range(client: Member, from: &str, end: &str, revision: i64) -> Result<Self, Error> {
        let options = WatchOptions::new().with_range(end).with_start_revision(revision).with_fragment();
        let stream = client.watch().watch(from, Some(options)).await?;
        Self::confirmed(stream, revision).await
    }

    async fn confirmed(mut stream: WatchStream, revision: i64) -> Result<Self, Error> {
        let created = message(&mut stream).await?;
        if !created.created() {
            return Err(Error::Unavailable("the watch was not confirmed".to_owned()));
        }
        // A store that was replaced after `revision` was read would confirm the watch, and be silent until it reaches
        // that revision.
        let now = created.header().map_or(0, ResponseHeader::revision);
        if now > 0 && now + 1 < revision {
            return Err(Error::Unavailable("the store went back in time".to_owned()));
        }
        // The header of the confirmation has the revision of the store, but the watch has told nothing yet.
        Ok(Self { stream, told: 0 })
    }

    /// Asks how far the watch has told everything; see [`Watch::told`]. This also keeps the stream from being idle,
    /// because load balancers end idle streams after a while.
    ///
    /// # Errors
    /// The stream has ended. Safe to drop.
    pub(super) async fn request_progress(&mut self) -> Result<(), Error> {
        Ok(self.stream.request_progress().await?)
    }

    /// The revision up to which the watch has told everything. 0 if there was no message yet.
    pub(super) fn told(&self) -> i64 {
        self.told
    }

    /// The next message with events. Safe to drop: no event is lost, because it stays in the stream.
    ///
    /// # Errors
    /// The reason why the watch ended.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, Error> {
        loop {
            let answer = message(&mut self.stream).await?;
            self.told = self.told.max(answer.header().map_or(0, ResponseHeader::revision));
            if !answer.events().is_empty() {
                return Ok(answer);
            }
        }
    }
}

async fn message(stream: &mut WatchStream) -> Result<WatchResponse, Error> {
    match stream.message().await? {
        Some(answer) if answer.canceled() && answer.compact_revision() > 0 => Err(Error::Compacted),
        Some(answer) if answer.canceled() => Err(Error::from_message(answer.cancel_reason())),
        Some(answer) => Ok(answer),
        None => Err(Error::Unavailable("the watch stream ended".to_owned())),
    }
}
