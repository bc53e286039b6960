//! A watch that treats silence, cancellation and the end of its stream as failures.
//!
//! The client library reports none of the three: a watch that is refused, compacted away, or on a
//! member that was cut off is `Ok` and silent.

use std::time::Duration;

use etcd_client::{Client, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, timeout_at};

use super::{connection::bounded, error::Error};

/// A watch is asked for a sign of life after this long without one.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// A watch on one key, established.
pub(super) struct Watch {
    stream: WatchStream,
    attempt: Duration,
    ask_at: Instant,
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
        let mut stream = client.watch(key, Some(options)).await?;
        let created = message(&mut stream).await?;
        if !created.created() {
            return Err(Error::Unavailable("the watch was not confirmed".to_owned()));
        }
        Ok(Self { stream, attempt, ask_at: Instant::now() + PROGRESS_EVERY })
    }

    /// The next message that holds events. Safe to drop: no event is lost, for it stays in the stream.
    ///
    /// # Errors
    /// Whatever ended the watch, silence included.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, Error> {
        loop {
            let answer = match timeout_at(self.ask_at, message(&mut self.stream)).await {
                Ok(answer) => answer?,
                Err(_) => {
                    bounded(Instant::now() + self.attempt, async {
                        self.stream.request_progress().await?;
                        message(&mut self.stream).await
                    })
                    .await?
                }
            };
            self.ask_at = Instant::now() + PROGRESS_EVERY;
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
