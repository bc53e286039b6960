//! All requests to etcd. This is the only room that uses `etcd_client`.
//!
//! Every request has a deadline. After any failure the connection goes to the next member. An answer is no failure,
//! even if it is a refusal. The rules are in `connection.rs`, the times in `timing.rs`.

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

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use tokio::sync::watch::{Receiver, Sender};

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

/// The announcements of one cluster: a connection to etcd, and the prefix of the keys.
#[derive(Debug)]
pub struct Registry {
    connection: Connection,
    prefix: String,
    warned: Warned,
}

impl Registry {
    /// Sends and reads nothing yet, but starts the lookups of the names of the endpoints. `prefix` begins with `/` and
    /// does not end with one.
    pub fn new(options: Options, names: Names, prefix: String) -> Self {
        Self { connection: Connection::new(options, names), prefix, warned: Warned::default() }
    }

    /// Lists the announcements. Each page is one attempt. If a list fails, it begins again at the next endpoint, until
    /// each had its turn.
    ///
    /// # Errors
    /// The last error. A read that failed never gives an empty list. Safe to drop.
    pub async fn list(&mut self) -> Result<Snapshot, Error> {
        let Listing { revision, entries, .. } = self.read(None).await?;
        Ok(Snapshot::new(revision, entries.into_iter().map(|entry| entry.node).collect()))
    }

    /// Reads all announcements, or that of `host`, with their leases and how long those still live. It tries each
    /// endpoint once, as [`Registry::list`].
    ///
    /// # Errors
    /// The last error. Safe to drop.
    pub async fn status(&mut self, host: Option<&Host>) -> Result<Status, Error> {
        let Listing { revision, entries, .. } = self.read(host).await?;
        let announced = presence::with_ttl(&mut self.connection, entries).await?;
        Ok(Status { revision, announced })
    }

    /// From now on everything must be done within about this time. Attempts are made so short that each endpoint gets
    /// its turn.
    pub fn set_limit(&mut self, within: Duration) {
        self.connection.set_ttl(within);
    }

    async fn read(&mut self, host: Option<&Host>) -> Result<Listing, Error> {
        list::at_each_endpoint(&mut self.connection, &self.prefix, host, &mut self.warned).await
    }

    /// Publishes a whole snapshot after each change, for ever. It lists, watches, and lists again after any trouble.
    /// Nothing is published before the first list that succeeds. While etcd cannot be read, the last snapshot stays.
    ///
    /// A host that is missing after an outage, or whose key ends soon after it, is kept for `hold`, because an etcd
    /// that lost its data looks like a valid empty list at first. A host that is new or has changed is published at
    /// once.
    ///
    /// Never ends. Safe to drop.
    pub async fn follow(self, hold: Duration, publish: Sender<Option<Arc<Snapshot>>>) -> Infallible {
        self.follow_while(hold, publish, |_| true).await;
        pending().await
    }

    /// As [`Registry::follow`], but it ends when `goes_on` is false for the error of a list; returns that error. Safe to
    /// drop.
    pub async fn follow_while(
        self,
        hold: Duration,
        publish: Sender<Option<Arc<Snapshot>>>,
        goes_on: impl FnMut(&Error) -> bool,
    ) -> Error {
        Follower::new(self.connection, &self.prefix, self.warned, hold, publish).run(goes_on).await
    }

    /// The state of the connection, which can be read while a request is on its way.
    pub fn contact(&self) -> Receiver<Contact> {
        self.connection.contact().subscribe()
    }

    /// The key of `host`, to be announced with a lease of `ttl` (whole seconds).
    pub fn own_key(mut self, host: &Host, announcement: &Announcement, ttl: Duration) -> OwnKey {
        self.connection.set_ttl(ttl);
        OwnKey::new(self.connection, format!("{}/{host}", self.prefix), announcement.to_json(), ttl)
    }

    /// The keys of the first election.
    pub fn bootstrap(self) -> Bootstrap {
        Bootstrap::new(self.connection, &self.prefix)
    }

    /// The mark "formed". `by` is the host that puts it.
    pub fn formed_mark(self, by: &Host) -> FormedMark {
        FormedMark::new(self.connection, &self.prefix, by)
    }
}
