//! All announcements of a prefix at one revision of etcd.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    announcement::{Announcement, Port},
    host::Host,
};

/// One announced node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The host in the key.
    pub host: Host,
    /// The value of the key.
    pub announcement: Announcement,
}

impl Node {
    /// `(address, else host):port`. `None` if the node does not announce this port.
    pub fn seed(&self, port: Port) -> Option<String> {
        let target = self.announcement.address.as_ref().unwrap_or(&self.host);
        Some(target.with_port(self.announcement.port(port)?))
    }
}

/// The receiver of the newest snapshot and of its changes. `None` until a read has succeeded.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// All nodes of a prefix at one revision, sorted bytewise by host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    revision: i64,
    nodes: Vec<Node>,
}

impl Snapshot {
    /// A snapshot of `nodes` at the `revision` of etcd. It sorts them.
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

    /// Keeps only the nodes that announce `port` and are not in `excluded`.
    #[must_use]
    pub fn select(mut self, port: Port, excluded: &[Host]) -> Self {
        self.nodes.retain(|node| node.announcement.port(port).is_some() && !excluded.contains(&node.host));
        self
    }

    /// The seeds for `port`, in the order of the hosts.
    pub fn seeds(&self, port: Port) -> impl Iterator<Item = String> {
        self.nodes.iter().filter_map(move |node| node.seed(port))
    }
}
