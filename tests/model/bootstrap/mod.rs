//! Every interleaving of three candidates of a first election with an etcd that fails: the rules of
//! `bootstrap/rules.rs` themselves, explored breadth first.
//!
//! A world is three processes, what is stored, and requests that are still on their way although
//! nobody waits for them any more. What happens by itself is a *step*: a process looks and decides in
//! one, etcd acts on its request and answers, a late request arrives, a lease that nobody keeps alive
//! ends. Everything else is a *fault*: a request or an answer is lost or late, a lease ends that is
//! kept alive, a process is killed or started, somebody is announced or no longer, a sidekick says
//! that the cluster has formed, somebody resets, the store loses its data and counts its revisions
//! anew. Every order of every step is explored with up to [`FAULTS`] faults; from every world that is
//! met, all paths without further faults have an end, and there everybody who can have an answer has
//! it. What hosts remember, and what becomes of their nodes, is in `tests/model/forming`.
//!
//! What may never be is in `rules.rs`. That the checker would find it is shown by leaving out the
//! conditions of the transactions, one kind at a time.

mod changes;
mod faults;
mod numbers;
mod rules;
mod world;

use std::{ops::Range, time::Instant};

use crate_discovery::bootstrap::{Change, Condition};

use self::{
    changes::{CASTS, Ignored, Model, Part},
    world::World,
};
use crate::search::{self, Explored};

/// How many faults, unless the environment says otherwise.
const FAULTS: usize = 2;
/// Fewer worlds than this mean that the model has become trivial.
const FLOOR: usize = 1_000_000;

impl search::Model for Model {
    type World = World;

    fn beginnings(&self) -> Vec<World> {
        self.takes_part.clone().map(World::beginning).collect()
    }

    fn steps(&self, world: &World) -> Vec<search::Change<World>> {
        self.what_follows(world)
    }

    fn faults(&self, world: &World) -> Vec<search::Change<World>> {
        self.what_may_go_wrong(world)
    }

    fn settled_badly(&self, world: &World) -> Option<&'static str> {
        self.settles_badly(world)
    }

    fn describe(&self, world: &World) -> String {
        self.shown(world)
    }
}

/// Explores these casts with up to [`FAULTS`] faults, `fewer` of them, or as many as the environment says. Gives how many
/// worlds were met.
fn explore(casts: Range<usize>, fewer: usize) -> usize {
    let asked = std::env::var("CRATE_DISCOVERY_MODEL_FAULTS").ok();
    let faults = asked.map_or(FAULTS, |faults| faults.parse().expect("a number of faults")) - fewer;
    let started = Instant::now();
    let model = Model::new(|_, _, _| false, casts);
    let explored = Explored::explore(faults, model, None).unwrap_or_else(|story| panic!("{story}"));
    let steps = explored.settle().unwrap_or_else(|story| panic!("{story}"));
    println!(
        "{} worlds of an election, up to {faults} faults, {:.1?}; without further faults each settles within {steps} steps",
        explored.worlds.len(),
        started.elapsed(),
    );
    explored.worlds.len()
}

#[test]
fn every_interleaving_of_three_candidates_and_a_failing_etcd() {
    let met = explore(0..1, 0);
    assert!(met > FLOOR, "only {met} worlds");
}

/// The casts that differ less have one fault less.
#[test]
fn every_interleaving_of_candidates_that_share_a_name_or_differ_and_a_failing_etcd() {
    let met = explore(1..2, 0) + explore(2..CASTS.len(), 1);
    assert!(met > FLOOR, "only {met} worlds");
}

/// The checker finds this rule broken, where two machines have one name, when etcd does not look at the conditions that `ignored` picks.
#[track_caller]
fn finds(rule: &'static str, ignored: Ignored) {
    match Explored::explore(FAULTS, Model::new(ignored, 1..2), Some(rule)) {
        Ok(explored) => panic!("nothing is found in {} worlds", explored.worlds.len()),
        Err(story) => println!("{story}"),
    }
}

#[test]
fn freezing_where_a_list_is_would_replace_it() {
    finds("a frozen list is replaced", |change, condition, _| {
        matches!((change, condition), (Change::Freeze { .. }, Condition::List(_) | Condition::Epoch(..)))
    });
}

#[test]
fn freezing_while_somebody_is_announced_would_be_found() {
    finds("a list is frozen while somebody is announced", |_, condition, _| {
        matches!(condition, Condition::NobodyAnnounced)
    });
}

#[test]
fn freezing_once_the_cluster_has_formed_would_be_found() {
    finds("a list is frozen although the cluster has formed", |_, condition, _| {
        matches!(condition, Condition::Formed(_))
    });
}

#[test]
fn freezing_whoever_is_gone_would_be_found() {
    finds("somebody is listed who is no candidate", |_, condition, _| {
        matches!(condition, Condition::Candidate(..))
    });
}

#[test]
fn freezing_whoever_has_a_revision_of_before_the_loss_would_be_found() {
    finds("somebody is listed who is no candidate", |_, condition, part| {
        part == Part::Content && matches!(condition, Condition::Candidate(..))
    });
}

#[test]
fn freezing_in_an_epoch_that_is_over_would_be_found() {
    finds("a list is frozen in another epoch than the stored one", |change, condition, _| {
        matches!(
            (change, condition),
            (Change::Freeze { .. }, Condition::Epoch(..) | Condition::Candidate(..))
        )
    });
}

#[test]
fn freezing_without_a_look_at_list_epoch_and_candidates_would_give_two_lists() {
    finds("two lists are handed out", |change, condition, _| {
        let looked_at = Condition::NobodyAnnounced;
        matches!(change, Change::Freeze { .. })
            && !matches!(condition, Condition::Formed(_))
            && *condition != looked_at
    });
}

#[test]
fn registering_without_a_look_at_who_is_there_would_replace_another_host() {
    finds("a candidate is replaced by another host", |change, condition, _| {
        matches!((change, condition), (Change::Register, Condition::Candidate(..)))
    });
}

#[test]
fn resetting_whatever_is_there_would_delete_the_next_list() {
    finds("a reset deletes a list that it was not asked to", |change, condition, _| {
        matches!((change, condition), (Change::Reset(_), Condition::List(_) | Condition::Epoch(..)))
    });
}

#[test]
fn resetting_without_a_look_at_the_epoch_would_not_raise_it() {
    finds("a reset begins no greater epoch", |change, condition, _| {
        matches!((change, condition), (Change::Reset(_), Condition::Epoch(..)))
    });
}
