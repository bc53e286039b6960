//! Reads announcements: all of a prefix, in pages at one revision, or that of one host.

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

/// How many keys are in one page. If a page is too large for a message, half as many are asked for.
const PAGE: i64 = 1000;
/// A prefix with more keys than this cannot be a list of hosts.
const MOST_KEYS: i64 = 100_000;
/// The largest list that is kept, in bytes as [`size`] counts them: some 18,000 hosts with short names. The process
/// keeps it several times, and must live in 16 MB.
pub(super) const LARGEST: usize = 5 * 512 * 1024;
/// A whole list, with all its pages, may take as long as this many attempts.
const LONGEST: u32 = 4;

/// One announcement, and the lease and revision of its key.
pub(super) struct Entry {
    pub(super) node: Node,
    pub(super) lease: Option<LeaseId>,
    pub(super) mod_revision: i64,
}

/// The memory for one announcement, in bytes: its texts, and what is kept with them.
pub(super) fn size(host: &Host, announcement: &Announcement) -> usize {
    128 + host.as_str().len() + announcement.address.as_ref().map_or(0, |address| address.as_str().len())
}

/// The result of one list.
pub(super) struct Listing {
    /// The revision at which everything was read.
    pub(super) revision: i64,
    /// How many keys there are, with those that are no announcements.
    pub(super) keys: i64,
    /// The announcements, in the order of etcd.
    pub(super) entries: Vec<Entry>,
}

/// The keys that were warned about. There is one warning for each key, and only a few if there are many keys.
#[derive(Debug)]
pub(super) struct Warned {
    hasher: RandomState,
    /// Hashes instead of the keys: somebody may go on writing new keys as long as we run.
    hashes: HashSet<u64>,
    /// Limits how many keys are named.
    named: Budget,
    /// How many keys were not named.
    unnamed: u64,
}

/// At this number all hashes are forgotten. They take half a megabyte then.
const MOST_WARNED: usize = 50_000;
/// A hundred keys are named in a row, and after that ten per minute.
const NAMED: Budget = Budget::new(100, Duration::from_secs(6));

impl Default for Warned {
    fn default() -> Self {
        Self { hasher: RandomState::new(), hashes: HashSet::new(), named: NAMED, unnamed: 0 }
    }
}

impl Warned {
    /// Whether to warn about `key` now, and name it.
    pub(super) fn is_new(&mut self, key: &[u8]) -> bool {
        if self.hashes.len() >= MOST_WARNED {
            self.hashes.clear();
        }
        let is_new = self.hashes.insert(self.hasher.hash_one(key));
        let is_named = is_new && self.named.take_now(Instant::now());
        self.unnamed += u64::from(is_new && !is_named);
        is_named
    }

    /// Warns about the keys that were not named, if there are any.
    pub(super) fn tell_unnamed(&mut self) {
        let keys = std::mem::take(&mut self.unnamed);
        if keys > 0 {
            warn!(keys, "skipped more keys that are no announcements");
        }
    }
}

/// The range of the keys that begin with `<prefix>/`: its first key, and the first key after it.
pub(super) fn range(prefix: &str) -> (String, String) {
    // The character "0" follows "/".
    (format!("{prefix}/"), format!("{prefix}0"))
}

/// Lists the announcements under `<prefix>/`: all, or that of `host`. A key that is no valid announcement is skipped.
/// One warning names it, unless there was one already.
///
/// # Errors
/// See [`Error`]: a read that failed never gives an empty list. Safe to drop.
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
        // The time starts after the first page, which may have to wait for the backoff and for the name service.
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + connection.attempt() * LONGEST);
        let page = match page {
            Err(Error::TooLarge) if limit > 1 => {
                limit /= 2;
                continue;
            }
            // This one key is too large, so it is no announcement. Later keys may be announcements.
            Err(Error::TooLarge) => get(connection, &from, options.with_keys_only()).await?,
            other => other?,
        };
        if revision == 0 {
            // All other pages are read at the revision of the first one.
            revision = page.header().map_or(0, ResponseHeader::revision);
            // This is the count of the whole range, whatever the limit is.
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
            // Etcd ends a page only at the limit or at the end of the range.
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

/// Calls [`list`] at the endpoint whose turn it is, and again at the next one, until each had its turn.
///
/// # Errors
/// The last error. Safe to drop.
pub(super) async fn at_each_endpoint(
    connection: &mut Connection,
    prefix: &str,
    host: Option<&Host>,
    warned: &mut Warned,
) -> Result<Listing, Error> {
    connection.at_each_endpoint(async |connection| list(connection, prefix, host, warned).await).await
}

/// The reason to refuse a list that is larger than [`LARGEST`].
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

/// The host that `key` belongs to, or why its name is invalid.
pub(super) fn host(key: &[u8], directory: &str) -> Result<Host, String> {
    let host = key.strip_prefix(directory.as_bytes()).unwrap_or_default();
    let host = std::str::from_utf8(host).map_err(|_| "the host is not UTF-8".to_owned())?;
    host.parse().map_err(|e| format!("the host is invalid: {e}"))
}

/// The announcement in `kv`. If it is none, a warning is logged.
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
