//! All announcements of a prefix at one etcd revision.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    announcement::{Announcement, Port},
    host::Host,
};

/// One announced node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The host of the key.
    pub host: Host,
    /// The key's value.
    pub announcement: Announcement,
}

impl Node {
    /// `(address, else host):port`, or `None` where this port is not announced.
    pub fn seed(&self, port: Port) -> Option<String> {
        let target = self.announcement.address.as_ref().unwrap_or(&self.host);
        Some(target.with_port(self.announcement.port(port)?))
    }
}

/// The newest snapshot, and notice of each change of it. None until there was a first good read.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// All nodes of a prefix at one revision, sorted bytewise by host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    revision: i64,
    nodes: Vec<Node>,
}

impl Snapshot {
    /// Sorts `nodes` as they were at etcd's `revision`.
    pub fn new(revision: i64, mut nodes: Vec<Node>) -> Self {
        nodes.sort_unstable_by(|a, b| a.host.cmp(&b.host));
        Self { revision, nodes }
    }

    /// The revision of etcd's store that was read.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The nodes, sorted bytewise by host.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Only the nodes that announce `port` and are not in `excluded`.
    #[must_use]
    pub fn select(mut self, port: Port, excluded: &[Host]) -> Self {
        self.nodes.retain(|node| node.announcement.port(port).is_some() && !excluded.contains(&node.host));
        self
    }

    /// The seeds of `port`, in the order of the hosts.
    pub fn seeds(&self, port: Port) -> impl Iterator<Item = String> {
        self.nodes.iter().filter_map(move |node| node.seed(port))
    }
}
