//! What is stored in etcd for the first election: the JSON values, and all of it as one [`View`].

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    epoch::{Epoch, InvalidEpoch},
    machine::{BootId, MachineId},
};
use crate::{host::Host, lease::LeaseId, text::escape};

/// The most names in a list. Each name is two comparisons in a transaction, and etcd allows 128 operations
/// (`--max-txn-ops`). The whole list must also fit into one flag of CrateDB.
pub const MOST_LISTED: usize = 50;

/// A node that waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// CrateDB's `node.name`.
    pub name: Host,
    /// What it tells the others.
    pub said: Said,
}

/// What a candidate tells the others: the JSON value of its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Said {
    /// How many names the list must have. At least 1.
    pub expect: u32,
    /// The machine that it runs on.
    pub machine: MachineId,
    /// The boot of that machine. `None` if it is not known, or if an older program wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootId>,
    /// Etcd failed while the candidate waited. So etcd may have lost its data, and others may be on their way back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub saw_etcd_fail: bool,
}

impl Said {
    /// Whether both come from the same host, maybe from two processes: from the same boot of the same machine. Clones
    /// of a machine share its id, but never a boot.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        let same_boot = match (&self.boot, &other.boot) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.machine == other.machine && same_boot
    }
}

/// A candidate as it is stored in etcd.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registered {
    /// The candidate.
    pub candidate: Candidate,
    /// The revision at which this name registered first. It stays the same if the value is replaced.
    pub create_revision: i64,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// The lease that the key is attached to.
    pub lease: Option<LeaseId>,
}

/// The frozen list, as its JSON value. It has at least one node and at most [`MOST_LISTED`], and no node twice, because
/// CrateDB does not start otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct List {
    /// The epoch that began with it. `None` if an older program, without epochs, froze it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The first master-eligible nodes. The earliest candidate is first.
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
    /// The machine that it ran on.
    pub machine: MachineId,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        f.write_str(&names.join(","))
    }
}

/// The mark "formed", as its JSON value: the cluster has formed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Formed {
    /// The host whose sidekick saw the master. It is escaped if another program may have written it.
    pub by: String,
    /// The epoch of that cluster. `None` if an older program, without epochs, wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

impl Formed {
    /// Reads the stored value: a JSON object, or the bare name of the host from an older program. Any other value
    /// counts as the mark, too, because only those with the permission can write it.
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
    /// The candidates, sorted by create revision.
    pub candidates: Vec<Registered>,
    /// The epoch, with its mod revision, or why it cannot be read.
    pub epoch: Option<(i64, Result<Epoch, InvalidEpoch>)>,
    /// The frozen list, with its mod revision, or why it cannot be read.
    pub list: Option<(i64, Result<List, String>)>,
    /// The mark "formed", with its mod revision.
    pub formed: Option<(i64, Formed)>,
    /// A key under the prefix, escaped, if there is any. It means that a node is announced.
    pub announced: Option<String>,
}

impl View {
    /// The stored epoch; [`Epoch::default`] if there is none.
    ///
    /// # Errors
    /// [`InvalidEpoch`] if the stored value cannot be read.
    pub fn epoch(&self) -> Result<Epoch, InvalidEpoch> {
        self.epoch.map_or(Ok(Epoch::default()), |(_, epoch)| epoch)
    }
}
