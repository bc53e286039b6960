//! The requests of `bootstrap`: one reads everything at one revision, and each change is one transaction.

use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget,
    Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use tracing::{debug, warn};

use super::{
    connection::Connection,
    dial::Member,
    error::Error,
    lease_requests::{self, KeepAlive},
    list::{self, Warned},
};
use crate::{
    bootstrap::{Candidate, Change, Condition, Epoch, Formed, InvalidEpoch, List, Registered, View},
    host::Host,
    lease::LeaseId,
    text::{decode, escape},
};

/// The TTL of a candidate's lease. A candidate that died counts for this long. Several looks, and an election of etcd,
/// fit into it.
const TTL: Duration = Duration::from_secs(10);
/// The longest wait for the revoke of our lease when we leave. Without it, the lease ends by itself soon.
const LEAVE: Duration = Duration::from_secs(1);
/// The most candidates that are read, the earliest first. No list has as many names.
const MOST_CANDIDATES: i64 = 1000;

/// The keys of `bootstrap`. They are beside the prefix: none of them begins with `<prefix>/`.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    directory: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), directory: format!("{prefix}.meta/bootstrap/") }
    }

    fn candidates(&self) -> String {
        format!("{}candidates/", self.directory)
    }

    fn candidate(&self, name: &Host) -> String {
        format!("{}candidates/{name}", self.directory)
    }

    fn list(&self) -> String {
        format!("{}list", self.directory)
    }

    pub(super) fn epoch(&self) -> String {
        format!("{}epoch", self.directory)
    }

    pub(super) fn formed(&self) -> String {
        format!("{}formed", self.directory)
    }

    fn compare(&self, condition: &Condition) -> Vec<Compare> {
        let unchanged = |key: String, revision: i64| Compare::mod_revision(key, CompareOp::Equal, revision);
        match condition {
            Condition::Candidate(name, revision, lease) => {
                let key = self.candidate(name);
                let lease = Compare::lease(key.as_str(), CompareOp::Equal, lease.map_or(0, LeaseId::get));
                vec![unchanged(key, *revision), lease]
            }
            Condition::List(revision) => vec![unchanged(self.list(), *revision)],
            Condition::Formed(revision) => vec![unchanged(self.formed(), *revision)],
            Condition::Epoch(revision, epoch) => compare_epoch(&self.epoch(), *revision, *epoch),
            // Etcd compares every key of a range, and if the range is empty, one absent key
            // (server/etcdserver/apply.go, `applyCompare`). So this holds only for an empty range.
            Condition::NobodyAnnounced => {
                let (from, end) = list::range(&self.prefix);
                vec![Compare::create_revision(from, CompareOp::Equal, 0).with_range(end)]
            }
        }
    }
}

/// The conditions that the key of the epoch is as it was seen: absent, or with this mod revision and this epoch, if
/// that could be read. The revision alone is not enough, because a store that lost its data counts revisions from the
/// beginning.
pub(super) fn compare_epoch(key: &str, revision: i64, epoch: Option<Epoch>) -> Vec<Compare> {
    let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
    let same = epoch.map(|epoch| Compare::value(key, CompareOp::Equal, epoch.to_string()));
    [unchanged].into_iter().chain(same).collect()
}

/// Reads the value of the key of the epoch.
pub(super) fn read_epoch(value: &[u8]) -> Result<Epoch, InvalidEpoch> {
    std::str::from_utf8(value).map_err(|_| InvalidEpoch)?.parse()
}

/// The keys of the first election under one prefix, and a connection to etcd.
#[derive(Debug)]
pub struct Bootstrap {
    connection: Connection,
    keys: Keys,
    /// The lease of our candidate: the one that it has, or will have.
    session: Option<LeaseId>,
    /// The lease was granted, as far as we know.
    granted: bool,
    warned: Warned,
}

impl Bootstrap {
    pub(super) fn new(mut connection: Connection, prefix: &str) -> Self {
        connection.set_ttl(TTL);
        let keys = Keys::new(prefix);
        Self { connection, keys, session: None, granted: false, warned: Warned::default() }
    }

    /// The prefix.
    pub fn prefix(&self) -> &str {
        &self.keys.prefix
    }

    /// The lease of our candidate, if there is one.
    pub fn session(&self) -> Option<LeaseId> {
        self.session
    }

    /// The announced hosts: how many keys are under the prefix, and the hosts of those that are announcements, sorted.
    /// It tries each endpoint once, as [`Registry::list`](super::Registry::list).
    ///
    /// # Errors
    /// The last error. Safe to drop.
    pub async fn announced(&mut self) -> Result<(i64, Vec<Host>), Error> {
        let listing =
            list::at_each_endpoint(&mut self.connection, &self.keys.prefix, None, &mut self.warned).await?;
        Ok((listing.keys, listing.entries.into_iter().map(|entry| entry.node.host).collect()))
    }

    /// Reads everything at one revision, linearizably, and renews our lease at the same time. If the lease is gone, it
    /// is forgotten. It tries each endpoint once, as [`Registry::list`](super::Registry::list).
    ///
    /// # Errors
    /// The last error. A read that failed never gives an empty view. Safe to drop.
    pub async fn look(&mut self) -> Result<View, Error> {
        let (keys, session) = (&self.keys, self.session.filter(|_| self.granted));
        let look = async |connection: &mut Connection| look_once(connection, keys, session).await;
        let Looked { living, epoch, list, formed, candidates, announced } =
            self.connection.at_each_endpoint(look).await?;
        if !living {
            debug!(lease = ?self.session, "our lease is gone");
            self.forget();
        }
        let first = |range: &GetResponse| range.kvs().first().cloned();
        Ok(View {
            candidates: self.registered(&candidates),
            epoch: first(&epoch).map(|kv| (kv.mod_revision(), read_epoch(kv.value()))),
            list: first(&list).map(|kv| {
                let read =
                    serde_json::from_slice::<List>(kv.value()).map_err(|e| escape(e.to_string().as_bytes()));
                (kv.mod_revision(), read)
            }),
            formed: first(&formed).map(|kv| (kv.mod_revision(), Formed::read(kv.value()))),
            announced: first(&announced).map(|kv| escape(kv.key())),
        })
    }

    /// The candidates in the order of etcd: the earliest first. A key that is no candidate is skipped with one warning.
    fn registered(&mut self, candidates: &GetResponse) -> Vec<Registered> {
        let directory = self.keys.candidates();
        let read = |kv: &KeyValue| {
            let name = kv.key().strip_prefix(directory.as_bytes()).unwrap_or_default();
            match candidate(name, kv) {
                Ok(candidate) => Some(candidate),
                Err(reason) => {
                    if self.warned.is_new(kv.key()) {
                        warn!(key = decode(kv.key()), reason, "skipped a key that is no candidate");
                    }
                    None
                }
            }
        };
        candidates.kvs().iter().filter_map(read).collect()
    }

    /// Makes `change` for `me`, if all `conditions` hold. Returns whether it was made. To register, a lease is granted
    /// first, with the id that was asked for before, if there is one.
    ///
    /// # Errors
    /// See [`Error`]. After [`Error::Unavailable`], or if the future is dropped, we do not know whether the change was
    /// made.
    pub async fn change(
        &mut self,
        change: &Change,
        me: Option<&Candidate>,
        conditions: &[Condition],
    ) -> Result<bool, Error> {
        let operations = match (change, me) {
            (Change::Register, Some(me)) => {
                let session = match self.grant().await {
                    // Nothing was done. The next look logs in again.
                    Err(Error::StaleLogin(_)) => return Ok(false),
                    granted => granted?,
                };
                let options = PutOptions::new().with_lease(session.get());
                vec![TxnOp::put(self.keys.candidate(&me.name), json(&me.said), Some(options))]
            }
            // There is no candidate to register.
            (Change::Register, None) => return Ok(false),
            (Change::Freeze { list, begins_epoch }, _) => {
                let epoch = list.epoch.filter(|_| *begins_epoch);
                let epoch = epoch.map(|epoch| TxnOp::put(self.keys.epoch(), epoch.to_string(), None));
                [TxnOp::put(self.keys.list(), json(list), None)].into_iter().chain(epoch).collect()
            }
            // The keys are deleted one by one: etcd refuses a transaction that deletes a range and puts a key in it.
            (Change::Reset(epoch), _) => vec![
                TxnOp::delete(self.keys.list(), None),
                TxnOp::delete(self.keys.formed(), None),
                TxnOp::delete(self.keys.candidates(), Some(DeleteOptions::new().with_prefix())),
                TxnOp::put(self.keys.epoch(), epoch.to_string(), None),
            ],
        };
        let compares: Vec<Compare> =
            conditions.iter().flat_map(|condition| self.keys.compare(condition)).collect();
        let txn = Txn::new().when(compares).and_then(operations);
        let answer = self.connection.call(async |client: Member| Ok(client.kv().txn(txn).await?)).await;
        match answer {
            Ok(answer) => {
                self.connection.accepted();
                Ok(answer.succeeded())
            }
            Err(Error::LeaseNotFound) => {
                self.forget();
                Ok(false)
            }
            // Nothing was done. The next look logs in again.
            Err(Error::StaleLogin(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Grants the lease of our candidate. If the answer was lost, it asks for the same lease again.
    async fn grant(&mut self) -> Result<LeaseId, Error> {
        let session = *self.session.get_or_insert_with(LeaseId::random);
        if !self.granted {
            match self.connection.call(|client| lease_requests::grant(client, session, TTL)).await {
                Ok(Err(absurd)) => return Err(self.connection.doubted(absurd)),
                Ok(Ok(_)) | Err(Error::LeaseExists) => self.granted = true,
                Err(error) => return Err(error),
            }
        }
        Ok(session)
    }

    fn forget(&mut self) {
        (self.session, self.granted) = (None, false);
    }

    /// Revokes our lease, and the candidate's key with it. It waits for at most a second; without an answer the lease
    /// ends by itself.
    pub async fn leave(&mut self) {
        let Some(session) = self.session.take() else { return };
        self.connection.hurry(LEAVE);
        let revoked = self
            .connection
            .insist(move |client| async move { lease_requests::revoke(&client, session).await });
        match tokio::time::timeout(LEAVE, revoked).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%error, "the candidate ends with its lease"),
            Err(_) => debug!("the candidate ends with its lease"),
        }
    }
}

/// The answers to one look, and whether our lease, if we have one, still exists.
struct Looked {
    living: bool,
    epoch: GetResponse,
    list: GetResponse,
    formed: GetResponse,
    candidates: GetResponse,
    announced: GetResponse,
}

async fn look_once(
    connection: &mut Connection,
    keys: &Keys,
    session: Option<LeaseId>,
) -> Result<Looked, Error> {
    let (from, end) = list::range(&keys.prefix);
    let earliest = GetOptions::new()
        .with_prefix()
        .with_limit(MOST_CANDIDATES)
        .with_sort(SortTarget::Create, SortOrder::Ascend);
    let any = GetOptions::new().with_range(end).with_limit(1).with_keys_only();
    let read = Txn::new().and_then([
        TxnOp::get(keys.epoch(), None),
        TxnOp::get(keys.list(), None),
        TxnOp::get(keys.formed(), None),
        TxnOp::get(keys.candidates(), Some(earliest)),
        TxnOp::get(from, Some(any)),
    ]);
    let (living, answer) = connection
        .call(async |client: Member| {
            let renewed = async {
                match session {
                    Some(session) => match KeepAlive::start(&client, session).await {
                        Ok(_) => Ok(true),
                        Err(Error::LeaseNotFound) => Ok(false),
                        Err(error) => Err(error),
                    },
                    None => Ok(true),
                }
            };
            let read = async { Ok(client.kv().txn(read).await?) };
            tokio::try_join!(renewed, read)
        })
        .await?;
    connection.accepted();
    let [epoch, list, formed, candidates, announced] = ranges(&answer)?;
    Ok(Looked { living, epoch, list, formed, candidates, announced })
}

/// The ranges that a transaction read, in the order in which they were asked for.
///
/// # Errors
/// [`Error::Unavailable`] if the answer holds something else.
pub(super) fn ranges<const COUNT: usize>(answer: &TxnResponse) -> Result<[GetResponse; COUNT], Error> {
    let ranges: Vec<GetResponse> = answer
        .op_responses()
        .into_iter()
        .filter_map(|answer| match answer {
            TxnOpResponse::Get(range) => Some(range),
            _ => None,
        })
        .collect();
    ranges.try_into().map_err(|_| Error::Unavailable("the answer lacks what was asked for".to_owned()))
}

fn candidate(name: &[u8], kv: &KeyValue) -> Result<Registered, String> {
    let name = std::str::from_utf8(name).map_err(|_| "the name is not UTF-8".to_owned())?;
    let name = name.parse().map_err(|e| format!("the name is invalid: {e}"))?;
    let invalid =
        |e: serde_json::Error| format!("the value is invalid: {}", decode(e.to_string().as_bytes()));
    let said = serde_json::from_slice(kv.value()).map_err(invalid)?;
    if kv.lease() == 0 {
        return Err("it has no lease: nobody is there".to_owned());
    }
    Ok(Registered {
        candidate: Candidate { name, said },
        create_revision: kv.create_revision(),
        mod_revision: kv.mod_revision(),
        lease: LeaseId::from_etcd(kv.lease()),
    })
}

fn json(value: &impl serde::Serialize) -> String {
    // Numbers and strings can always be serialized. An empty value would be read as invalid, and not trusted.
    serde_json::to_string(value).unwrap_or_default()
}
