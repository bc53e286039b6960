//! Our own key: read it, claim it, hold it, give it back. These are the requests of the announcer.

use std::{pin::pin, time::Duration};

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, ResponseHeader, Txn, TxnOp,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

use super::{
    connection::{Attempt, Connection, bounded},
    contact::Contact,
    dial::Member,
    error::Error,
    lease_requests::{self, KeepAlive},
    watch_stream::Watch,
};
use crate::{
    lease::{Content, LeaseId, Sight},
    text::decode,
};

/// After a message of the watch without news, we wait this long for the next one. So a watch that repeats what is known
/// does not keep us busy.
const LULL: Duration = Duration::from_millis(20);

/// The result of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The key is under our lease.
    Put(Sight),
    /// The key had changed, so nothing was put.
    Changed,
}

/// The key of one host, and the connection that the announcer has for itself.
#[derive(Debug)]
pub struct OwnKey {
    connection: Connection,
    key: String,
    value: String,
    ttl: Duration,
}

impl OwnKey {
    pub(super) fn new(connection: Connection, key: String, value: String, ttl: Duration) -> Self {
        Self { connection, key, value, ttl }
    }

    /// The key, `<prefix>/<host>`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The TTL that etcd granted. Until a lease is granted, the TTL that we ask for.
    pub fn ttl(&self) -> Duration {
        self.connection.timing().ttl.unwrap_or(self.ttl)
    }

    /// The state of our connection to etcd. It can be read while a request is on its way.
    pub fn contact(&self) -> watch::Receiver<Contact> {
        self.connection.contact().subscribe()
    }

    /// From now on every request must be done within `limit`, and goes out to several endpoints at once.
    pub fn hurry(&mut self, limit: Duration) {
        self.connection.hurry(limit);
    }

    /// Reads the key, linearizably, and renews `lease` at the same time.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] if `lease` is gone. Safe to drop.
    pub async fn look(&mut self, lease: Option<LeaseId>) -> Result<Sight, Error> {
        self.connection.set_holds_lease(lease.is_some());
        let (key, value) = (&self.key, &self.value);
        self.connection
            .call(async |client: Member| {
                let renewed = async {
                    match lease {
                        Some(lease) => KeepAlive::start(&client, lease).await.map(drop),
                        None => Ok(()),
                    }
                };
                let (_, (sight, _)) = tokio::try_join!(renewed, read(&client, key, value))?;
                Ok(sight)
            })
            .await
            .inspect_err(|error| self.forget_if_gone(error))
    }

    /// Asks for `lease`. The id must be one that was never asked for before.
    ///
    /// # Errors
    /// After [`Error::Unavailable`], or if the future is dropped, we do not know whether etcd acted on the request.
    pub async fn grant(&mut self, lease: LeaseId) -> Result<(), Error> {
        let ttl = self.ttl;
        self.connection.contact().set_renewed(None);
        // The lease before this one is gone, so nobody waits for its renewal.
        self.connection.contact().end_silence();
        let granted = self.connection.call(|client| lease_requests::grant(client, lease, ttl)).await?;
        let granted = granted.map_err(|absurd| self.connection.doubted(absurd))?;
        self.connection.believed();
        self.connection.set_ttl(granted);
        Ok(())
    }

    /// Puts the key under `lease` in one transaction, if its mod revision and its lease are still those of `sight`.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] if `lease` is gone. After [`Error::Unavailable`], or if the future is dropped, we do
    /// not know whether etcd acted on the request.
    pub async fn put(&mut self, lease: LeaseId, sight: &Sight) -> Result<Claimed, Error> {
        self.connection.set_holds_lease(true);
        let key = self.key.as_str();
        let unchanged = [
            Compare::mod_revision(key, CompareOp::Equal, sight.mod_revision),
            // A store that lost its data counts revisions from the beginning, so the same revision may belong to
            // another put.
            Compare::lease(key, CompareOp::Equal, sight.lease.map_or(0, LeaseId::get)),
        ];
        let options = PutOptions::new().with_lease(lease.get());
        let put = TxnOp::put(key, self.value.as_str(), Some(options));
        let txn = Txn::new().when(unchanged).and_then([put]);
        let answer = self.connection.call(async |client: Member| Ok(client.kv().txn(txn).await?)).await;
        let answer = answer.inspect_err(|error| self.forget_if_gone(error))?;
        let revision = answer.header().map_or(0, ResponseHeader::revision);
        if !answer.succeeded() {
            return Ok(Claimed::Changed);
        }
        self.connection.accepted();
        self.connection.contact().end_silence();
        Ok(Claimed::Put(Sight { mod_revision: revision, lease: Some(lease), content: Content::Ours }))
    }

    /// Revokes `lease`. Returns whether it existed. Etcd may refuse that, for example if somebody attached a key to our
    /// lease that we may not delete. Then our own key is deleted, if it is under `lease`.
    ///
    /// # Errors
    /// See [`Error`]. Try again until there is an answer. Safe to drop.
    pub async fn revoke(&mut self, lease: LeaseId) -> Result<bool, Error> {
        self.connection.set_holds_lease(false);
        // From now on we do not renew on purpose, so there must be no alarm.
        self.connection.contact().end_silence();
        let key = self.key.clone();
        self.connection.insist(move |client| give_back(client, key.clone(), lease)).await
    }

    /// Keeps `lease` alive, if there is one, and watches the key until it is no longer as `known`. `established` is
    /// called once everything is known to be well. Its argument tells whether the lease could not be renewed before.
    ///
    /// # Errors
    /// The first error of the lease or the watch; [`Error::LeaseNotFound`] if `lease` is gone. Safe to drop.
    pub async fn hold(
        &mut self,
        lease: Option<LeaseId>,
        known: &Sight,
        established: impl FnOnce(bool),
    ) -> Result<Sight, Error> {
        let held = self.try_hold(lease, known, established).await;
        if let Err(error) = &held
            && lease.is_some()
            && *error != Error::Compacted
        {
            self.connection.contact().set_silent();
            self.forget_if_gone(error);
        }
        held
    }

    /// If the lease is gone, there is nothing to renew, so the silence ends.
    fn forget_if_gone(&self, error: &Error) {
        if *error == Error::LeaseNotFound {
            self.connection.contact().end_silence();
        }
    }

    async fn try_hold(
        &mut self,
        lease: Option<LeaseId>,
        known: &Sight,
        established: impl FnOnce(bool),
    ) -> Result<Sight, Error> {
        self.connection.set_holds_lease(lease.is_some());
        let Attempt { client, began, deadline } = self.connection.open().await?;
        let (key, value) = (self.key.as_str(), self.value.as_str());

        let start = async {
            let keep_alive = async {
                match lease {
                    Some(lease) => KeepAlive::start(&client, lease).await.map(Some),
                    None => Ok(None),
                }
            };
            let watch = async {
                let (sight, revision) = read(&client, key, value).await?;
                // The watch begins at this revision, and not at the next one: etcd since 3.6 answers no request for
                // progress while a watch waits for a revision that does not exist yet. An event that comes a second
                // time changes nothing. Only an event that is too large to be received is left out.
                let first = if sight.content == Content::TooLarge { revision + 1 } else { revision };
                let watch = Watch::key(client.clone(), key, first).await?;
                Ok((sight, watch))
            };
            tokio::try_join!(keep_alive, watch)
        };
        let (mut keep_alive, (sight, mut watch)) = match bounded(deadline, Box::pin(start)).await {
            Ok(started) => started,
            Err(error) => return self.connection.judge(Err(error)),
        };
        self.connection.took(began);
        self.connection.reached();
        self.connection.contact().set_renewed(keep_alive.as_ref().map(KeepAlive::sent));
        if sight != *known {
            return self.connection.judge(Ok(sight));
        }
        established(self.connection.contact().end_silence());

        // A member that answers and then cuts every stream is of no use. So the backoff is reset only after the streams
        // have lived for a while.
        let mut lived = pin!(sleep(self.connection.attempt()));
        let mut proved = false;
        let mut next_told = Instant::now();
        loop {
            let timing = self.connection.timing();
            let (tick_at, attempt) = (Instant::now() + timing.renew_every(), self.connection.attempt());
            let ended = {
                let mut tick = pin!(async {
                    sleep_until(tick_at).await;
                    let began = Instant::now();
                    let deadline = began + attempt;
                    let tick = Box::pin(renew_and_read(&client, &mut keep_alive, key, value));
                    (began, deadline, bounded(deadline, tick).await)
                });
                loop {
                    tokio::select! {
                        ticked = &mut tick => break Ok(ticked),
                        // Only the last event matters: it shows the key as it is now.
                        told = async { sleep_until(next_told).await; watch.next().await } => match told {
                            Ok(told) => {
                                next_told = Instant::now() + LULL;
                                let mut kvs = told.events().iter().rev().filter_map(etcd_client::Event::kv);
                                let last = kvs.find(|kv| kv.key() == key.as_bytes());
                                match last.map(|kv| sight_of(Some(kv), value)) {
                                    Some(seen) if seen != *known => break Err(Ok(seen)),
                                    _ => {}
                                }
                            }
                            Err(error) => break Err(Err(error)),
                        },
                        () = &mut lived, if !proved => {
                            proved = true;
                            self.connection.answered();
                            self.connection.accepted();
                        }
                    }
                }
            };
            let (began, deadline, seen) = match ended {
                Ok(ticked) => ticked,
                Err(ended) => return self.connection.judge(ended),
            };
            match seen {
                Ok(seen) if seen == *known => {}
                ended => return self.connection.judge(ended),
            }
            self.connection.took(began);
            self.connection.contact().set_renewed(keep_alive.as_ref().map(KeepAlive::sent));
            // We do not wait for the answer, because the read has decided already.
            if let Err(error) = bounded(deadline, watch.request_progress()).await {
                return self.connection.judge(Err(error));
            }
        }
    }
}

/// One tick: renews the lease, if there is one, and reads the key at the same time.
///
/// A keep-alive alone proves little: a leader renews a lease in its memory only, and a leader whose disk hangs still
/// does so long after the others elected another one (etcd#15247, seen on 3.4.23). The linearizable read shows within a
/// third of the TTL that it is no leader any more.
async fn renew_and_read(
    client: &Member,
    keep_alive: &mut Option<KeepAlive>,
    key: &str,
    value: &str,
) -> Result<Sight, Error> {
    let renewed = async {
        match keep_alive {
            Some(keep_alive) => keep_alive.renew().await,
            None => Ok(()),
        }
    };
    let ((), (sight, _)) = tokio::try_join!(renewed, read(client, key, value))?;
    Ok(sight)
}

/// Revokes `lease`. If that is refused, it deletes `key` if the key is under `lease`. Returns whether there was
/// anything of ours.
async fn give_back(client: Member, key: String, lease: LeaseId) -> Result<bool, Error> {
    match lease_requests::revoke(&client, lease).await {
        Err(Error::Refused(reason)) => {
            let ours = Compare::lease(key.as_str(), CompareOp::Equal, lease.get());
            let delete = Txn::new().when([ours]).and_then([TxnOp::delete(key.as_str(), None)]);
            let deleted = client.kv().txn(delete).await?.succeeded();
            debug!(%lease, reason, deleted, "the lease could not be revoked: it ends by itself");
            Ok(true)
        }
        other => other,
    }
}

/// Reads the key linearizably. Returns its state, and the revision of the store.
async fn read(client: &Member, key: &str, value: &str) -> Result<(Sight, i64), Error> {
    let revision_of = |answer: &GetResponse| answer.header().map_or(0, ResponseHeader::revision);
    let mut kv = client.kv();
    match kv.get(key, None).await.map_err(Error::from) {
        Ok(answer) => Ok((sight_of(answer.kvs().first(), value), revision_of(&answer))),
        Err(Error::TooLarge) => {
            let answer = kv.get(key, Some(GetOptions::new().with_keys_only())).await?;
            let seen = sight_of(answer.kvs().first(), value);
            let content = if seen.mod_revision == 0 { Content::Absent } else { Content::TooLarge };
            Ok((Sight { content, ..seen }, revision_of(&answer)))
        }
        Err(error) => Err(error),
    }
}

fn sight_of(kv: Option<&KeyValue>, value: &str) -> Sight {
    match kv {
        // The event of a deletion has the key with version 0.
        Some(kv) if kv.version() > 0 => Sight {
            mod_revision: kv.mod_revision(),
            lease: LeaseId::from_etcd(kv.lease()),
            content: if kv.value() == value.as_bytes() {
                Content::Ours
            } else {
                Content::Other(decode(kv.value()))
            },
        },
        _ => Sight { mod_revision: 0, lease: None, content: Content::Absent },
    }
}
