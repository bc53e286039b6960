//! How a node without a master becomes one.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Mode, Node, UNCONFIGURED};
use crate::{
    disk::{Cluster, Peer, random},
    log::say,
    wire::{Ask, Tell, ask},
};

/// Stands for a node of `cluster.initial_master_nodes` that has not been seen yet.
const PLACEHOLDER: &str = "{bootstrap-placeholder}-";

/// Whether more than half of the voters are among `ids`.
pub fn is_quorum(voters: &[String], ids: &[&str]) -> bool {
    2 * voters.iter().filter(|voter| ids.contains(&voter.as_str())).count() > voters.len()
}

/// The voters after the nodes have changed (`Reconfigurator`): as many nodes as an odd number can have,
/// those that vote already first, and never fewer than three once there were three.
pub fn voters(before: &[String], nodes: &[Peer], master: &str) -> Vec<String> {
    let odd = nodes.len() - (nodes.len() + 1) % 2;
    let wanted = odd.max(if before.len() >= 3 { 3 } else { 1 });
    let lives = |id: &str| nodes.iter().any(|peer| peer.id == id);
    let mut order: Vec<String> = vec![master.to_owned()];
    order.extend(before.iter().filter(|id| lives(id)).cloned());
    order.extend(nodes.iter().map(|peer| peer.id.clone()));
    order.extend(before.iter().cloned());
    let mut voters = Vec::new();
    for id in order {
        if voters.len() < wanted && !voters.contains(&id) {
            voters.push(id);
        }
    }
    voters.sort_unstable();
    voters
}

impl Node {
    /// Why there is no master, in CrateDB's words (`ClusterFormationFailureHelper`).
    pub(super) fn lacks(&self) -> String {
        if self.core().memory.cluster.as_ref().is_some_and(|cluster| cluster.committed) {
            return "an election requires more of the voting nodes".to_owned();
        }
        let fresh = "this node has not previously joined a bootstrapped (v4+) cluster, and";
        if self.initial.is_empty() {
            format!("{fresh} [cluster.initial_master_nodes] is empty on this node")
        } else {
            format!("{fresh} this node must discover master-eligible nodes {:?} to bootstrap", self.initial)
        }
    }

    /// The voters of a first election, if this node may hold it: it is among those named, and sees more
    /// than half of them.
    fn first_voters(
        &self,
        me: &Peer,
        others: &[Peer],
        waited: Duration,
    ) -> Result<Vec<String>, Option<String>> {
        if self.is_unconfigured {
            return if waited > UNCONFIGURED { Ok(vec![me.id.clone()]) } else { Err(None) };
        }
        let is = |peer: &Peer, entry: &str| {
            entry == peer.name || entry == peer.address.to_string() || entry == peer.address.ip().to_string()
        };
        let mut voters = Vec::new();
        let mut seen = 0;
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for entry in &self.initial {
            let matching: Vec<&Peer> = others.iter().chain([me]).filter(|peer| is(peer, entry)).collect();
            if matching.len() > 1 {
                return Err(Some(format!("bootstrapping cancelled: [{entry}] matches {}", matching.len())));
            }
            match matching.first() {
                Some(peer) => {
                    *counts.entry(&peer.id).or_default() += 1;
                    seen += 1;
                    voters.push(peer.id.clone());
                }
                None => voters.push(format!("{PLACEHOLDER}{entry}")),
            }
        }
        if counts.values().any(|&count| count > 1) {
            return Err(Some("bootstrapping cancelled: a node matches two entries".to_owned()));
        }
        if voters.contains(&me.id) && 2 * seen > self.initial.len() { Ok(voters) } else { Err(None) }
    }
}

/// Asks the others to let this node be master, if it may ask. What stands in the way for good, if
/// something does.
pub(super) fn stand(node: &Node, others: Vec<Peer>) -> Option<String> {
    // Who comes first wins, and not always the same.
    sleep(Duration::from_millis(fastrand::u64(0..300)));
    let (me, term, own, voters) = {
        let mut core = node.core();
        let Mode::Candidate { since } = core.mode else { return None };
        let me = node.me(&core);
        let own = core.memory.cluster.clone();
        let voters = match &own {
            Some(cluster) => cluster.voters.clone(),
            None => match node.first_voters(&me, &others, since.elapsed()) {
                Ok(voters) => voters,
                Err(why) => return why,
            },
        };
        let ids: Vec<&str> = others.iter().chain([&me]).map(|peer| peer.id.as_str()).collect();
        if !is_quorum(&voters, &ids) {
            return None;
        }
        core.memory.term += 1;
        node.disk.write(&core.memory);
        (me, core.memory.term, own, voters)
    };
    let question = Ask::Vote {
        term,
        candidate: me.clone(),
        uuid: own.as_ref().map(|own| own.uuid.clone()),
        version: own.as_ref().map_or(0, |own| own.version),
    };
    let mut granted = vec![me.clone()];
    for peer in others {
        if let Ok(Tell::Granted) = ask(peer.address, &question) {
            granted.push(peer);
        }
    }
    let ids: Vec<&str> = granted.iter().map(|peer| peer.id.as_str()).collect();
    if is_quorum(&voters, &ids) { win(node, term, granted, own, voters) } else { None }
}

/// The votes are there. The node is master once a majority has its first state.
fn win(
    node: &Node,
    term: u64,
    nodes: Vec<Peer>,
    before: Option<Cluster>,
    old_voters: Vec<String>,
) -> Option<String> {
    let me = node.me(&node.core());
    let mut cluster = Cluster {
        uuid: before.as_ref().map_or_else(|| random(22), |before| before.uuid.clone()),
        committed: before.as_ref().is_some_and(|before| before.committed),
        version: before.as_ref().map_or(0, |before| before.version) + 1,
        voters: voters(&old_voters, &nodes, &me.id),
        recovered: nodes.len() >= node.expected,
        nodes,
    };
    let question = Ask::Publish { term, master: me.clone(), cluster: cluster.clone() };
    let mut have = vec![me.id.as_str()];
    for peer in cluster.nodes.iter().filter(|peer| peer.id != me.id) {
        if let Ok(Tell::Done) = ask(peer.address, &question) {
            have.push(&peer.id);
        }
    }
    if !is_quorum(&old_voters, &have) || !is_quorum(&cluster.voters, &have) {
        return None;
    }
    let have: Vec<String> = have.into_iter().map(str::to_owned).collect();
    cluster.nodes.retain(|peer| have.contains(&peer.id));
    let now = Instant::now();
    let answered = have.into_iter().map(|id| (id, now)).collect();
    cluster.committed = true;
    let mut core = node.core();
    // Another one may have asked for a higher term meanwhile.
    if core.memory.term != term || !matches!(core.mode, Mode::Candidate { .. }) {
        return None;
    }
    core.memory.cluster = Some(cluster);
    node.disk.write(&core.memory);
    core.mode = Mode::Leader { answered };
    say(&format!("elected-as-master in term {term}"));
    node.tell(&mut core);
    None
}
