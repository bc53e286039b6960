//! Asks the endpoints one after the other, for a caller that does not wait until etcd answers.

use super::{Connection, Error};

impl Connection {
    /// Runs `ask` at the endpoint whose turn it is, and if that does not answer, again at the next one, until each had
    /// its turn. If our token was stale, or the revision was compacted meanwhile, it runs `ask` once more.
    ///
    /// # Errors
    /// The last error. Safe to drop if `ask` is.
    pub(in super::super) async fn at_each_endpoint<T>(
        &mut self,
        mut ask: impl AsyncFnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (mut again, mut tries) = (true, 0);
        loop {
            tries += 1;
            match ask(self).await {
                // A failure after the first answer does not end a round, so the tries are counted, too.
                Err(Error::Unavailable(_)) if !self.round_is_over && tries < self.timing.endpoints => {}
                Err(Error::StaleLogin(_) | Error::Compacted) if again => again = false,
                result => return result,
            }
        }
    }
}
