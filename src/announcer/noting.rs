//! Notes, beside the announcer, that the node is in a cluster: on the disk of this host, so that the node never elects
//! a second master, and in etcd, so that `bootstrap` hands out no first masters any more. It never delays the
//! announcer.

use std::{convert::Infallible, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use crate::{
    bootstrap::{Epoch, Evidence, Memory, Note, Sighting, Started, to_note},
    etcd::{Error, FormedMark, Marked},
    node::{Identity, Report, Reports, Told},
};

/// How often we look whether the mark is still in etcd.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// The pause between two tries while etcd does not answer. The connection adds its own pauses.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause between two tries while etcd refuses: an operator may give our role the permission.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// The pause between two tries to write the note while the disk refuses it: somebody may free space, or mount the disk.
const DISK_PAUSE: Duration = Duration::from_secs(10);

/// What is needed to note.
#[derive(Debug)]
pub struct Noting {
    /// The notes of this host.
    pub memory: Memory,
    /// The mark "formed" in etcd, over a connection of its own.
    pub mark: FormedMark,
    /// Whether a check asks CrateDB itself. Without such a check, nobody can see whether the node has a master.
    pub asks_cratedb: bool,
}

/// Notes without an end: whenever `reports` has something new about the node, and after each claim of the key, because
/// etcd may have lost its data before it. `claims` counts the claims. Safe to drop.
pub async fn run(noting: Noting, mut reports: Reports, mut claims: watch::Receiver<u64>) -> Infallible {
    let note = noting.memory.note().await;
    let mut notary = Notary { noting, note, due: None, write_due: None, said: Said::default() };
    loop {
        let report = reports.borrow_and_update().clone();
        notary.turn(&report).await;
        let wakes = [notary.due, notary.write_due].into_iter().flatten().min();
        tokio::select! {
            changed = reports.changed() => if changed.is_err() {
                // The checks have ended, so the process is about to end.
                std::future::pending::<()>().await;
            },
            Ok(()) = claims.changed() => notary.due = Some(Instant::now()),
            () = async { sleep_until(wakes.unwrap_or_else(Instant::now)).await }, if wakes.is_some() => {}
        }
    }
}

struct Notary {
    noting: Noting,
    /// The note of this host, even if its disk does not keep it.
    note: Option<Note>,
    /// When to look at the mark. `None` until there is a reason.
    due: Option<Instant>,
    /// When to write the note: because it is new, or because the disk refused it.
    write_due: Option<Instant>,
    said: Said,
}

/// What was warned about. Each warning is given once.
#[derive(Default)]
struct Said {
    hidden: bool,
    refused: bool,
    older: bool,
    unwritten: Option<String>,
}

impl Notary {
    async fn turn(&mut self, report: &Report) {
        let started = self.noting.memory.started().await;
        let seen = self.sighting(report);
        if seen == Sighting::Hidden {
            self.warn_of_hidden(started.as_ref());
        }
        let start = started.as_ref().and_then(|started| started.epoch);
        let is_due = self.due.is_some_and(|due| due <= Instant::now());
        // If nobody wrote down in which epoch this node was started, we need the epoch of etcd. Until there is a note,
        // we try at once: any note is better than none.
        let stored = if seen == Sighting::HasMaster && start.is_none() && (is_due || self.note.is_none()) {
            match self.noting.mark.epoch().await {
                Ok(stored) => stored,
                Err(error) => {
                    self.failed(&error);
                    None
                }
            }
        } else {
            None
        };
        if let Some((epoch, evidence)) = to_note(seen, started.as_ref(), self.note.as_ref(), stored) {
            self.note = Some(self.compose(epoch, evidence, report, started.as_ref()));
            (self.write_due, self.due) = (Some(Instant::now()), Some(Instant::now()));
        } else if seen == Sighting::HasMaster && self.due.is_none() {
            self.due = Some(Instant::now());
        }
        if self.write_due.is_some_and(|due| due <= Instant::now()) {
            self.write().await;
        }
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.mark(start).await;
        }
    }

    fn sighting(&self, report: &Report) -> Sighting {
        let is_open = report.verdict.is_open();
        match &report.told {
            told if told.has_master() => Sighting::HasMaster,
            Told::Locked if is_open => Sighting::Hidden,
            Told::Nothing if is_open && !self.noting.asks_cratedb => Sighting::Hidden,
            _ => Sighting::Nothing,
        }
    }

    fn compose(&self, epoch: Epoch, evidence: Evidence, report: &Report, started: Option<&Started>) -> Note {
        let identity = match &report.told {
            Told::Known(Identity { name, cluster, .. }) => Some((name.clone(), cluster.clone())),
            _ => None,
        };
        let (node, cluster) = identity.unzip();
        let node = node.or_else(|| started.map(|started| started.node.to_string()));
        let memory = &self.noting.memory;
        let (prefix, machine) = (memory.prefix().to_owned(), memory.machine().clone());
        Note { prefix, machine, node, cluster, epoch, evidence }
    }

    async fn write(&mut self) {
        self.write_due = None;
        let Some(note) = &self.note else { return };
        match self.noting.memory.write_note(note).await {
            Ok(()) => {
                if self.said.unwritten.take().is_some() {
                    info!("this host has noted now that its node is in a cluster");
                }
            }
            Err(reason) => {
                self.write_due = Some(Instant::now() + DISK_PAUSE);
                if self.said.unwritten.as_ref() != Some(&reason) {
                    warn!(
                        reason,
                        "this host cannot note that its node is in a cluster: only etcd knows, until a later try succeeds"
                    );
                }
                self.said.unwritten = Some(reason);
            }
        }
    }

    /// Puts the mark, if this host knows that its node has had a master since it was started. `start` is the epoch in
    /// which the node was started, if that was written down.
    async fn mark(&mut self, start: Option<Epoch>) {
        self.due = None;
        let Some(note) = self.note.as_ref().filter(|note| note.evidence == Evidence::HasMaster) else {
            return;
        };
        // The node was started again after a reset, and since then nobody saw whether it has a master.
        if start.is_some_and(|start| !note.holds(start)) {
            return;
        }
        let key = self.noting.mark.key();
        let pause = match self.noting.mark.put(note.epoch).await {
            Ok(Marked::Now) => {
                info!(key, "the cluster has formed");
                LOOK_EVERY
            }
            Ok(Marked::Before) => {
                debug!(key, "the cluster had formed");
                LOOK_EVERY
            }
            Ok(Marked::OlderThan(stored)) => {
                if !std::mem::replace(&mut self.said.older, true) {
                    warn!(
                        key,
                        epoch = %note.epoch,
                        stored = %stored,
                        "this node belongs to a cluster from before the last reset: it does not count as the cluster that \
                         is to form. Stop it and delete its data, or, if it is the right one, stop all nodes and run \
                         \"bootstrap --reset --yes\" once more"
                    );
                }
                LOOK_EVERY
            }
            Err(error) => return self.failed(&error),
        };
        self.due = Some(Instant::now() + pause);
    }

    fn failed(&mut self, error: &Error) {
        let pause = if let Error::Refused(reason) = error {
            if !std::mem::replace(&mut self.said.refused, true) {
                warn!(
                    key = self.noting.mark.key(),
                    reason,
                    "cannot say that the cluster has formed, and so wiped nodes may elect another one: give our role \
                     readwrite on everything beside this key"
                );
            }
            REFUSED_PAUSE
        } else {
            debug!(%error, "failed to say that the cluster has formed");
            PAUSE
        };
        self.due = Some(Instant::now() + pause);
    }

    /// Warns once that nobody can see whether the cluster has formed, if this node may elect. For a node that wants a
    /// password, the gate gives that warning.
    fn warn_of_hidden(&mut self, started: Option<&Started>) {
        let elects = started.is_some_and(|started| started.elects);
        if elects && !self.noting.asks_cratedb && !std::mem::replace(&mut self.said.hidden, true) {
            warn!(
                "no check asks CrateDB itself, so nobody can tell whether its cluster has formed: add a \"--check\" of \
                 crate://host:port"
            );
        }
    }
}
