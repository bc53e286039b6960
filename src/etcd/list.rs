//! Announcements: all of a prefix, in pages at one pinned revision, or one host's.

use std::collections::HashSet;

use etcd_client::{Client, GetOptions, GetResponse, KeyValue};
use tracing::warn;

use super::{connection::Connection, error::Error, lease::LeaseId};
use crate::{announcement::Announcement, host::Host, snapshot::Node, text::decode};

/// Keys in one page. A page that is too large for a message (4 MB) is halved.
const PAGE: i64 = 1000;

/// One announcement, and what etcd knows of its key.
pub(super) struct Entry {
    pub(super) node: Node,
    pub(super) lease: Option<LeaseId>,
    pub(super) mod_revision: i64,
}

/// Lists what is announced under `<prefix>/`, by everybody or by `host` alone. Gives the revision
/// that was read, and the entries as etcd sorts them. What is no valid announcement is skipped with
/// one warning that names the key, unless it is in `warned` already.
///
/// # Errors
/// See [`Error`]: a read that failed is never an empty list. Safe to drop.
pub(super) async fn list(
    connection: &mut Connection,
    prefix: &str,
    host: Option<&Host>,
    warned: &mut HashSet<Vec<u8>>,
) -> Result<(i64, Vec<Entry>), Error> {
    let directory = format!("{prefix}/");
    let (mut from, end) = match host {
        Some(host) => (format!("{directory}{host}").into_bytes(), format!("{directory}{host}\0")),
        // The key after every key that begins with "<prefix>/": "0" follows "/".
        None => (directory.clone().into_bytes(), format!("{prefix}0")),
    };
    let mut revision = 0;
    let mut limit = PAGE;
    let mut entries = Vec::new();
    loop {
        let options = GetOptions::new().with_range(end.as_str()).with_limit(limit).with_revision(revision);
        let page = match get(connection, &from, options.clone()).await {
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
            revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
        }
        entries.extend(page.kvs().iter().filter_map(|kv| {
            let node = node(kv, &directory, warned)?;
            Some(Entry { node, lease: LeaseId::from_etcd(kv.lease()), mod_revision: kv.mod_revision() })
        }));
        match page.kvs().last() {
            Some(last) if page.more() => {
                from = [last.key(), b"\0"].concat();
                limit = (limit * 2).min(PAGE);
            }
            _ => return Ok((revision, entries)),
        }
    }
}

async fn get(connection: &mut Connection, from: &[u8], options: GetOptions) -> Result<GetResponse, Error> {
    let answer = connection.call(async |mut client: Client| Ok(client.get(from, Some(options)).await?)).await;
    if answer.is_ok() {
        connection.accepted();
    }
    answer
}

fn node(kv: &KeyValue, directory: &str, warned: &mut HashSet<Vec<u8>>) -> Option<Node> {
    let read = || -> Result<Node, String> {
        let host = kv.key().strip_prefix(directory.as_bytes()).unwrap_or_default();
        let host = std::str::from_utf8(host).map_err(|_| "the host is not UTF-8".to_owned())?;
        let host = host.parse().map_err(|e| format!("the host is invalid: {e}"))?;
        let announcement =
            Announcement::from_json(kv.value()).map_err(|e| format!("the value is invalid: {e}"))?;
        Ok(Node { host, announcement })
    };
    read()
        .inspect_err(|reason| {
            if warned.insert(kv.key().to_owned()) {
                warn!(key = decode(kv.key()), reason, "skipped a key that is no announcement");
            }
        })
        .ok()
}
