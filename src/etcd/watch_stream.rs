//! A watch that treats cancellation and the end of its stream as failures.
//!
//! The client library reports neither: a watch that is refused, compacted away, or on a member that was cut off is `Ok`
//! and silent. Its silence is no failure either: etcd's grpc-proxy answers no request for progress. Whoever watches also
//! looks, at each tick, and that decides.

use etcd_client::{ResponseHeader, WatchOptions, WatchResponse, WatchStream};

use super::{dial::Member, error::Error};

/// A watch, established.
pub(super) struct Watch {
    stream: WatchStream,
    /// It has told everything up to this revision.
    told: i64,
}

impl Watch {
    /// Watches `key` from `revision` on; returns when etcd has confirmed the watch.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `revision` is gone: read the key again.
    pub(super) async fn key(client: Member, key: &str, revision: i64) -> Result<Self, Error> {
        let options = WatchOptions::new().with_start_revision(revision);
        let stream = client.watch().watch(key, Some(options)).await?;
        Self::confirmed(stream, revision).await
    }

    /// Watches the keys from `from` to before `end`, from `revision` on; returns when etcd has confirmed the watch.
    ///
    /// Etcd cuts what it has to tell into messages of its own limit of a request, 1.5 MB unless told otherwise. Our limit
    /// is 2 MB: in one piece, the large changes of a busy moment could not be received.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `revision` is gone: list the keys again.
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
        // A store that was replaced since `revision` was read would confirm it, and be silent until it gets there.
        let now = created.header().map_or(0, ResponseHeader::revision);
        if now > 0 && now + 1 < revision {
            return Err(Error::Unavailable("the store went back in time".to_owned()));
        }
        // What the confirmation's header has is the store's revision, and nothing of it was told yet.
        Ok(Self { stream, told: 0 })
    }

    /// Asks how far it has told everything; see [`Watch::told`]. It keeps the stream from being idle, too, which balancers
    /// end after a while.
    ///
    /// # Errors
    /// The stream has ended. Safe to drop.
    pub(super) async fn request_progress(&mut self) -> Result<(), Error> {
        Ok(self.stream.request_progress().await?)
    }

    /// Up to which revision it is known to have told everything; 0 where there was no message yet.
    pub(super) fn told(&self) -> i64 {
        self.told
    }

    /// The next message that holds events. Safe to drop: no event is lost, for it stays in the stream.
    ///
    /// # Errors
    /// Whatever ended the watch.
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
