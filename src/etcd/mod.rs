//! What the rest may ask of etcd; the only module that uses `etcd_client`.
//!
//! Every request has a deadline. On any failure the member is left for the next one; an answer,
//! even a refusal, is no failure. See `connection.rs` for the rules and `timing.rs` for the times.

mod connection;
mod contact;
mod crypto;
mod dial;
mod endpoint;
mod error;
mod follow;
mod formed_mark;
mod lease_requests;
mod list;
mod options;
mod outage;
mod overheard;
mod own_key;
mod patience;
mod pem;
mod presence;
mod roster;
mod round;
mod timing;
mod tls;
mod tls_files;
mod transactions;
mod watch_stream;
mod words;

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::watch::Sender;

use self::{
    connection::Connection,
    follow::Follower,
    list::{Listing, Warned},
};
pub use self::{
    contact::{Contact, Failure},
    endpoint::{Endpoint, parse_endpoints},
    error::Error,
    formed_mark::{FormedMark, Marked},
    options::Options,
    own_key::{Claimed, OwnKey},
    presence::{Presence, Status},
    tls_files::TlsFiles,
    transactions::Bootstrap,
};
use crate::{announcement::Announcement, host::Host, names::Names, snapshot::Snapshot};

/// One cluster's announcements: a connection to etcd, and the prefix under which they are.
#[derive(Debug)]
pub struct Registry {
    connection: Connection,
    prefix: String,
    warned: Warned,
}

impl Registry {
    /// Nothing is read or sent yet, but the lookups of the endpoints' names begin. `prefix` begins with `/` and does not
    /// end with one.
    pub fn new(options: Options, names: Names, prefix: String) -> Self {
        Self { connection: Connection::new(options, names), prefix, warned: Warned::default() }
    }

    /// Lists the announcements. Each page is one attempt; a list that fails is begun again at the
    /// next endpoint, until each had its turn.
    ///
    /// # Errors
    /// The last failure. A read that failed is never an empty list. Safe to drop.
    pub async fn list(&mut self) -> Result<Snapshot, Error> {
        let Listing { revision, entries, .. } = self.read(None).await?;
        Ok(Snapshot::new(revision, entries.into_iter().map(|entry| entry.node).collect()))
    }

    /// Looks who is announced, or whether `host` is, under which lease and for how long. Tried at
    /// each endpoint, as [`Registry::list`].
    ///
    /// # Errors
    /// The last failure. Safe to drop.
    pub async fn status(&mut self, host: Option<&Host>) -> Result<Status, Error> {
        let Listing { revision, entries, .. } = self.read(host).await?;
        let announced = presence::with_ttl(&mut self.connection, entries).await?;
        Ok(Status { revision, announced })
    }

    /// From now on everything has to be done within about this time: an attempt is cut so that each endpoint gets its turn.
    pub fn set_limit(&mut self, within: Duration) {
        self.connection.set_ttl(within);
    }

    async fn read(&mut self, host: Option<&Host>) -> Result<Listing, Error> {
        list::at_each_endpoint(&mut self.connection, &self.prefix, host, &mut self.warned).await
    }

    /// Publishes whole snapshots on change, for ever: list, watch, and on any trouble list again. Nothing is published
    /// until the first good list; while etcd cannot be read, the last snapshot stays.
    ///
    /// A host that is missing after an outage, or that ends as an aftermath of it, is kept for `hold`: for the moment,
    /// a wiped etcd is a valid empty list. Who is new, or has changed, is published at once.
    ///
    /// Never ends. Safe to drop.
    pub async fn follow(self, hold: Duration, publish: Sender<Option<Arc<Snapshot>>>) -> Infallible {
        Follower::new(self.connection, &self.prefix, self.warned, hold, publish).run().await
    }

    /// The key of `host`, to be announced for `ttl` at a time (whole seconds).
    pub fn own_key(mut self, host: &Host, announcement: &Announcement, ttl: Duration) -> OwnKey {
        self.connection.set_ttl(ttl);
        OwnKey::new(self.connection, format!("{}/{host}", self.prefix), announcement.to_json(), ttl)
    }

    /// What is stored for the first election.
    pub fn bootstrap(self) -> Bootstrap {
        Bootstrap::new(self.connection, &self.prefix)
    }

    /// What says that the cluster has formed, for `by` to say it.
    pub fn formed_mark(self, by: &Host) -> FormedMark {
        FormedMark::new(self.connection, &self.prefix, by)
    }
}
