//! What a node still knows after it was started again: who it is, and its cluster.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::log::fail;

/// What is on disk. A wiped disk is a fresh node: it has another id, and no cluster.
#[derive(Clone, Serialize, Deserialize)]
pub struct Memory {
    /// The node's id, which the voters are named by.
    pub id: String,
    /// The highest term in which it has voted.
    pub term: u64,
    /// The last state of the cluster that it accepted.
    pub cluster: Option<Cluster>,
}

/// One cluster's state.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Which cluster it is, for ever.
    pub uuid: String,
    /// Whether a majority has it. Before that the node may still end in another cluster.
    pub committed: bool,
    /// Grows with each change.
    pub version: u64,
    /// Ids of the nodes of which a majority elects a master, and placeholders for those not seen yet.
    pub voters: Vec<String>,
    /// Who is in it.
    pub nodes: Vec<Peer>,
    /// Whether its data is there.
    pub recovered: bool,
}

/// A node as the others know it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub id: String,
    /// Its `node.name`.
    pub name: String,
    /// Where it is joined: its publish address, and its transport port.
    pub address: std::net::SocketAddr,
}

/// The place of a node's [`Memory`], under `path.data`, where CrateDB has it.
pub struct Disk(PathBuf);

impl Disk {
    /// Opens the data directory, and makes it where it is missing. What cannot be written ends the node.
    pub fn open(data: &str) -> Self {
        let state = PathBuf::from(data).join("nodes/0/_state");
        if let Err(error) = fs::create_dir_all(&state) {
            fail(1, &format!("failed to create {}: {error}", state.display()));
        }
        Self(state.join("stand-in.json"))
    }

    /// What is remembered; a new id where nothing is.
    pub fn read(&self) -> Memory {
        match fs::read_to_string(&self.0) {
            Ok(text) => serde_json::from_str(&text)
                .unwrap_or_else(|error| fail(1, &format!("corrupt state in {}: {error}", self.0.display()))),
            Err(_) => Memory { id: random(20), term: 0, cluster: None },
        }
    }

    /// Remembers.
    pub fn write(&self, memory: &Memory) {
        let text = serde_json::to_string(memory).expect("it is plain data");
        let new = self.0.with_extension("new");
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.0)) {
            fail(1, &format!("failed to write {}: {error}", self.0.display()));
        }
    }
}

/// So many random letters and digits.
pub fn random(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}
