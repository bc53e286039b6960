//! The first look at certificates and password, for a verb that goes on whatever it finds.

use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::{Error, Options};
use crate::thread;

/// How long a start waits for the look.
const LONGEST: Duration = Duration::from_secs(1);

impl Options {
    /// Reads the files once, on a thread of its own, and warns of one that cannot be used now: every connection reads
    /// them anew, so one that comes late is waited for. Takes at most a second, also where the disk hangs. Safe to drop.
    ///
    /// # Errors
    /// [`Error::Unusable`] where no waiting can mend it: a directory, say, has the place of a file.
    pub async fn look_at_files(&self) -> Result<(), Error> {
        let options = self.clone();
        let look = thread::run("credentials", move || {
            options.read_files().map_err(|error| {
                let is_lasting = matches!(&error, Error::Unusable(file) if file.is_lasting());
                (error, is_lasting)
            })
        });
        match timeout(LONGEST, look).await {
            Ok(Ok(Err((error, true)))) => return Err(error),
            Ok(Ok(Err((error, false)))) => {
                warn!(reason = %error, "etcd cannot be asked before this file can be used: it is tried again and again");
            }
            Err(_) => warn!("the disk with the files for etcd does not answer"),
            // Without a thread there is nothing to be said of them yet.
            Ok(Ok(Ok(())) | Err(_)) => {}
        }
        Ok(())
    }
}
