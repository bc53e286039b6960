//! The mark that a cluster has formed: put by whoever announces, once for everybody.

use etcd_client::{Client, Compare, CompareOp, GetOptions, Txn, TxnOp};

use super::{connection::Connection, error::Error, freeze::Keys};
use crate::host::Host;

/// Says, once for everybody, that the cluster has formed.
#[derive(Debug)]
pub struct FormedMark {
    connection: Connection,
    key: String,
    by: String,
}

impl FormedMark {
    pub(super) fn new(mut connection: Connection, prefix: &str, by: &Host) -> Self {
        // Whoever announces has a connection of its own that says how etcd is.
        connection.silence();
        Self { connection, key: Keys::new(prefix).formed(), by: by.to_string() }
    }

    /// The key, `<prefix>.meta/bootstrap/formed`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Puts the key unless it is there. Gives whether it was absent.
    ///
    /// # Errors
    /// See [`Error`]; to be tried again until it is answered. Safe to drop.
    pub async fn put(&mut self) -> Result<bool, Error> {
        let (key, by) = (self.key.as_str(), self.by.as_str());
        let put = Txn::new()
            .when([Compare::create_revision(key, CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key, by, None)]);
        let answer = self
            .connection
            .call(async |mut client: Client| {
                // It is there already nearly always, and a read costs etcd no raft write.
                let there = client.get(key, Some(GetOptions::new().with_keys_only())).await?;
                if there.kvs().is_empty() { Ok(client.txn(put).await?.succeeded()) } else { Ok(false) }
            })
            .await?;
        self.connection.accepted();
        Ok(answer)
    }
}
