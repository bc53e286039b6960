//! Announcements: all of a prefix, in pages at one pinned revision, or one host's.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use etcd_client::{GetOptions, GetResponse, KeyValue, ResponseHeader};
use tokio::time::Instant;
use tracing::warn;

use super::{connection::Connection, dial::Member, error::Error};
use crate::{
    announcement::Announcement, budget::Budget, host::Host, lease::LeaseId, snapshot::Node, text::decode,
};

/// Keys in one page. A page that is too large for a message is halved.
const PAGE: i64 = 1000;
/// More keys than this under one prefix are no list of hosts.
const MOST_KEYS: i64 = 100_000;
/// What is kept of a list may take so many bytes, as [`size`] counts them: some 18,000 hosts with short names. The process
/// keeps several times that, and lives in 16 MB.
pub(super) const LARGEST: usize = 5 * 512 * 1024;
/// A whole list, all its pages together, may take as long as so many attempts.
const LONGEST: u32 = 4;

/// One announcement, and what etcd knows of its key.
pub(super) struct Entry {
    pub(super) node: Node,
    pub(super) lease: Option<LeaseId>,
    pub(super) mod_revision: i64,
}

/// What it costs to keep one of them, in bytes: its texts, and what is around them.
pub(super) fn size(host: &Host, announcement: &Announcement) -> usize {
    128 + host.as_str().len() + announcement.address.as_ref().map_or(0, |address| address.as_str().len())
}

/// What was read of a prefix.
pub(super) struct Listing {
    /// The revision that was read.
    pub(super) revision: i64,
    /// How many keys there are, those that are no announcements included.
    pub(super) keys: i64,
    /// The announcements, as etcd sorts them.
    pub(super) entries: Vec<Entry>,
}

/// The keys that were warned about, so that each is once, and not more than a few of many.
#[derive(Debug)]
pub(super) struct Warned {
    hasher: RandomState,
    /// Not the keys themselves: somebody may write new ones for as long as we run.
    hashes: HashSet<u64>,
    /// How often a key may be named.
    named: Budget,
    /// How many were not.
    unnamed: u64,
}

/// Then those that were warned about are forgotten: half a megabyte.
const MOST_WARNED: usize = 50_000;
/// So many keys are named in a row, and ten a minute after that.
const NAMED: Budget = Budget::new(100, Duration::from_secs(6));

impl Default for Warned {
    fn default() -> Self {
        Self { hasher: RandomState::new(), hashes: HashSet::new(), named: NAMED, unnamed: 0 }
    }
}

impl Warned {
    /// Whether `key` has to be warned about now, by its name.
    pub(super) fn is_new(&mut self, key: &[u8]) -> bool {
        if self.hashes.len() >= MOST_WARNED {
            self.hashes.clear();
        }
        let is_new = self.hashes.insert(self.hasher.hash_one(key));
        let is_named = is_new && self.named.take_now(Instant::now());
        self.unnamed += u64::from(is_new && !is_named);
        is_named
    }

    /// Warns of those that were not named, if there are any.
    pub(super) fn tell_unnamed(&mut self) {
        let keys = std::mem::take(&mut self.unnamed);
        if keys > 0 {
            warn!(keys, "skipped more keys that are no announcements");
        }
    }
}

/// The keys that begin with `<prefix>/`: from the first to before the second.
pub(super) fn range(prefix: &str) -> (String, String) {
    // "0" follows "/".
    (format!("{prefix}/"), format!("{prefix}0"))
}

/// Lists what is announced under `<prefix>/`, by everybody or by `host` alone. What is no valid
/// announcement is skipped with one warning that names the key, unless it was warned about already.
///
/// # Errors
/// See [`Error`]: a read that failed is never an empty list. Safe to drop.
pub(super) async fn list(
    connection: &mut Connection,
    prefix: &str,
    host: Option<&Host>,
    warned: &mut Warned,
) -> Result<Listing, Error> {
    let (directory, end) = range(prefix);
    let (mut from, end) = match host {
        Some(host) => (format!("{directory}{host}").into_bytes(), format!("{directory}{host}\0")),
        None => (directory.clone().into_bytes(), end),
    };
    let (mut revision, mut keys) = (0, 0);
    let mut limit = PAGE;
    let mut entries = Vec::new();
    let (mut read, mut kept) = (0, 0);
    let mut deadline = None;
    loop {
        let options = GetOptions::new().with_range(end.as_str()).with_limit(limit).with_revision(revision);
        let page = get(connection, &from, options.clone()).await;
        // The first page may have to wait for a back-off, and for the name service.
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + connection.attempt() * LONGEST);
        let page = match page {
            Err(Error::TooLarge) if limit > 1 => {
                limit /= 2;
                continue;
            }
            // One key alone is too large: it is no announcement, but what comes after it may be.
            Err(Error::TooLarge) => get(connection, &from, options.with_keys_only()).await?,
            other => other?,
        };
        if revision == 0 {
            // Every further page reads the store as it was for the first.
            revision = page.header().map_or(0, ResponseHeader::revision);
            // Of the whole range, whatever the limit is.
            keys = page.count();
        }
        read += i64::try_from(page.kvs().len()).unwrap_or(i64::MAX);
        let absurd = if keys > MOST_KEYS || read > MOST_KEYS {
            Some(format!("there are more than {MOST_KEYS} keys under the prefix"))
        } else if page.kvs().first().is_some_and(|first| first.key() < from.as_slice())
            || !page.kvs().is_sorted_by(|one, next| one.key() < next.key())
        {
            Some("etcd's list does not advance".to_owned())
        } else if read > keys {
            Some("etcd's list is longer than etcd says".to_owned())
        } else if page.more() && i64::try_from(page.kvs().len()).is_ok_and(|count| count < limit) {
            // The limit is the only reason for which etcd ends a page.
            Some("etcd's list has a page that is not full, and goes on".to_owned())
        } else if page.more() && Instant::now() > deadline {
            Some("etcd's list does not come to its end in time".to_owned())
        } else {
            entries.extend(page.kvs().iter().filter_map(|kv| {
                let node = node(kv, &directory, warned)?;
                kept += size(&node.host, &node.announcement);
                Some(Entry { node, lease: LeaseId::from_etcd(kv.lease()), mod_revision: kv.mod_revision() })
            }));
            (kept > LARGEST).then(too_large)
        };
        if let Some(reason) = absurd {
            return Err(connection.doubted(reason));
        }
        match page.kvs().last() {
            Some(last) if page.more() => {
                from = [last.key(), b"\0"].concat();
                limit = (limit * 2).min(PAGE);
            }
            _ => {
                connection.believed();
                warned.tell_unnamed();
                return Ok(Listing { revision, keys, entries });
            }
        }
    }
}

/// As [`list`], begun again at the next endpoint until each had its turn.
///
/// # Errors
/// The last failure. Safe to drop.
pub(super) async fn at_each_endpoint(
    connection: &mut Connection,
    prefix: &str,
    host: Option<&Host>,
    warned: &mut Warned,
) -> Result<Listing, Error> {
    connection.at_each_endpoint(async |connection| list(connection, prefix, host, warned).await).await
}

/// That what is announced is larger than [`LARGEST`].
pub(super) fn too_large() -> String {
    format!("what is announced under the prefix takes more than {LARGEST} bytes of memory")
}

async fn get(connection: &mut Connection, from: &[u8], options: GetOptions) -> Result<GetResponse, Error> {
    let answer =
        connection.call(async |client: Member| Ok(client.kv().get(from, Some(options)).await?)).await;
    if answer.is_ok() {
        connection.accepted();
    }
    answer
}

/// The host that `key` is of, if it is one.
pub(super) fn host(key: &[u8], directory: &str) -> Result<Host, String> {
    let host = key.strip_prefix(directory.as_bytes()).unwrap_or_default();
    let host = std::str::from_utf8(host).map_err(|_| "the host is not UTF-8".to_owned())?;
    host.parse().map_err(|e| format!("the host is invalid: {e}"))
}

/// The announcement that `kv` is, or none, with a warning.
pub(super) fn node(kv: &KeyValue, directory: &str, warned: &mut Warned) -> Option<Node> {
    let read = || -> Result<Node, String> {
        let host = host(kv.key(), directory)?;
        let invalid =
            |e: serde_json::Error| format!("the value is invalid: {}", decode(e.to_string().as_bytes()));
        let announcement = Announcement::from_json(kv.value()).map_err(invalid)?;
        Ok(Node { host, announcement })
    };
    read()
        .inspect_err(|reason| {
            if warned.is_new(kv.key()) {
                warn!(key = decode(kv.key()), reason, "skipped a key that is no announcement");
            }
        })
        .ok()
}
