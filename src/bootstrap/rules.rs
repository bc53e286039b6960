//! The rules: what to do next, from what is stored and from what the host remembers. They have no I/O and no clock.

use std::fmt;

use super::{
    epoch::{Epoch, InvalidEpoch},
    machine::MachineId,
    note::Note,
    stored::{Candidate, List, Listed, Registered, View},
};
use crate::{host::Host, lease::LeaseId};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// This is the answer.
    Done(Answer),
    /// There will be no answer.
    Refuse(Obstacle),
    /// Look again a little later.
    Wait(Obstacle),
    /// Make this change, if the conditions hold.
    Change(Change, Vec<Condition>),
}

/// A change, made in one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Put our candidate under our lease.
    Register,
    /// Put the list, and its epoch if none is stored.
    Freeze {
        /// The list, with its epoch.
        list: List,
        /// Whether the epoch must be stored, too.
        begins_epoch: bool,
    },
    /// Delete the list, the candidates and the mark "formed", and store this epoch.
    Reset(Epoch),
}

/// A condition for a change. A revision of 0 means that the key is absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// This candidate has this mod revision and this lease.
    // The revision alone is not enough, because a store that lost its data counts revisions from the beginning.
    Candidate(Host, i64, Option<LeaseId>),
    /// The list has this mod revision.
    List(i64),
    /// The mark "formed" has this mod revision.
    Formed(i64),
    /// The key of the epoch has this mod revision, and this epoch if it can be read.
    // The revision alone is not enough, because a store that lost its data counts revisions from the beginning.
    Epoch(i64, Option<Epoch>),
    /// There is no key under the prefix.
    NobodyAnnounced,
}

/// The answer to the question who may elect the first master.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The nodes of this list.
    Elect(List),
    /// No node: there is a cluster, and this is how we know.
    Join(Cluster),
}

/// How we know that a cluster exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cluster {
    /// The mark "formed" is there. The text is the host that put it.
    Formed(String),
    /// No list is frozen, but this key is under the prefix.
    Announced(String),
    /// This host has a note of it, and etcd has no later reset.
    Noted {
        /// Whether etcd shows it, too, by the mark or by an announced node. If it shows neither, etcd may have lost its
        /// data, or the whole cluster is gone and a reset is needed.
        is_seen: bool,
    },
    /// This host has a note of it, and etcd could not be asked.
    NotedAlone,
    /// The node has data, and etcd could not be asked.
    NodeData,
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Formed(by) => write!(f, "the cluster has formed, as the sidekick of {by} saw"),
            Self::Announced(key) => {
                write!(f, "{key} is announced, and nobody was to elect: a cluster exists")
            }
            Self::Noted { .. } => f.write_str("this host has noted that its node is in a cluster"),
            Self::NotedAlone => f.write_str(
                "this host has noted that its node is in a cluster, and etcd cannot be asked for more",
            ),
            Self::NodeData => f.write_str("the node has data, and etcd cannot be asked for more"),
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Obstacle {
    /// There are not enough candidates.
    #[error("only {} of {expect} candidates are there: {}", .there.len(), .there.iter().map(Host::as_str).collect::<Vec<_>>().join(","))]
    TooFew {
        /// `--expect`.
        expect: u32,
        /// The candidates that are there.
        there: Vec<Host>,
    },
    /// Two candidates want lists of different lengths.
    #[error(
        "{name} expects {expect} candidates and {other} expects {others}: set the same \"--expect\" on every node"
    )]
    Differ {
        /// Our name.
        name: Host,
        /// Our `--expect`.
        expect: u32,
        /// The name of the first candidate with another number.
        other: Host,
        /// Its `--expect`.
        others: u32,
    },
    /// Another machine has registered with our name.
    #[error("another machine ({machine}) has the name {name}: give each node a \"--node-name\" of its own")]
    Taken {
        /// Our name.
        name: Host,
        /// The other machine.
        machine: MachineId,
    },
    /// Another boot of this machine has registered with our name.
    #[error(
        "another boot of this machine, or a clone of it, has the name {name} until its lease ends: give each machine an \
         /etc/machine-id, and each node a \"--node-name\", of its own"
    )]
    TakenByAnotherBoot {
        /// Our name.
        name: Host,
    },
    /// Our name is in the list, as a node of another machine.
    #[error(
        "{name} is in the list as a node of another machine ({machine}): give this node another \"--node-name\", or, if \
         that one is gone for ever and no cluster has formed, stop all nodes and run \"bootstrap --reset --yes\""
    )]
    Listed {
        /// Our name.
        name: Host,
        /// The other machine.
        machine: MachineId,
    },
    /// The stored list cannot be read, or does not belong to the stored epoch.
    #[error("the frozen list is invalid ({0}): stop all nodes and run \"bootstrap --reset --yes\"")]
    InvalidList(String),
    /// The stored epoch cannot be read.
    #[error("the stored epoch is invalid ({0}): stop all nodes and run \"bootstrap --reset --yes\"")]
    InvalidEpoch(InvalidEpoch),
    /// All candidates are there, but others may still be on their way back.
    #[error(
        "all {expect} candidates are there: {}; the list is frozen as soon as that has been so for a while with nobody \
         announced (\"--hold\")",
        .there.iter().map(Host::as_str).collect::<Vec<_>>().join(",")
    )]
    Settling {
        /// `--expect`.
        expect: u32,
        /// The first candidates, as many as are expected.
        there: Vec<Host>,
    },
}

/// The candidate that asks, and what its host knows besides what is stored.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The candidate.
    pub me: &'a Candidate,
    /// The lease that it is registered with, or will register with, if it has one.
    pub session: Option<LeaseId>,
    /// The note of the host, for this prefix and this machine.
    pub note: Option<&'a Note>,
    /// Whether the candidates have been there for long enough; see [`Settling`](super::Settling).
    pub settled: bool,
    /// The epoch that begins if a list is frozen now and no epoch is stored.
    pub fresh: Epoch,
}

/// What `asker` has to do next.
pub fn decide(view: &View, asker: Asker<'_>) -> Step {
    let Asker { me, session, note, .. } = asker;
    let (name, expect) = (&me.name, me.said.expect);
    let epoch = view.epoch();
    // An epoch that cannot be read does not count as a greater one.
    if note.is_some_and(|note| note.holds(epoch.unwrap_or_default())) {
        let is_seen = view.formed.is_some() || view.announced.is_some();
        return Step::Done(Answer::Join(Cluster::Noted { is_seen }));
    }
    if let Some((_, formed)) = &view.formed {
        return Step::Done(Answer::Join(Cluster::Formed(formed.by.clone())));
    }
    let epoch = match epoch {
        Ok(epoch) => epoch,
        Err(error) => return Step::Refuse(Obstacle::InvalidEpoch(error)),
    };
    match &view.list {
        Some((_, Ok(list))) => return elect(list, epoch, me),
        Some((_, Err(reason))) => return Step::Refuse(Obstacle::InvalidList(reason.clone())),
        None => {}
    }
    if let Some(key) = &view.announced {
        return Step::Done(Answer::Join(Cluster::Announced(key.clone())));
    }
    match view.candidates.iter().find(|other| other.candidate.name == *name) {
        Some(other) if !other.candidate.said.is_of(&me.said) => {
            let (name, machine) = (name.clone(), other.candidate.said.machine.clone());
            // The node may have moved, or the machine may have booted again. Then the old lease ends soon.
            return Step::Wait(if machine == me.said.machine {
                Obstacle::TakenByAnotherBoot { name }
            } else {
                Obstacle::Taken { name, machine }
            });
        }
        Some(own) if own.candidate == *me && own.lease == session => {}
        own => {
            let (revision, lease) = own.map_or((0, None), |own| (own.mod_revision, own.lease));
            return Step::Change(Change::Register, vec![Condition::Candidate(name.clone(), revision, lease)]);
        }
    }
    if let Some(Registered { candidate: other, .. }) =
        view.candidates.iter().find(|other| other.candidate.said.expect != expect)
    {
        let (other, others) = (other.name.clone(), other.said.expect);
        return Step::Wait(Obstacle::Differ { name: name.clone(), expect, other, others });
    }
    let names = |of: &[Registered]| of.iter().map(|other| other.candidate.name.clone()).collect();
    let wanted = usize::try_from(expect).unwrap_or(usize::MAX);
    match view.candidates.get(..wanted) {
        Some(first) if asker.settled => freeze(first, view, epoch, asker.fresh),
        Some(first) => Step::Wait(Obstacle::Settling { expect, there: names(first) }),
        None => Step::Wait(Obstacle::TooFew { expect, there: names(&view.candidates) }),
    }
}

/// The epoch of a node that is started with this `answer`. `note` is the note of its host, if it is not void; `stored`
/// is the epoch in etcd, if there is one. `None` if the epoch is not known: etcd cannot be asked, or lost its data and
/// nobody has stored the epoch again.
pub fn started_in(answer: &Answer, note: Option<&Note>, stored: Option<Epoch>) -> Option<Epoch> {
    let in_none = || match answer {
        // An older program, without epochs, froze this list.
        Answer::Elect(_) => Some(Epoch::default()),
        Answer::Join(_) => None,
    };
    // A note with epoch 0 was written while the epoch was not known.
    let noted = note.map(|note| note.epoch).filter(|epoch| *epoch > Epoch::default());
    noted.or(stored).or_else(in_none)
}

/// Everybody in this epoch gets the list, except another machine that has the name of a listed node.
fn elect(list: &List, epoch: Epoch, me: &Candidate) -> Step {
    // A list without an epoch comes from an older program.
    if let Some(other) = list.epoch.filter(|other| *other != epoch) {
        return Step::Refuse(Obstacle::InvalidList(format!("it is of epoch {other}, and not of {epoch}")));
    }
    // With two nodes of one name, each half of the other nodes could elect a master with one of them.
    match list.nodes.iter().find(|node| node.name == me.name && node.machine != me.said.machine) {
        Some(Listed { name, machine }) => {
            Step::Refuse(Obstacle::Listed { name: name.clone(), machine: machine.clone() })
        }
        None => Step::Done(Answer::Elect(list.clone())),
    }
}

fn freeze(first: &[Registered], view: &View, epoch: Epoch, fresh: Epoch) -> Step {
    let listed = |Registered { candidate: Candidate { name, said }, .. }: &Registered| Listed {
        name: name.clone(),
        machine: said.machine.clone(),
    };
    let alive =
        first.iter().map(|one| Condition::Candidate(one.candidate.name.clone(), one.mod_revision, one.lease));
    let conditions = alive.chain([
        stored_epoch(view),
        Condition::List(0),
        Condition::Formed(0),
        Condition::NobodyAnnounced,
    ]);
    let begins_epoch = view.epoch.is_none();
    let list = List {
        epoch: Some(if begins_epoch { fresh } else { epoch }),
        nodes: first.iter().map(listed).collect(),
    };
    Step::Change(Change::Freeze { list, begins_epoch }, conditions.collect())
}

/// The condition that the epoch is as it was seen.
fn stored_epoch(view: &View) -> Condition {
    let (revision, epoch) = view.epoch.map_or((0, None), |(revision, epoch)| (revision, epoch.ok()));
    Condition::Epoch(revision, epoch)
}

/// Resets what `view` shows, and nothing that came later: if it is tried again because an answer was lost, it must not
/// delete the next list. `wanted` is the epoch that begins. It must be greater than the one in `view`.
pub fn reset(view: &View, wanted: Epoch) -> (Change, Vec<Condition>) {
    let mark = |revision: Option<i64>| revision.unwrap_or(0);
    let conditions = vec![
        stored_epoch(view),
        Condition::List(mark(view.list.as_ref().map(|(revision, _)| *revision))),
        Condition::Formed(mark(view.formed.as_ref().map(|(revision, _)| *revision))),
        Condition::NobodyAnnounced,
    ];
    (Change::Reset(wanted), conditions)
}

/// Whether `now` shows that a reset to `wanted` was made, by us or by another process.
pub fn is_reset(wanted: Epoch, now: &View) -> bool {
    now.epoch().is_ok_and(|stored| stored >= wanted)
}
