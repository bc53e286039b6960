//! Every interleaving of three candidates of a first election with an etcd that fails: the rules of
//! `bootstrap/mod.rs` themselves, explored breadth first.
//!
//! A world is three processes, what is stored, and requests that are still on their way although
//! nobody waits for them any more. What happens by itself is a *step*: a process looks and decides in
//! one, etcd acts on its request and answers, a late request arrives, a lease that nobody keeps alive
//! ends. Everything else is a *fault*: a request or an answer is lost or late, a lease ends that is
//! kept alive, a process is killed or started, somebody is announced or no longer, a sidekick says
//! that the cluster has formed, somebody resets, the store loses its data. Every order of every step
//! is explored with up to [`FAULTS`] faults; from every world that is met, all paths without further
//! faults have an end, and there everybody who can have an answer has it.
//!
//! What may never be is in `rules.rs`. That the checker would find it is shown by leaving out the
//! conditions of the transactions, one kind at a time.

mod changes;
mod rules;
mod world;

use std::{collections::HashSet, fmt::Write as _, time::Instant};

use crate_discovery::bootstrap::{Change, Condition};

use self::{
    changes::{CASTS, Change as Happening, Model},
    world::World,
};
use crate::quick::QuickMap;

/// How many faults, unless the environment says otherwise.
const FAULTS: usize = 2;
/// Fewer worlds than this mean that the model has become trivial.
const FLOOR: usize = 1_000_000;

/// All worlds that were met, in that order.
struct Explored {
    model: Model,
    /// The one rule that is looked at, or all of them.
    rule: Option<&'static str>,
    worlds: Vec<World>,
    numbers: QuickMap<World, u32>,
    /// The world that each was met from, and what happened; itself for the first ones.
    from: Vec<(u32, &'static str)>,
    /// What follows by itself.
    next: Vec<Box<[u32]>>,
}

impl Explored {
    /// Everything that can be reached with so many faults.
    ///
    /// # Errors
    /// The rule that is broken, with the shortest story that leads there.
    fn explore(faults: usize, model: Model, rule: Option<&'static str>) -> Result<Self, String> {
        let mut explored = Self {
            model,
            rule,
            worlds: Vec::new(),
            numbers: QuickMap::default(),
            from: Vec::new(),
            next: Vec::new(),
        };
        for cast in 0..CASTS.len() {
            explored.meet(World::beginning(cast), None);
        }
        let mut first = 0;
        for behind in 0..=faults {
            let mut number = first;
            while number < explored.worlds.len() {
                let steps = explored.model.steps(&explored.worlds[number]);
                let next = explored.take(number, steps)?;
                explored.next.push(next.into());
                number += 1;
            }
            println!("{behind} faults: {number} worlds of an election");
            let with_more = if behind < faults { first..number } else { 0..0 };
            for from in with_more {
                let faults = explored.model.faults(&explored.worlds[from]);
                explored.take(from, faults)?;
            }
            first = number;
        }
        Ok(explored)
    }

    fn take(&mut self, from: usize, happenings: Vec<Happening>) -> Result<Vec<u32>, String> {
        let mut met = Vec::new();
        for Happening { what, after, broken } in happenings {
            if let Some(broken) = broken
                && self.rule.is_none_or(|rule| rule == broken)
            {
                return Err(format!("{broken}\n{}!! {what}\n{after:?}", self.story(from)));
            }
            met.push(self.meet(after, Some((from, what))));
        }
        Ok(met)
    }

    fn meet(&mut self, world: World, from: Option<(usize, &'static str)>) -> u32 {
        let index = |number| u32::try_from(number).expect("not that many");
        if let Some(number) = self.numbers.get(&world) {
            return *number;
        }
        let number = index(self.worlds.len());
        self.worlds.push(world);
        self.numbers.insert(world, number);
        self.from.push(from.map_or((number, "it begins"), |(from, what)| (index(from), what)));
        number
    }

    /// Follows every path without faults to its end; gives the most steps that any takes.
    ///
    /// # Errors
    /// A path that has no end, or one that is not as it should be.
    fn settle(&self) -> Result<u32, String> {
        let mut longest: Vec<Option<u32>> = vec![None; self.worlds.len()];
        for start in 0..self.worlds.len() {
            let (mut path, mut on_path) = (vec![start], HashSet::from([start]));
            while let Some(&here) = path.last() {
                if let Some(open) = self.next[here].iter().find(|next| longest[**next as usize].is_none()) {
                    let open = *open as usize;
                    if !on_path.insert(open) {
                        return Err(format!("for ever\n{}", self.story(here)));
                    }
                    path.push(open);
                    continue;
                }
                let world = &self.worlds[here];
                if self.next[here].is_empty()
                    && let Some(badly) = self.model.settled_badly(world)
                {
                    return Err(format!("{badly}\n{}", self.story(here)));
                }
                let further = self.next[here].iter().filter_map(|next| longest[*next as usize]);
                longest[here] = Some(further.map(|steps| steps + 1).max().unwrap_or(0));
                on_path.remove(&here);
                path.pop();
            }
        }
        Ok(longest.into_iter().flatten().max().unwrap_or(0))
    }

    /// How a world came about.
    fn story(&self, number: usize) -> String {
        let mut path = vec![number];
        while let Some(&here) = path.last()
            && self.from[here].0 as usize != here
        {
            path.push(self.from[here].0 as usize);
        }
        path.iter().rev().fold(String::new(), |mut story, here| {
            writeln!(story, "-- {}\n   {}", self.from[*here].1, self.model.describe(&self.worlds[*here]))
                .unwrap();
            story
        })
    }
}

#[test]
fn every_interleaving_of_three_candidates_and_a_failing_etcd() {
    let asked = std::env::var("CRATE_DISCOVERY_MODEL_FAULTS").ok();
    let faults = asked.map_or(FAULTS, |faults| faults.parse().expect("a number of faults"));
    let started = Instant::now();
    let explored =
        Explored::explore(faults, Model::new(|_, _| false), None).unwrap_or_else(|story| panic!("{story}"));
    let steps = explored.settle().unwrap_or_else(|story| panic!("{story}"));
    println!(
        "{} worlds of an election, up to {faults} faults, {:.1?}; without further faults each settles within {steps} steps",
        explored.worlds.len(),
        started.elapsed(),
    );
    assert!(explored.worlds.len() > FLOOR || faults < FAULTS, "only {} worlds", explored.worlds.len());
}

/// The checker finds this rule broken when etcd does not look at the conditions that `ignored` picks.
#[track_caller]
fn finds(rule: &'static str, ignored: fn(&Change, &Condition) -> bool) {
    match Explored::explore(FAULTS, Model::new(ignored), Some(rule)) {
        Ok(explored) => panic!("nothing is found in {} worlds", explored.worlds.len()),
        Err(story) => println!("{story}"),
    }
}

#[test]
fn freezing_where_a_list_is_would_replace_it() {
    finds("a frozen list is replaced", |change, condition| {
        matches!((change, condition), (Change::Freeze(_), Condition::List(_)))
    });
}

#[test]
fn freezing_while_somebody_is_announced_would_be_found() {
    finds("a list is frozen while somebody is announced", |_, condition| {
        matches!(condition, Condition::NobodyAnnounced)
    });
}

#[test]
fn freezing_once_the_cluster_has_formed_would_be_found() {
    finds("a list is frozen although the cluster has formed", |_, condition| {
        matches!(condition, Condition::Formed(_))
    });
}

#[test]
fn freezing_whoever_is_gone_would_be_found() {
    finds("somebody is listed who is no candidate", |_, condition| {
        matches!(condition, Condition::Candidate(..))
    });
}

#[test]
fn freezing_without_a_look_at_list_and_candidates_would_give_two_lists() {
    finds("two lists are handed out", |change, condition| {
        matches!((change, condition), (Change::Freeze(_), Condition::List(_) | Condition::Candidate(..)))
    });
}

#[test]
fn resetting_whatever_is_there_would_delete_the_next_list() {
    finds("a reset deletes a list that it was not asked to", |change, condition| {
        matches!((change, condition), (Change::Reset, Condition::List(_)))
    });
}
