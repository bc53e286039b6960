//! The rules: from what is stored, and what a host remembers, to what to do next. No I/O, no clock.

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
    /// That is the answer.
    Done(Answer),
    /// There will be none.
    Refuse(Obstacle),
    /// Look again a little later.
    Wait(Obstacle),
    /// Change this.
    Change(Change, Vec<Condition>),
}

/// A change, made in one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Put our candidate under our lease.
    Register,
    /// Put the list, and its epoch where none is stored.
    Freeze {
        /// The list, which carries its epoch.
        list: List,
        /// Whether its epoch has to be stored, too.
        begins_epoch: bool,
    },
    /// Delete list, candidates and the mark that the cluster has formed, and store this epoch.
    Reset(Epoch),
}

/// What must hold for a change to be made. A revision of 0 means that the key is absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// This candidate is as it was seen: its mod revision, and its lease.
    // The revision alone would do, were it not for a store that lost its data and counts anew.
    Candidate(Host, i64, Option<LeaseId>),
    /// The list's mod revision is this one.
    List(i64),
    /// The mod revision of the mark that the cluster has formed is this one.
    Formed(i64),
    /// The epoch's mod revision is this one, and where it can be read it is this epoch.
    // The revision alone would do, were it not for a store that lost its data and counts anew.
    Epoch(i64, Option<Epoch>),
    /// There is no key under the prefix.
    NobodyAnnounced,
}

/// Who may elect the first master.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// These.
    Elect(List),
    /// Nobody any more: there is a cluster, and this is why we know.
    Join(Cluster),
}

/// How a cluster shows that it exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cluster {
    /// It has formed, as the sidekick of this host said.
    Formed(String),
    /// No list is frozen, and this key is there.
    Announced(String),
    /// This host has noted it, and etcd knows of no later reset.
    Noted {
        /// What etcd shows besides: a mark, or somebody announced. If it shows neither, etcd may have lost its data, or
        /// the whole cluster is gone and a reset is due.
        is_seen: bool,
    },
    /// This host has noted it, and etcd could not be asked.
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
    /// Not enough candidates.
    #[error("only {} of {expect} candidates are there: {}", .there.len(), .there.iter().map(Host::as_str).collect::<Vec<_>>().join(","))]
    TooFew {
        /// `--expect`.
        expect: u32,
        /// Who is there.
        there: Vec<Host>,
    },
    /// Candidates that want lists of different lengths.
    #[error(
        "{name} expects {expect} candidates and {other} expects {others}: set the same \"--expect\" on every node"
    )]
    Differ {
        /// Us.
        name: Host,
        /// What we said.
        expect: u32,
        /// The first one who says something else.
        other: Host,
        /// What that one said.
        others: u32,
    },
    /// Our name, from elsewhere.
    #[error("another machine ({machine}) has the name {name}: give each node a \"--node-name\" of its own")]
    Taken {
        /// Our name.
        name: Host,
        /// The other machine.
        machine: MachineId,
    },
    /// Our name, from this machine, but from another boot of it.
    #[error(
        "another boot of this machine, or a clone of it, has the name {name} until its lease ends: give each machine an \
         /etc/machine-id, and each node a \"--node-name\", of its own"
    )]
    TakenByAnotherBoot {
        /// Our name.
        name: Host,
    },
    /// Our name is in the list, from elsewhere.
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
    /// What is stored as the list is none.
    #[error("the frozen list is invalid ({0}): stop all nodes and run \"bootstrap --reset --yes\"")]
    InvalidList(String),
    /// What is stored as the epoch is none.
    #[error("the stored epoch is invalid ({0}): stop all nodes and run \"bootstrap --reset --yes\"")]
    InvalidEpoch(InvalidEpoch),
    /// All candidates are there, and others may be on their way back.
    #[error(
        "all {expect} candidates are there: {}; the list is frozen as soon as that has been so for a while with nobody \
         announced (\"--hold\")",
        .there.iter().map(Host::as_str).collect::<Vec<_>>().join(",")
    )]
    Settling {
        /// `--expect`.
        expect: u32,
        /// The first ones of those that are there.
        there: Vec<Host>,
    },
}

/// Who asks, and what that host knows besides what is stored.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Who.
    pub me: &'a Candidate,
    /// The lease that it is registered under, or would register under, if it has one.
    pub session: Option<LeaseId>,
    /// The host's note, of this prefix and this machine.
    pub note: Option<&'a Note>,
    /// The candidates have been there for long enough; see [`Settling`](super::Settling).
    pub settled: bool,
    /// The epoch that begins if a list is frozen now and none is stored.
    pub fresh: Epoch,
}

/// What the `asker` has to do next.
pub fn decide(view: &View, asker: Asker<'_>) -> Step {
    let Asker { me, session, note, .. } = asker;
    let (name, expect) = (&me.name, me.said.expect);
    let epoch = view.epoch();
    // An epoch that cannot be read is not a greater one.
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
            // It may be a node that has moved, or a machine that was booted again: then that lease ends.
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

/// The epoch that a node is started in with this `answer`, given where etcd has the epoch `stored`, if it has one, to a host
/// that has this `note`, if it is not void. None where it is not known, as in an etcd that lost its data and has not been
/// told again, or in one that cannot be asked.
pub fn started_in(answer: &Answer, note: Option<&Note>, stored: Option<Epoch>) -> Option<Epoch> {
    let in_none = || match answer {
        // An older program froze it.
        Answer::Elect(_) => Some(Epoch::default()),
        Answer::Join(_) => None,
    };
    // A note of no epoch was written while it was not known.
    let noted = note.map(|note| note.epoch).filter(|epoch| *epoch > Epoch::default());
    noted.or(stored).or_else(in_none)
}

/// The list is for everybody of this epoch, but for another machine with the name of a listed one.
fn elect(list: &List, epoch: Epoch, me: &Candidate) -> Step {
    // An older program froze a list without an epoch.
    if let Some(other) = list.epoch.filter(|other| *other != epoch) {
        return Step::Refuse(Obstacle::InvalidList(format!("it is of epoch {other}, and not of {epoch}")));
    }
    // Two nodes of one name, and each half of the others could elect with one of them.
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

/// That the epoch is as it was seen.
fn stored_epoch(view: &View) -> Condition {
    let (revision, epoch) = view.epoch.map_or((0, None), |(revision, epoch)| (revision, epoch.ok()));
    Condition::Epoch(revision, epoch)
}

/// Resets what `view` shows, and nothing that came later: asked twice because an answer was lost, it must not delete the
/// next list as well. `wanted` is the epoch that begins, greater than the one in `view`.
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

/// Whether a reset to `wanted` has been made by `now`, by us or by somebody else.
pub fn is_reset(wanted: Epoch, now: &View) -> bool {
    now.epoch().is_ok_and(|stored| stored >= wanted)
}
