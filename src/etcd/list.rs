//! All announcements of a prefix, in pages at one pinned revision.

use std::collections::HashSet;

use etcd_client::{Client, GetOptions, GetResponse, KeyValue};
use tracing::warn;

use super::{connection::Connection, error::Error};
use crate::{
    announcement::Announcement,
    snapshot::{Node, Snapshot},
    text::decode,
};

/// Keys in one page. A page that is too large for a message (4 MB) is halved.
const PAGE: i64 = 1000;

/// Lists what is announced under `<prefix>/`. What is no valid announcement is skipped with one
/// warning that names the key, unless it is in `warned` already.
///
/// # Errors
/// See [`Error`]: a read that failed is never an empty list. Safe to drop.
pub(super) async fn list(
    connection: &mut Connection,
    prefix: &str,
    warned: &mut HashSet<Vec<u8>>,
) -> Result<Snapshot, Error> {
    let directory = format!("{prefix}/");
    // The key after every key that begins with "<prefix>/": "0" follows "/".
    let end = format!("{prefix}0");
    let mut from = directory.clone().into_bytes();
    let mut revision = 0;
    let mut limit = PAGE;
    let mut nodes = Vec::new();
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
        nodes.extend(page.kvs().iter().filter_map(|kv| node(kv, &directory, warned)));
        match page.kvs().last() {
            Some(last) if page.more() => {
                from = [last.key(), b"\0"].concat();
                limit = (limit * 2).min(PAGE);
            }
            _ => return Ok(Snapshot::new(revision, nodes)),
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
