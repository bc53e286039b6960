//! What the rest may ask of etcd; the only module that uses `etcd_client`.
//!
//! Every request has a deadline. On any failure the member is left for the next one; an answer,
//! even a refusal, is no failure. See `connection.rs` for the rules and [`timing`] for the times.

mod connection;
pub mod credentials;
mod endpoint;
mod error;
mod lease;
mod list;
mod outage;
mod own_key;
mod status;
pub mod timing;
mod watch;

use std::{collections::HashSet, time::Duration};

use self::{connection::Connection, list::Entry};
pub use self::{
    connection::Options,
    endpoint::parse_endpoints,
    error::Error,
    lease::{LeaseId, Ttl},
    outage::{Contact, Failure},
    own_key::{Claimed, Content, OwnKey, Sight},
    status::{Presence, Status},
};
use crate::{announcement::Announcement, host::Host, snapshot::Snapshot};

/// One cluster's announcements: a connection to etcd, and the prefix under which they are.
#[derive(Debug)]
pub struct Registry {
    connection: Connection,
    prefix: String,
    /// Keys that were warned about, so that each is once.
    warned: HashSet<Vec<u8>>,
}

impl Registry {
    /// Nothing is sent yet. `prefix` begins with `/` and does not end with one.
    ///
    /// # Errors
    /// [`Error::Unusable`] when a TLS or password file cannot be used.
    pub fn new(options: Options, prefix: String) -> Result<Self, Error> {
        Ok(Self { connection: Connection::new(options)?, prefix, warned: HashSet::new() })
    }

    /// Lists the announcements. Each page is one attempt; a list that fails is begun again at the
    /// next endpoint, until each had its turn.
    ///
    /// # Errors
    /// The last failure. A read that failed is never an empty list. Safe to drop.
    pub async fn list(&mut self) -> Result<Snapshot, Error> {
        let (revision, entries) = self.entries(None).await?;
        Ok(Snapshot::new(revision, entries.into_iter().map(|entry| entry.node).collect()))
    }

    /// Looks who is announced, or whether `host` is, under which lease and for how long. Tried at
    /// each endpoint, as [`Registry::list`].
    ///
    /// # Errors
    /// The last failure. Safe to drop.
    pub async fn status(&mut self, host: Option<&Host>) -> Result<Status, Error> {
        let (revision, entries) = self.entries(host).await?;
        let announced = status::with_ttl(&mut self.connection, entries).await?;
        Ok(Status { revision, announced })
    }

    async fn entries(&mut self, host: Option<&Host>) -> Result<(i64, Vec<Entry>), Error> {
        let mut endpoints_left = self.connection.endpoint_count();
        // Once: etcd was compacted while we read, or took our token for stale.
        let mut again = true;
        loop {
            match list::list(&mut self.connection, &self.prefix, host, &mut self.warned).await {
                Err(Error::Unavailable(_)) if endpoints_left > 1 => endpoints_left -= 1,
                Err(Error::StaleLogin(_) | Error::Compacted) if again => again = false,
                result => return result,
            }
        }
    }

    /// The key of `host`, to be announced for `ttl` at a time (whole seconds).
    pub fn own_key(mut self, host: &Host, announcement: &Announcement, ttl: Duration) -> OwnKey {
        self.connection.set_ttl(ttl);
        OwnKey::new(self.connection, format!("{}/{host}", self.prefix), announcement.to_json(), ttl)
    }
}
