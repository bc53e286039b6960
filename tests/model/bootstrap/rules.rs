//! What must always hold. Each rule is a sentence that says how it was broken.

use std::collections::BTreeSet;

use crate_discovery::bootstrap::{Answer, Candidate, Condition, List, Registered};

use super::{
    changes::Model,
    numbers::{epoch, epoch_number},
    world::{EpochNumber, Process, World},
};

impl Model {
    /// What no answer may be that is given in this world.
    pub fn broken_by_answer(&self, world: &World, to: &Candidate, answer: &Answer) -> Option<&'static str> {
        let Answer::Elect(list) = answer else { return None };
        if world.handed.is_some_and(|handed| handed != self.list_number(list)) {
            return Some("two lists are handed out");
        }
        if world.formed != 0 {
            return Some("a list is handed out although the cluster has formed");
        }
        if list.epoch.map(epoch_number) != world.epoch.map(|(_, stored)| stored) {
            return Some("a list is handed out that is not of the stored epoch");
        }
        let elsewhere = list.nodes.iter().any(|node| node.name == to.name && node.machine != to.said.machine);
        elsewhere.then_some("a list is handed out to another machine than the listed one")
    }

    /// What no registering may be that etcd acts on in this world.
    pub fn broken_by_registering(&self, world: &World, who: usize) -> Option<&'static str> {
        let Candidate { name, said } = self.candidate(world, who);
        let living = world.candidates.iter().flatten().map(|key| self.candidate(world, key.who.into()));
        let is_other =
            |other: &&Candidate| (&other.said.machine, &other.said.boot) != (&said.machine, &said.boot);
        let replaced = living.filter(|other| other.name == *name).find(is_other);
        replaced.map(|_| "a candidate is replaced by another host")
    }

    /// What no reset may be that etcd acts on in this world.
    pub fn broken_by_reset(
        &self,
        world: &World,
        wanted: EpochNumber,
        conditions: &[Condition],
    ) -> Option<&'static str> {
        if world.epoch.is_some_and(|(_, stored)| stored >= wanted) {
            return Some("a reset begins no greater epoch");
        }
        let (at, _) = world.list?;
        let stored = world.epoch.map(|(at, stored)| Condition::Epoch(at.into(), Some(epoch(stored))));
        let is_meant = conditions.contains(&Condition::List(at.into()))
            && stored.is_none_or(|stored| conditions.contains(&stored));
        (!is_meant).then_some("a reset deletes a list that it was not asked to")
    }

    /// What no freezing may be that etcd acts on in this world.
    pub fn broken_by_freezing(&self, world: &World, list: &List, begins_epoch: bool) -> Option<&'static str> {
        let stored = world.epoch.map(|(_, stored)| epoch(stored));
        if begins_epoch == stored.is_some() || stored.is_some_and(|stored| list.epoch != Some(stored)) {
            return Some("a list is frozen in another epoch than the stored one");
        }
        if world.announced {
            return Some("a list is frozen while somebody is announced");
        }
        if world.formed != 0 {
            return Some("a list is frozen although the cluster has formed");
        }
        let living = self.view(world).candidates;
        let candidate = |name: &str| {
            living.iter().map(|Registered { candidate, .. }| candidate).find(|c| c.name.as_str() == name)
        };
        for node in &list.nodes {
            match candidate(node.name.as_str()) {
                Some(Candidate { said, .. }) if said.machine == node.machine => {
                    if said.expect as usize != list.nodes.len() {
                        return Some("somebody is listed who expects another number");
                    }
                }
                _ => return Some("somebody is listed who is no candidate"),
            }
        }
        let names: BTreeSet<&str> = list.nodes.iter().map(|node| node.name.as_str()).collect();
        if names.len() != list.nodes.len() {
            return Some("a name is listed twice");
        }
        world.list.is_some().then_some("a frozen list is replaced")
    }

    /// What no world may be like in which nothing happens any more.
    pub fn settles_badly(&self, world: &World) -> Option<&'static str> {
        let waiting: Vec<&Candidate> = (0..world.processes.len())
            .filter(|who| matches!(world.processes[*who], Process::Looking { .. }))
            .map(|who| self.candidate(world, who))
            .collect();
        if !waiting.is_empty() && (world.list.is_some() || world.formed != 0 || world.announced) {
            return Some("somebody waits although there is an answer");
        }
        let names: BTreeSet<&str> = waiting.iter().map(|candidate| candidate.name.as_str()).collect();
        let expects: BTreeSet<u32> = waiting.iter().map(|candidate| candidate.said.expect).collect();
        match expects.iter().next() {
            Some(expect) if expects.len() == 1 && names.len() >= *expect as usize => {
                Some("enough candidates wait for ever")
            }
            _ => None,
        }
    }
}
