//! What a node tells those that ask it on its transport port.

use std::time::Instant;

use super::{Core, Mode, Node, lead::beat};
use crate::{
    disk::{Cluster, Peer},
    log::say,
    wire::{Ask, Tell},
};

impl Node {
    /// Answers another node.
    pub fn answer(&self, question: Ask) -> Tell {
        // A new node changes the voters, which takes a majority of those before.
        if let Ask::Join { peer, .. } = &question
            && self.would_change(peer)
            && !beat(self)
        {
            let why = "no majority of the voters answers".to_owned();
            return Tell::Refused { why, term: self.core().memory.term };
        }
        let mut core = self.core();
        let refused = |core: &Core, why: String| Tell::Refused { why, term: core.memory.term };
        if matches!(core.mode, Mode::Starting) {
            return refused(&core, "transport not ready yet".to_owned());
        }
        match question {
            Ask::Hello { cluster_name } if cluster_name != self.cluster_name => {
                let why = format!("remote cluster name [{cluster_name}] is not [{}]", self.cluster_name);
                refused(&core, why)
            }
            Ask::Hello { .. } => Tell::Me {
                peer: self.me(&core),
                master: self.master(&core),
                known: core.memory.cluster.as_ref().map_or_else(Vec::new, |cluster| cluster.nodes.clone()),
                term: core.memory.term,
            },
            Ask::Vote { term, candidate, uuid, version } => {
                let own = core.memory.cluster.clone();
                let differs =
                    |own: &Cluster| own.committed && uuid.as_ref().is_some_and(|uuid| *uuid != own.uuid);
                if !matches!(core.mode, Mode::Candidate { .. }) {
                    refused(&core, "there is a master".to_owned())
                } else if term <= core.memory.term {
                    refused(&core, format!("term {term} is not above {}", core.memory.term))
                } else if own.as_ref().is_some_and(differs) {
                    refused(&core, format!("{} is in another cluster", candidate.name))
                } else if own.as_ref().is_some_and(|own| own.version > version) {
                    refused(&core, format!("{} has an older state", candidate.name))
                } else {
                    core.memory.term = term;
                    self.disk.write(&core.memory);
                    Tell::Granted
                }
            }
            Ask::Join { peer, uuid } => self.take_in(&mut core, peer, uuid),
            Ask::Publish { term, master, cluster } => {
                if term < core.memory.term {
                    return refused(&core, format!("term {term} is below {}", core.memory.term));
                }
                if let Some(why) = other_cluster(core.memory.cluster.as_ref(), &cluster.uuid) {
                    return refused(&core, why);
                }
                if !cluster.nodes.iter().any(|peer| peer.id == core.memory.id) {
                    return refused(&core, "this node is not in it".to_owned());
                }
                core.memory.term = term;
                self.follow(&mut core, master, cluster);
                Tell::Done
            }
            Ask::Decommission => {
                core.decommissioned.get_or_insert_with(Instant::now);
                Tell::Done
            }
        }
    }

    /// Whether this node is master, and that one not in its cluster.
    fn would_change(&self, peer: &Peer) -> bool {
        let core = self.core();
        matches!(core.mode, Mode::Leader { .. })
            && core.memory.cluster.as_ref().is_some_and(|cluster| !cluster.nodes.contains(peer))
    }

    fn take_in(&self, core: &mut Core, peer: Peer, uuid: Option<String>) -> Tell {
        let term = core.memory.term;
        let Core { mode: Mode::Leader { answered }, memory, .. } = core else {
            return Tell::Refused { why: "not the master".to_owned(), term };
        };
        let cluster = memory.cluster.as_mut().expect("a master has a cluster");
        if let Some(local) = uuid.filter(|uuid| *uuid != cluster.uuid) {
            let why = different(&cluster.uuid, &local);
            say(&format!("WARN: failed to validate incoming join request from node [{}]: {why}", peer.name));
            return Tell::Refused { why, term };
        }
        answered.insert(peer.id.clone(), Instant::now());
        if !cluster.nodes.contains(&peer) {
            // Of two at one address, or of one id, the one before is gone.
            cluster.nodes.retain(|other| other.id != peer.id && other.address != peer.address);
            cluster.nodes.push(peer);
            self.changed(core);
        }
        let cluster = core.memory.cluster.clone().expect("a master has a cluster");
        Tell::Joined { term, master: self.me(core), cluster }
    }
}

/// Why a node that remembers `own` takes no state of the cluster `uuid`; nothing if it does.
fn other_cluster(own: Option<&Cluster>, uuid: &str) -> Option<String> {
    own.filter(|own| own.committed && own.uuid != uuid).map(|own| different(uuid, &own.uuid))
}

fn different(theirs: &str, local: &str) -> String {
    format!(
        "join validation on cluster state with a different cluster uuid {theirs} than local cluster uuid {local}, \
         rejecting"
    )
}
