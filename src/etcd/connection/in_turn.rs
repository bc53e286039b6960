//! Asks the endpoints one after the other, for whoever does not wait until etcd answers.

use super::{Connection, Error};

impl Connection {
    /// Does what `ask` says at the endpoint that has its turn, and begins it again at the next one until each had its
    /// turn. Where etcd took our token for stale, or was compacted meanwhile, it is done once more.
    ///
    /// # Errors
    /// The last failure. Safe to drop if `ask` is.
    pub(in super::super) async fn at_each_endpoint<T>(
        &mut self,
        mut ask: impl AsyncFnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (mut again, mut tries) = (true, 0);
        loop {
            tries += 1;
            match ask(self).await {
                // What fails after its first answer ends no round.
                Err(Error::Unavailable(_)) if !self.round_is_over && tries < self.timing.endpoints => {}
                Err(Error::StaleLogin(_) | Error::Compacted) if again => again = false,
                result => return result,
            }
        }
    }
}
