//! A watch that treats silence, cancellation and the end of its stream as failures.
//!
//! The client library reports none of the three: a watch that is refused, compacted away, or on a
//! member that was cut off is `Ok` and silent.

use std::time::Duration;

use etcd_client::{Client, ResponseHeader, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, timeout_at};

use super::{connection::bounded, error::Error};

/// A watch is asked for a sign of life after this long without one.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// A watch, established.
pub(super) struct Watch {
    stream: WatchStream,
    attempt: Duration,
    heard: Instant,
}

impl Watch {
    /// Watches `key` from `revision` on; returns when etcd has confirmed the watch.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `revision` is gone: read the key again.
    pub(super) async fn key(
        mut client: Client,
        key: &str,
        revision: i64,
        attempt: Duration,
    ) -> Result<Self, Error> {
        let options = WatchOptions::new().with_start_revision(revision);
        let stream = client.watch(key, Some(options)).await?;
        Self::confirmed(stream, revision, attempt).await
    }

    /// Watches the keys from `from` to before `end`, from `revision` on; returns when etcd has confirmed the watch.
    ///
    /// Etcd cuts what it has to tell into messages of its own limit of a request, 1.5 MB unless told otherwise. Our limit
    /// is 4 MB: in one piece, the large changes of a busy moment could not be received.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `revision` is gone: list the keys again.
    pub(super) async fn range(
        mut client: Client,
        from: &str,
        end: &str,
        revision: i64,
        attempt: Duration,
    ) -> Result<Self, Error> {
        let options = WatchOptions::new().with_range(end).with_start_revision(revision).with_fragment();
        let stream = client.watch(from, Some(options)).await?;
        Self::confirmed(stream, revision, attempt).await
    }

    async fn confirmed(mut stream: WatchStream, revision: i64, attempt: Duration) -> Result<Self, Error> {
        let created = message(&mut stream).await?;
        if !created.created() {
            return Err(Error::Unavailable("the watch was not confirmed".to_owned()));
        }
        // A store that was replaced since `revision` was read would confirm it, and be silent until it gets there.
        let now = created.header().map_or(0, ResponseHeader::revision);
        if now > 0 && now + 1 < revision {
            return Err(Error::Unavailable("the store went back in time".to_owned()));
        }
        Ok(Self { stream, attempt, heard: Instant::now() })
    }

    /// When etcd last gave a sign of life.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// The next message that holds events. Safe to drop: no event is lost, for it stays in the stream.
    ///
    /// # Errors
    /// Whatever ended the watch, silence included.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, Error> {
        loop {
            let answer = match timeout_at(self.heard + PROGRESS_EVERY, message(&mut self.stream)).await {
                Ok(answer) => answer?,
                Err(_) => {
                    bounded(Instant::now() + self.attempt, async {
                        self.stream.request_progress().await?;
                        message(&mut self.stream).await
                    })
                    .await?
                }
            };
            self.heard = Instant::now();
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
