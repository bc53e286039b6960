//! The mark "formed": it says that the cluster has formed. The first host that sees a master puts it, once for all.

use etcd_client::{Compare, CompareOp, GetOptions, GetResponse, Txn, TxnOp};

use super::{
    connection::Connection,
    dial::Member,
    error::Error,
    transactions::{Keys, compare_epoch, ranges, read_epoch},
};
use crate::{
    bootstrap::{Epoch, Formed, Mark, to_mark},
    host::Host,
};

/// Puts the mark, over a connection of its own.
#[derive(Debug)]
pub struct FormedMark {
    connection: Connection,
    keys: Keys,
    by: String,
}

/// The result of putting the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// The mark was not there, and is there now.
    Now,
    /// The mark was there before.
    Before,
    /// Nothing was put: etcd has this epoch, which is greater than ours.
    OlderThan(Epoch),
}

/// The epoch and the mark, as they are stored.
struct Stored {
    epoch_revision: i64,
    /// `None` if there is no epoch, or if it cannot be read.
    epoch: Option<Epoch>,
    formed_revision: i64,
}

impl FormedMark {
    pub(super) fn new(mut connection: Connection, prefix: &str, by: &Host) -> Self {
        // The connection of the announcer logs the state of etcd, so this one does not.
        connection.silence();
        Self { connection, keys: Keys::new(prefix), by: by.to_string() }
    }

    /// The key, `<prefix>.meta/bootstrap/formed`.
    pub fn key(&self) -> String {
        self.keys.formed()
    }

    /// The stored epoch. `None` if there is none, or if it cannot be read.
    ///
    /// # Errors
    /// See [`Error`]. Safe to drop.
    pub async fn epoch(&mut self) -> Result<Option<Epoch>, Error> {
        Ok(self.look().await?.epoch)
    }

    /// Puts the mark for a cluster of `epoch`. It puts the epoch, too, if etcd has none or a smaller one, as after a
    /// restore. It puts nothing if the mark is there already, or if etcd has a greater epoch.
    ///
    /// # Errors
    /// See [`Error`]. Try again until there is an answer. Safe to drop.
    pub async fn put(&mut self, epoch: Epoch) -> Result<Marked, Error> {
        let stored = self.look().await?;
        let with_epoch = match to_mark(epoch, stored.epoch, stored.formed_revision != 0) {
            Mark::OlderThan(greater) => return Ok(Marked::OlderThan(greater)),
            Mark::Known => return Ok(Marked::Before),
            Mark::Missing { with_epoch } => with_epoch,
        };
        let (key, epoch_key) = (self.keys.formed(), self.keys.epoch());
        let formed = Formed { by: self.by.clone(), epoch: Some(epoch) };
        let value = serde_json::to_string(&formed).unwrap_or_default();
        let mut conditions = compare_epoch(&epoch_key, stored.epoch_revision, stored.epoch);
        conditions.push(Compare::mod_revision(key.as_str(), CompareOp::Equal, stored.formed_revision));
        let epoch = with_epoch.then(|| TxnOp::put(epoch_key, epoch.to_string(), None));
        let puts: Vec<TxnOp> = [TxnOp::put(key, value, None)].into_iter().chain(epoch).collect();
        let put = Txn::new().when(conditions).and_then(puts);
        let answer = self.connection.call(async |client: Member| Ok(client.kv().txn(put).await?)).await?;
        self.connection.accepted();
        if answer.succeeded() {
            Ok(Marked::Now)
        } else {
            // Another process wrote at the same time. The next look shows what.
            Err(Error::Unavailable("somebody else wrote at the same time".to_owned()))
        }
    }

    /// Reads both keys at one revision. A read costs etcd no write, and mostly the mark is there already.
    async fn look(&mut self) -> Result<Stored, Error> {
        let keys_only = GetOptions::new().with_keys_only();
        let read = Txn::new()
            .and_then([TxnOp::get(self.keys.epoch(), None), TxnOp::get(self.keys.formed(), Some(keys_only))]);
        let answer = self.connection.call(async |client: Member| Ok(client.kv().txn(read).await?)).await?;
        let [epoch, formed] = ranges(&answer)?;
        let revision = |range: &GetResponse| range.kvs().first().map_or(0, |kv| kv.mod_revision());
        Ok(Stored {
            epoch_revision: revision(&epoch),
            epoch: epoch.kvs().first().and_then(|kv| read_epoch(kv.value()).ok()),
            formed_revision: revision(&formed),
        })
    }
}
