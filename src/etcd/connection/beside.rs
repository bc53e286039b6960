//! Sends one request to several endpoints at once. A withdrawal needs that, because it must be done within a given
//! time.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{super::options::connect, Connection, Error, Member};

/// The pause after a request that got no answer, before the next one.
const BREATH: Duration = Duration::from_millis(100);

impl Connection {
    /// Sends the request to the present member. Whenever a share of `limit` has passed, it sends it to the next
    /// endpoint as well, until one answers. A slow request is not given up.
    ///
    /// # Errors
    /// See [`Error`], but never [`Error::Unavailable`]: the caller limits the time. If the future is dropped, we do not
    /// know whether etcd acted on the request.
    pub(super) async fn ask_beside<T, F>(
        &mut self,
        limit: Duration,
        request: impl Fn(Member) -> F + Clone + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let most = self.round.len() + 1;
        let stagger = limit / (2 * self.timing.endpoints.max(3));
        let mut asked = JoinSet::new();
        let mut next = Instant::now();
        if let Some(client) = self.client.take() {
            asked.spawn(request(client));
            next += stagger;
        }
        loop {
            tokio::select! {
                Some(answer) = asked.join_next() => {
                    // This is never an error: the task does not panic, and nobody aborts it while we wait here.
                    let Ok(answer) = answer else { continue };
                    match answer {
                        Err(Error::Unavailable(reason)) => {
                            self.contact.set_failure(reason);
                            next = next.min(Instant::now() + BREATH);
                        }
                        Err(Error::StaleLogin(_)) => next = Instant::now(),
                        answer => return answer,
                    }
                }
                () = sleep_until(next), if asked.len() < most => {
                    next = Instant::now() + stagger;
                    let (options, request) = (Arc::clone(&self.options), request.clone());
                    let Some(target) = self.round.target().cloned() else { continue };
                    self.round.leave();
                    let Some(address) = target.address else { continue };
                    self.contact.set_endpoint(target.shown());
                    asked.spawn(async move {
                        let client = connect(options, target.endpoint, address).await?;
                        request(client).await
                    });
                }
            }
        }
    }
}
