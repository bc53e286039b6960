//! Who may elect the first master: what is stored for it, and the rules, without any I/O.
//!
//! Candidates register, each under a lease of its own. Once `expect` of them are there, one
//! transaction freezes the list of the first ones, and everybody is given that list until the cluster
//! has formed. From then on the answer is "join". A process looks at the whole of it at one revision,
//! [`decide`]s, does that one step, and looks again whatever came of it: so a request or an answer
//! that is lost needs no rule of its own.

mod machine;

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

pub use self::machine::{MachineId, NoMachineId};
use crate::{etcd::LeaseId, host::Host};

/// Somebody who wants to be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// CrateDB's `node.name`.
    pub name: Host,
    /// What it says.
    pub said: Said,
}

/// What a candidate says: the JSON value of its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Said {
    /// How many names the list has to have; at least 1.
    pub expect: u32,
    /// Where it runs.
    pub machine: MachineId,
}

/// A candidate as etcd has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registered {
    /// Who.
    pub candidate: Candidate,
    /// The revision at which this name registered first; being replaced does not change it.
    pub create_revision: i64,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// The lease that it is attached to.
    pub lease: Option<LeaseId>,
}

/// The list that was frozen: its JSON value. Names somebody, and nobody twice: CrateDB starts on nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct List {
    /// The first master-eligible nodes, the earliest candidate first.
    #[serde(deserialize_with = "listed")]
    pub nodes: Vec<Listed>,
}

fn listed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Listed>, D::Error> {
    let nodes = Vec::<Listed>::deserialize(deserializer)?;
    let names: HashSet<&Host> = nodes.iter().map(|node| &node.name).collect();
    match (nodes.is_empty(), names.len() == nodes.len()) {
        (true, _) => Err(D::Error::custom("it names nobody")),
        (_, false) => Err(D::Error::custom("it names a node twice")),
        _ => Ok(nodes),
    }
}

/// One node of the list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listed {
    /// CrateDB's `node.name`.
    pub name: Host,
    /// Where it ran.
    pub machine: MachineId,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        f.write_str(&names.join(","))
    }
}

/// Everything that is stored, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Sorted by create revision.
    pub candidates: Vec<Registered>,
    /// The frozen list: the revision that put it, and the list, or why it cannot be read.
    pub list: Option<(i64, Result<List, String>)>,
    /// The revision that said that the cluster has formed, and who did, escaped.
    pub formed: Option<(i64, String)>,
    /// A key under the prefix, escaped, if there is any: somebody is announced.
    pub announced: Option<String>,
}

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
    /// Put the list.
    Freeze(List),
    /// Delete list, candidates, and that the cluster has formed.
    Reset,
}

/// What must hold for a change to be made. A revision of 0 means that the key is absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// This candidate is as it was seen: its mod revision, and its lease.
    // The revision alone would do, were it not for a store that lost its data and counts anew.
    Candidate(Host, i64, Option<LeaseId>),
    /// The list's mod revision is this one.
    List(i64),
    /// The mod revision of what says that the cluster has formed is this one.
    Formed(i64),
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
    /// It has formed, as this one said.
    Formed(String),
    /// No list is frozen, and this key is there.
    Announced(String),
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Formed(by) => write!(f, "the cluster has formed, as the sidekick of {by} saw"),
            Self::Announced(key) => {
                write!(f, "{key} is announced, and nobody was to elect: a cluster exists")
            }
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
    /// Somebody's hand was at the list.
    #[error("the frozen list is invalid ({0}): stop all nodes and run \"bootstrap --reset --yes\"")]
    InvalidList(String),
}

/// What `me`, registered under the lease `session` if at all, has to do next.
pub fn decide(view: &View, me: &Candidate, session: Option<LeaseId>) -> Step {
    let (name, expect) = (&me.name, me.said.expect);
    if let Some((_, by)) = &view.formed {
        return Step::Done(Answer::Join(Cluster::Formed(by.clone())));
    }
    match &view.list {
        Some((_, Ok(list))) => {
            // Two nodes of one name, and each half of the others could elect with one of them.
            let elsewhere =
                list.nodes.iter().find(|node| node.name == *name && node.machine != me.said.machine);
            return match elsewhere {
                Some(Listed { name, machine }) => {
                    Step::Refuse(Obstacle::Listed { name: name.clone(), machine: machine.clone() })
                }
                None => Step::Done(Answer::Elect(list.clone())),
            };
        }
        Some((_, Err(reason))) => return Step::Refuse(Obstacle::InvalidList(reason.clone())),
        None => {}
    }
    if let Some(key) = &view.announced {
        return Step::Done(Answer::Join(Cluster::Announced(key.clone())));
    }
    match view.candidates.iter().find(|other| other.candidate.name == *name) {
        Some(other) if other.candidate.said.machine != me.said.machine => {
            let machine = other.candidate.said.machine.clone();
            // It may be a node that has moved: then the other one's lease ends.
            return Step::Wait(Obstacle::Taken { name: name.clone(), machine });
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
    let wanted = usize::try_from(expect).unwrap_or(usize::MAX);
    match view.candidates.get(..wanted) {
        Some(first) => freeze(first),
        None => {
            let there = view.candidates.iter().map(|other| other.candidate.name.clone()).collect();
            Step::Wait(Obstacle::TooFew { expect, there })
        }
    }
}

fn freeze(first: &[Registered]) -> Step {
    let listed = |Registered { candidate: Candidate { name, said }, .. }: &Registered| Listed {
        name: name.clone(),
        machine: said.machine.clone(),
    };
    let alive =
        first.iter().map(|one| Condition::Candidate(one.candidate.name.clone(), one.mod_revision, one.lease));
    let conditions = alive.chain([Condition::List(0), Condition::Formed(0), Condition::NobodyAnnounced]);
    Step::Change(Change::Freeze(List { nodes: first.iter().map(listed).collect() }), conditions.collect())
}

/// Resets what `view` shows, and nothing that came later: asked twice because an answer was lost, it
/// must not delete the next list as well.
pub fn reset(view: &View) -> (Change, Vec<Condition>) {
    let (list, formed) = marks(view);
    (Change::Reset, vec![Condition::List(list), Condition::Formed(formed), Condition::NobodyAnnounced])
}

/// Whether what `before` showed has been reset by `now`.
pub fn is_reset(before: &View, now: &View) -> bool {
    let ((list, formed), (list_now, formed_now)) = (marks(before), marks(now));
    let gone = |mark: i64, now: i64| mark == 0 || mark != now;
    gone(list, list_now) && gone(formed, formed_now)
}

/// The mod revisions of the list and of what says that the cluster has formed.
fn marks(view: &View) -> (i64, i64) {
    let list = view.list.as_ref().map_or(0, |(revision, _)| *revision);
    (list, view.formed.as_ref().map_or(0, |(revision, _)| *revision))
}

#[cfg(test)]
mod tests;
