//! What a master does: it keeps its followers, and knows when they are too few.

use std::{thread::scope, time::Instant};

use super::{Core, Mode, Node, SILENCE, election};
use crate::{
    disk::Peer,
    wire::{Ask, Silence, Tell, ask},
};

impl Node {
    /// The master's own nodes have changed: the state is a new one.
    pub(super) fn changed(&self, core: &mut Core) {
        let id = core.memory.id.clone();
        let cluster = core.memory.cluster.as_mut().expect("a master has a cluster");
        cluster.version += 1;
        cluster.voters = election::voters(&cluster.voters, &cluster.nodes, &id);
        cluster.recovered |= cluster.nodes.len() >= self.expected;
        self.disk.write(&core.memory);
        self.tell(core);
    }
}

/// A master's word to its followers. Who is gone is no follower any more; where too few are left it is no
/// master any more. Whether it is one now, with a majority of its voters that has answered this very word.
pub(super) fn beat(node: &Node) -> bool {
    let (question, followers, me) = {
        let core = node.core();
        let Some(cluster) = core.memory.cluster.clone() else { return false };
        let me = node.me(&core);
        let followers: Vec<Peer> = cluster.nodes.iter().filter(|peer| peer.id != me.id).cloned().collect();
        (Ask::Publish { term: core.memory.term, master: me.clone(), cluster }, followers, me)
    };
    let answers: Vec<_> = scope(|scope| {
        let asking: Vec<_> =
            followers.iter().map(|peer| scope.spawn(|| ask(peer.address, &question))).collect();
        asking.into_iter().map(|thread| thread.join().expect("it ends")).collect()
    });
    let mut core = node.core();
    let newest = core.memory.term;
    let Mode::Leader { answered } = &mut core.mode else { return false };
    let mut have = vec![me.id.as_str()];
    let mut gone = Vec::new();
    let mut overtaken = None;
    for (peer, answer) in followers.iter().zip(&answers) {
        match answer {
            Ok(Tell::Done) => {
                have.push(&peer.id);
                answered.insert(peer.id.clone(), Instant::now());
            }
            Ok(Tell::Refused { term, why }) if *term > newest => overtaken = Some(why.clone()),
            Err(Silence::Gone) => gone.push(peer.id.clone()),
            _ if answered.get(&peer.id).is_none_or(|at| at.elapsed() > SILENCE) => gone.push(peer.id.clone()),
            _ => {}
        }
    }
    if let Some(why) = overtaken {
        node.loses_its_master(&mut core, &why);
        return false;
    }
    let cluster = core.memory.cluster.as_mut().expect("a master has a cluster");
    let is_heard = election::is_quorum(&cluster.voters, &have);
    if gone.is_empty() {
        return is_heard;
    }
    let left: Vec<Peer> = cluster.nodes.iter().filter(|peer| !gone.contains(&peer.id)).cloned().collect();
    let ids: Vec<&str> = left.iter().map(|peer| peer.id.as_str()).collect();
    if !election::is_quorum(&cluster.voters, &ids) {
        node.loses_its_master(&mut core, &format!("{} is left of the voters", me.name));
        return false;
    }
    cluster.nodes = left;
    node.changed(&mut core);
    is_heard
}
