//! What is stored in etcd for the first election, as JSON and as one [`View`].

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    epoch::{Epoch, InvalidEpoch},
    machine::{BootId, MachineId},
};
use crate::{host::Host, lease::LeaseId, text::escape};

/// The most names that a list may have. Each is two comparisons of one transaction, and etcd takes 128 in all
/// (`--max-txn-ops`); and the whole list has to fit into one flag of CrateDB.
pub const MOST_LISTED: usize = 50;

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
    /// Which boot of that machine. None where it could not be told, or by a program that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootId>,
    /// Etcd failed while it waited, so that etcd may have lost its data, and others be on their way back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub saw_etcd_fail: bool,
}

impl Said {
    /// Whether it is the same host that speaks, maybe by another process: the same boot of the same machine. Machines
    /// that were cloned have one id, but never one boot.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        let same_boot = match (&self.boot, &other.boot) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.machine == other.machine && same_boot
    }
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

/// The list that was frozen: its JSON value. It names at least one node and at most [`MOST_LISTED`], none twice: CrateDB
/// starts on nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct List {
    /// The epoch that began with it. None where a program froze it that knew no epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The first master-eligible nodes, the earliest candidate first.
    #[serde(deserialize_with = "listed")]
    pub nodes: Vec<Listed>,
}

fn listed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Listed>, D::Error> {
    let nodes = Vec::<Listed>::deserialize(deserializer)?;
    let names: HashSet<&Host> = nodes.iter().map(|node| &node.name).collect();
    let wrong = |why: String| Err(D::Error::custom(why));
    match nodes.len() {
        0 => wrong("it names nobody".to_owned()),
        many if many > MOST_LISTED => {
            wrong(format!("it names {many} nodes, and at most {MOST_LISTED} are allowed"))
        }
        named if named != names.len() => wrong("it names a node twice".to_owned()),
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

/// The mark that the cluster has formed: its JSON value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Formed {
    /// The host whose sidekick saw it; escaped where somebody else may have written it.
    pub by: String,
    /// The epoch of that cluster. None where a program said so that knew no epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

impl Formed {
    /// Reads what is stored: the JSON object, or, from older programs, the host's bare name. Anything else says that the
    /// cluster has formed, too: who may write here may say so.
    pub fn read(value: &[u8]) -> Self {
        match serde_json::from_slice::<Self>(value) {
            Ok(formed) => Self { by: escape(formed.by.as_bytes()), ..formed },
            Err(_) => Self { by: escape(value), epoch: None },
        }
    }
}

/// Everything that is stored, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Sorted by create revision.
    pub candidates: Vec<Registered>,
    /// The epoch: the revision that put it, and the number, or why it cannot be read.
    pub epoch: Option<(i64, Result<Epoch, InvalidEpoch>)>,
    /// The frozen list: the revision that put it, and the list, or why it cannot be read.
    pub list: Option<(i64, Result<List, String>)>,
    /// The mark that the cluster has formed: the revision that put it, and what it says.
    pub formed: Option<(i64, Formed)>,
    /// A key under the prefix, escaped, if there is any: somebody is announced.
    pub announced: Option<String>,
}

impl View {
    /// The epoch that is stored; [`Epoch::default`] where none is.
    ///
    /// # Errors
    /// [`InvalidEpoch`] where what is stored is none.
    pub fn epoch(&self) -> Result<Epoch, InvalidEpoch> {
        self.epoch.map_or(Ok(Epoch::default()), |(_, epoch)| epoch)
    }
}
