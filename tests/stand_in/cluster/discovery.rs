//! The rounds of discovery, in which a node without a master looks for one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use super::{BEAT, Health, Mode, Node, SILENCE, election, lead::beat};
use crate::{
    disk::Peer,
    log::say,
    seeds::Seeds,
    wire::{Ask, Tell, ask},
};

/// CrateDB's `discovery.find_peers_interval`.
const ROUND: Duration = Duration::from_secs(1);

/// CrateDB's `discovery.cluster_formation_warning_timeout`.
const WARNING: Duration = Duration::from_secs(10);

/// Looks for a master, or is one, for ever.
pub fn coordinate(node: &Node, seeds: &Seeds) {
    let mut warned = Instant::now();
    let mut complained = String::new();
    loop {
        let is_leader = {
            let mut core = node.core();
            match &core.mode {
                Mode::Follower { heard, .. } if heard.elapsed() > SILENCE => {
                    node.loses_its_master(&mut core, "nothing heard of it");
                    continue;
                }
                Mode::Follower { .. } => None,
                mode => Some(matches!(mode, Mode::Leader { .. })),
            }
        };
        match is_leader {
            None => sleep(BEAT),
            Some(true) => {
                beat(node);
                sleep(BEAT);
            }
            Some(false) => {
                let began = Instant::now();
                if let Some(why) = look(node, seeds)
                    && why != complained
                {
                    say(&format!("WARN: {why}"));
                    complained = why;
                }
                if node.health() == Health::NoMaster {
                    if warned.elapsed() > WARNING {
                        say(&format!("WARN: master not discovered yet, {}", node.lacks()));
                        warned = Instant::now();
                    }
                    sleep(ROUND.saturating_sub(began.elapsed()));
                }
            }
        }
    }
}

/// One round of discovery. What stands in the way of a join, if something does.
fn look(node: &Node, seeds: &Seeds) -> Option<String> {
    let found = met(node, seeds.round());
    let me = node.me(&node.core());
    let others: Vec<Peer> =
        found.iter().map(|(peer, _)| peer.clone()).filter(|peer| peer.id != me.id).collect();
    if let Some(master) = found.into_iter().find_map(|(_, master)| master) {
        let uuid = {
            let core = node.core();
            core.memory.cluster.as_ref().filter(|cluster| cluster.committed).map(|own| own.uuid.clone())
        };
        match ask(master.address, &Ask::Join { peer: me, uuid }) {
            Ok(Tell::Joined { term, master, cluster }) => {
                let mut core = node.core();
                // It may have voted for another one meanwhile.
                if term >= core.memory.term && matches!(core.mode, Mode::Candidate { .. }) {
                    core.memory.term = term;
                    node.follow(&mut core, master, cluster);
                }
                return None;
            }
            // It goes on: a node that is enough for its own voters needs nobody else.
            Ok(Tell::Refused { why, .. }) => {
                let blocked = election::stand(node, others);
                return blocked.or_else(|| Some(format!("failed to join {}: {why}", master.name)));
            }
            _ => return Some(format!("failed to join {}: no answer", master.name)),
        }
    }
    election::stand(node, others)
}

/// Asks the addresses, and the nodes that were known before, and whom those know: each node with the
/// master that it follows.
fn met(node: &Node, addresses: Vec<SocketAddr>) -> Vec<(Peer, Option<Peer>)> {
    let remembered = node.core().memory.cluster.as_ref().map_or_else(Vec::new, |own| own.nodes.clone());
    let mut todo: Vec<SocketAddr> = addresses;
    todo.extend(remembered.iter().map(|peer| peer.address));
    let mut asked: Vec<SocketAddr> = vec![node.address];
    let mut met = BTreeMap::new();
    while !todo.is_empty() {
        todo.sort_unstable();
        todo.dedup();
        todo.retain(|address| !asked.contains(address));
        asked.extend(&todo);
        let question = Ask::Hello { cluster_name: node.cluster_name.clone() };
        let answers: Vec<_> = scope(|scope| {
            let question = &question;
            let asking: Vec<_> =
                todo.iter().map(|&address| (address, scope.spawn(move || ask(address, question)))).collect();
            asking.into_iter().map(|(address, thread)| (address, thread.join().expect("it ends"))).collect()
        });
        todo.clear();
        for (address, answer) in answers {
            match answer {
                // A node is known at the address that it publishes, and at no other.
                Ok(Tell::Me { peer, .. }) if peer.address != address => todo.push(peer.address),
                Ok(Tell::Me { peer, master, known, term }) => {
                    let mut core = node.core();
                    // So that the next vote is above all terms of the others.
                    if term > core.memory.term {
                        core.memory.term = term;
                        node.disk.write(&core.memory);
                    }
                    todo.extend(known.iter().chain(&master).map(|peer| peer.address));
                    met.insert(peer.id.clone(), (peer, master));
                }
                Ok(Tell::Refused { why, .. }) => {
                    say(&format!("WARN: handshake with {address} failed: {why}"))
                }
                _ => {}
            }
        }
    }
    met.into_values().collect()
}
