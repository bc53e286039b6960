//! Follows a prefix: it lists, watches from the revision that was read, and lists again after any trouble.
//!
//! The events of the watch are applied to the list, so that a change among ten thousand hosts costs one message. The
//! watch begins at the revision that was read, and not at the next one: etcd since 3.6 answers no request for progress
//! while a watch waits for a revision that does not exist yet.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use etcd_client::{Event, GetOptions, ResponseHeader, WatchResponse};
use tokio::{
    sync::watch::Sender,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tracing::{debug, info, warn};

use super::{
    connection::{Attempt, Connection, bounded},
    dial::Member,
    error::Error,
    list::{self, Listing, Warned},
    roster::Roster,
    watch_stream::Watch,
};
use crate::{
    backoff::Backoff,
    budget::{Budget, Lines},
    snapshot::Snapshot,
};

/// The pause between two reads while no watch is possible; see [`Follower::poll`].
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Messages that have arrived already are applied together, so that many changes make only a few snapshots. That goes
/// on for this time at most, so that changes without an end are published all the same.
const GATHER: Duration = Duration::from_millis(50);

/// Changes are taken at once five times in a row, and after that five times per second. While many hosts change, for
/// example when a fleet starts, each change would otherwise be a snapshot of its own, and each snapshot a file to
/// write. The announcer on the same thread is more important.
const BATCHES: Budget = Budget::new(5, Duration::from_millis(200));

/// Follows one prefix.
pub(super) struct Follower {
    connection: Connection,
    prefix: String,
    /// The range that is followed: its first key, and the first key after it.
    range: (String, String),
    warned: Warned,
    roster: Roster,
    publish: Sender<Option<Arc<Snapshot>>>,
    /// The revision of the last list.
    listed: i64,
    /// The newest revision that is known.
    revision: i64,
    /// How many keys the range has, with those that are no announcements.
    keys: i64,
    /// When the snapshot was last known to be true.
    heard: Instant,
    /// Since when the snapshot is not known to be true, and whether that was logged.
    outage: Option<(Instant, bool)>,
    /// The last watch or list failed because something was too large to be received.
    too_large: bool,
    /// Limits the log lines: an etcd that changes its mind all the time could cause them without an end.
    lines: Lines,
    /// How often changes are taken.
    batches: Budget,
    /// Something is known that is not published yet.
    changed: bool,
    /// The pauses between two watches that ended soon: a member may answer and then cut every stream.
    backoff: Backoff,
}

impl Follower {
    pub(super) fn new(
        connection: Connection,
        prefix: &str,
        warned: Warned,
        hold: Duration,
        publish: Sender<Option<Arc<Snapshot>>>,
    ) -> Self {
        Self {
            connection,
            prefix: prefix.to_owned(),
            range: list::range(prefix),
            warned,
            roster: Roster::new(hold),
            publish,
            listed: 0,
            revision: 0,
            keys: 0,
            heard: Instant::now(),
            outage: None,
            too_large: false,
            lines: Lines::default(),
            batches: BATCHES,
            changed: false,
            backoff: Backoff::default(),
        }
    }

    /// Follows as long as `goes_on` says so of each list that failed; returns the error of the last one. A stale login does
    /// not count the first time, because the next list renews it.
    pub(super) async fn run(mut self, mut goes_on: impl FnMut(&Error) -> bool) -> Error {
        let mut was_stale = false;
        loop {
            match list::list(&mut self.connection, &self.prefix, None, &mut self.warned).await {
                Ok(listing) => {
                    was_stale = false;
                    self.take(listing);
                    let ended = if self.too_large { self.poll().await } else { self.watch().await };
                    debug!(?ended, "listing again");
                    if let Err(error) = ended {
                        self.trouble(&error);
                    }
                }
                Err(error) => {
                    self.trouble(&error);
                    self.say_stale(&error);
                    let renews =
                        matches!(error, Error::StaleLogin(_)) && !std::mem::replace(&mut was_stale, true);
                    if !renews && !goes_on(&error) {
                        return error;
                    }
                    // After all other errors the connection makes a pause itself.
                    if !matches!(error, Error::Compacted | Error::TooLarge) {
                        continue;
                    }
                }
            }
            sleep(self.backoff.pause(self.connection.timing().round_cap())).await;
        }
    }

    /// Takes a whole list, and publishes it.
    fn take(&mut self, Listing { revision, keys, entries }: Listing) {
        let now = Instant::now();
        let outage = self.outage.take();
        if revision < self.revision && self.lines.may_say() {
            warn!(revision, known = self.revision, "etcd's store went back in time");
        }
        let blind = match outage {
            Some((since, _)) => Some(now - since),
            None => (revision < self.revision).then_some(Duration::ZERO),
        };
        let held = self.roster.list(entries.into_iter().map(|entry| entry.node), now, blind);
        if let Some((_, true)) = outage
            && self.lines.may_say()
        {
            info!(revision, "the hosts are live again");
        }
        if held > 0 && self.lines.may_say() {
            info!(hosts = held, "missing after an outage: held back for a while");
        }
        (self.listed, self.revision) = (revision, revision);
        (self.keys, self.heard) = (keys, now);
        self.changed = true;
        self.publish();
    }

    /// Notes that the watch ended or that the list failed.
    fn trouble(&mut self, error: &Error) {
        self.too_large = *error == Error::TooLarge;
        // These errors are answers, so etcd was there all the time.
        if !matches!(error, Error::Compacted | Error::StaleLogin(_) | Error::TooLarge) {
            self.outage.get_or_insert((self.heard, false));
        }
    }

    fn say_stale(&mut self, reason: &Error) {
        if let (Some((since, said @ false)), Some(last)) = (&mut self.outage, &*self.publish.borrow()) {
            let since = SystemTime::now().checked_sub(since.elapsed()).unwrap_or(UNIX_EPOCH).max(UNIX_EPOCH);
            let since = humantime::format_rfc3339_seconds(since);
            let hosts = last.nodes().len();
            *said = true;
            if self.lines.may_say() {
                warn!(%since, hosts, %reason, "the hosts are stale: etcd cannot be read");
            }
        }
    }

    /// Applies changes as long as the watch lives. `Ok` means that it may have missed something, so that a new list is
    /// needed.
    async fn watch(&mut self) -> Result<(), Error> {
        let Attempt { client, began, deadline } = self.connection.open().await?;
        let watch = Watch::range(client.clone(), &self.range.0, &self.range.1, self.listed);
        let mut watch = match bounded(deadline, Box::pin(watch)).await {
            Ok(watch) => watch,
            Err(error) => return self.connection.judge(Err(error)),
        };
        self.connection.took(began);
        let mut tick_at = Instant::now() + self.connection.timing().renew_every();
        // The revision of the store at the last tick, and until when the watch must have told everything up to it.
        let mut owed: Option<(i64, Instant)> = None;
        let mut proved_at = Some(Instant::now() + self.connection.attempt());
        loop {
            let owed_at = owed.map(|(_, at)| at);
            let wake =
                [Some(tick_at), owed_at, proved_at, self.roster.release_at()].into_iter().flatten().min();
            if let Ok(first) = timeout_at(wake.unwrap_or(tick_at), watch.next()).await {
                self.heard = Instant::now();
                let ended = self.gather(first, &mut watch).await;
                self.publish();
                if let Err(error) = ended {
                    return self.connection.judge(Err(error));
                }
                if self.roster.size() > list::LARGEST {
                    return Err(self.connection.doubted(list::too_large()));
                }
                sleep_until(self.batches.take(Instant::now())).await;
            }
            let now = Instant::now();
            self.release(now);
            if proved_at.is_some_and(|at| at <= now) {
                proved_at = None;
                self.connection.answered();
                self.connection.accepted();
                self.backoff.reset();
            }
            owed = owed.filter(|(revision, _)| *revision > watch.told().max(self.listed));
            if owed.is_some_and(|(_, at)| at <= now) {
                // Something was written, maybe outside our range, and the watch does not say how far it has told. A
                // list shows it.
                return Ok(());
            }
            if tick_at <= now {
                tick_at = now + self.connection.timing().renew_every();
                let (revision, keys) = self.count(&client).await?;
                let asked =
                    bounded(Instant::now() + self.connection.attempt(), watch.request_progress()).await;
                if let Err(error) = asked {
                    return self.connection.judge(Err(error));
                }
                self.heard = Instant::now();
                self.warned.tell_unnamed();
                // The count may already include a change that is still on its way to us. Then this costs one list.
                if revision < self.revision || keys != self.keys {
                    return Ok(());
                }
                owed = Some((revision, self.heard + self.connection.attempt()));
            }
        }
    }

    /// Asks again and again until something is written. It is used if the newest event is too large to be received: a
    /// watch from that event would end at once, and a watch from the next revision answers no request for progress,
    /// since etcd 3.6. `Ok` means that something was written.
    async fn poll(&mut self) -> Result<(), Error> {
        loop {
            sleep(POLL_EVERY).await;
            let Attempt { client, .. } = self.connection.open().await?;
            let (revision, _) = self.count(&client).await?;
            self.heard = Instant::now();
            self.release(self.heard);
            if revision != self.listed {
                self.too_large = false;
                return Ok(());
            }
        }
    }

    /// Removes the hosts that were held long enough.
    fn release(&mut self, now: Instant) {
        let released = self.roster.release(now);
        if released > 0 {
            if self.lines.may_say() {
                info!(hosts = released, "still missing: no longer held back");
            }
            self.changed = true;
            self.publish();
        }
    }

    /// Applies a message, and those that have arrived with it.
    async fn gather(&mut self, first: Result<WatchResponse, Error>, watch: &mut Watch) -> Result<(), Error> {
        let until = Instant::now() + GATHER;
        self.apply(&first?);
        while Instant::now() < until && self.roster.size() <= list::LARGEST {
            match timeout(Duration::ZERO, watch.next()).await {
                Ok(more) => self.apply(&more?),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn apply(&mut self, answer: &WatchResponse) {
        let now = Instant::now();
        // The list contains every change up to its own revision.
        let listed = self.listed;
        let changes = answer.events().iter().filter_map(Event::kv).filter(|kv| kv.mod_revision() > listed);
        for kv in changes {
            self.revision = self.revision.max(kv.mod_revision());
            match kv.version() {
                // The event of a deletion has the key alone, and version 0.
                0 => self.keys -= 1,
                1 => self.keys += 1,
                _ => {}
            }
            if kv.version() > 0
                && let Some(node) = list::node(kv, &self.range.0, &mut self.warned)
            {
                self.changed |= self.roster.put(node);
            } else if let Ok(host) = list::host(kv.key(), &self.range.0) {
                self.changed |= match kv.version() {
                    0 => self.roster.delete(&host, now),
                    _ => self.roster.remove(&host),
                };
            }
        }
    }

    /// Reads the revision of the store and the number of keys in the range, linearizably.
    async fn count(&mut self, client: &Member) -> Result<(i64, i64), Error> {
        let (from, end) = &self.range;
        let options = GetOptions::new().with_range(end.as_str()).with_count_only();
        let count = async { Ok(client.kv().get(from.as_str(), Some(options)).await?) };
        let began = Instant::now();
        let counted = bounded(began + self.connection.attempt(), Box::pin(count)).await;
        let counted = self.connection.judge(counted)?;
        self.connection.took(began);
        Ok((counted.header().map_or(0, ResponseHeader::revision), counted.count()))
    }

    /// Publishes the known hosts, if they differ from what was published last.
    fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let snapshot = self.roster.snapshot(self.revision);
        self.publish.send_if_modified(|last| {
            let is_new = last.as_ref().is_none_or(|last| last.nodes() != snapshot.nodes());
            if is_new {
                *last = Some(Arc::new(snapshot));
            }
            is_new
        });
    }
}
