//! Whole hosts that form a cluster, lose what they knew, and form it again: who may elect, explored breadth first.
//!
//! A world is three or four hosts, what etcd stores for the first election, one old backup of it, and what really happened.
//! A host has a node with its data, a note and what was written down at the last start, a sidekick, and a `bootstrap`
//! wherever its node does not run. Requests are single steps here: that they may be late or lost, and leases end, is in
//! `tests/model/bootstrap`. What a host decides, notes and marks comes from the real functions (`protocol.rs`); what a node
//! does is CrateDB's own way (`docs/cratedb.md`, "The first election"), with one simplification that makes it worse:
//! whoever runs is seen, and a cluster has a master as soon as more than half of a list's number of its nodes run.
//!
//! What happens by itself is a *step*: `bootstrap` asks, a node elects or joins, a sidekick announces, notes and marks, or
//! reaches etcd again, etcd comes back. Everything else is a *fault* (`faults.rs`): nodes killed, data or whole hosts wiped,
//! state directories lost or read-only, sidekicks silent, etcd away, gone, wiped or restored, a reset. The *hold* is that a
//! list is frozen only when every sidekick that can announce has announced.
//!
//! The rules are in `rules.rs`, the scenarios in `scenarios.rs`. That the search finds what is wrong is shown by
//! getting the protocol wrong on purpose ([`Mutation`]), one thing at a time.
//!
//! `CRATE_DISCOVERY_MODEL_MORE_FAULTS=1 cargo test --release --test model forming` looks deeper; it takes some minutes.

mod changes;
mod faults;
mod protocol;
mod rules;
mod scenarios;
mod world;

use std::time::Instant;

use self::{
    changes::{Change, Model},
    protocol::Mutation,
    world::{Begun, Host, Noted, Stored, World},
};
use crate::search::{self, Explored};

impl search::Model for Model {
    type World = World;

    fn beginnings(&self) -> Vec<World> {
        self.beginnings.iter().map(|world| world.sorted()).collect()
    }

    fn steps(&self, world: &World) -> Vec<Change> {
        self.what_follows(world)
    }

    fn faults(&self, world: &World) -> Vec<Change> {
        self.what_may_go_wrong(world)
    }

    fn settled_badly(&self, world: &World) -> Option<&'static str> {
        self.settles_badly(world)
    }

    fn describe(&self, world: &World) -> String {
        world.to_string()
    }
}

/// Nothing has happened yet.
fn nothing(count: u8, expect: u8) -> World {
    World { count, expect, ..World::default() }
}

/// A cluster of epoch 1 that runs, of the first `expect` hosts; the others are new.
fn running(count: u8, expect: u8) -> World {
    let list = (1 << expect) - 1;
    let stored = Stored { epoch: 1, list, list_epoch: 1, is_formed: true };
    let mut world = World {
        stored,
        latest: 1,
        listed: 1 << 1,
        formed: 1 << 1,
        clusters: 1,
        clusters_since: 1,
        is_told: true,
        ..nothing(count, expect)
    };
    for host in world.hosts.iter_mut().take(expect.into()) {
        *host = Host {
            data: 1,
            has_run: true,
            runs: true,
            given: list,
            note: Some(Noted { epoch: 1, has_master: true, is_foreign: false }),
            started: Some(Begun { epoch: Some(1), elects: true }),
            is_announced: true,
            ..Host::default()
        };
    }
    world
}

/// The same, with a backup of etcd from before it had formed.
fn with_early_backup(world: World) -> World {
    World { backup: Some(Stored { is_formed: false, ..world.stored }), ..world }
}

/// The same, with a backup of etcd from before the list was frozen.
fn with_empty_backup(world: World) -> World {
    World { backup: Some(Stored::default()), ..world }
}

/// All nodes were stopped and wiped; the hosts kept their notes.
fn wiped(mut world: World) -> World {
    for host in &mut world.hosts {
        *host = Host { note: host.note, started: host.started, is_hidden: host.is_hidden, ..Host::default() };
    }
    World { is_disturbed: true, ..world }
}

/// Nothing of any node can be seen but that it can be joined.
fn hidden(mut world: World) -> World {
    for host in &mut world.hosts {
        host.is_hidden = true;
        host.note = host.note.map(|note| Noted { has_master: false, ..note });
    }
    world.stored.is_formed = false;
    World { formed: 0, is_told: false, ..world }
}

/// An older program did all of it: nothing is noted, and no epoch is stored.
fn upgraded(mut world: World) -> World {
    for host in &mut world.hosts {
        (host.note, host.started) = (None, None);
    }
    world.stored = Stored { epoch: 0, list_epoch: 0, ..world.stored };
    World { latest: 0, listed: 1, formed: 1, ..world }
}

/// Each disk was copied from one machine of another cluster.
fn copied(mut world: World) -> World {
    for host in &mut world.hosts {
        host.note = Some(Noted { epoch: 1, has_master: true, is_foreign: true });
    }
    World { latest: 1, ..world }
}

/// Explores what follows from `world`, and prints what was met.
#[track_caller]
fn explore(what: &str, world: World, faults: usize) -> Explored<Model> {
    let started = Instant::now();
    let model = Model::new(Mutation::Nothing, &[world]);
    let explored = Explored::explore(faults, model, None).unwrap_or_else(|story| panic!("{what}: {story}"));
    let steps = explored.settle().unwrap_or_else(|story| panic!("{what}: {story}"));
    println!(
        "{} worlds of {what}, {} hosts, lists of {}, up to {faults} faults, {:.1?}; each settles within {steps} steps",
        explored.worlds.len(),
        world.count,
        world.expect,
        started.elapsed(),
    );
    explored
}

/// How many faults more than usual.
fn more_faults() -> usize {
    let asked = std::env::var("CRATE_DISCOVERY_MODEL_MORE_FAULTS").ok();
    asked.map_or(0, |faults| faults.parse().expect("a number of faults"))
}

#[test]
fn new_hosts_whatever_happens_to_them() {
    let more = more_faults();
    let met = [
        explore("new hosts", nothing(3, 2), 2 + more).worlds.len(),
        explore("new hosts", nothing(4, 3), 1 + more).worlds.len(),
        explore("new hosts that cannot be seen", hidden(nothing(3, 2)), 2 + more).worlds.len(),
        explore("new hosts that cannot be seen", hidden(nothing(4, 3)), 1 + more).worlds.len(),
        explore("new hosts on copied disks", copied(nothing(4, 3)), 1 + more).worlds.len(),
    ];
    assert!(met.iter().sum::<usize>() > 200_000, "{met:?}");
}

#[test]
fn cluster_that_runs_whatever_happens_to_it() {
    let more = more_faults();
    let mut met = 0;
    for (count, expect) in [(3, 2), (4, 3)] {
        let begins = running(count, expect);
        for (what, world) in [
            ("a cluster that runs", begins),
            ("a cluster that runs, with an early backup", with_early_backup(begins)),
            ("a cluster that runs, with an empty backup", with_empty_backup(begins)),
            ("a cluster that cannot be seen", hidden(begins)),
            ("a cluster of before the upgrade", upgraded(begins)),
        ] {
            met += explore(what, world, 2 + more).worlds.len();
        }
    }
    assert!(met > 50_000, "{met}");
}

#[test]
fn cluster_that_was_wiped_and_is_noted_whatever_happens_to_it() {
    let more = more_faults();
    let met = explore("a wiped cluster", wiped(running(3, 2)), 2 + more).worlds.len()
        + explore("a wiped cluster", wiped(running(4, 3)), 1 + more).worlds.len();
    assert!(met > 10_000, "{met}");
}

/// The search finds this rule broken, by up to two faults, where this is wrong with the protocol.
#[track_caller]
fn finds(rule: &'static str, mutation: Mutation, world: World) {
    let found = Explored::explore(2, Model::new(mutation, &[world]), Some(rule));
    match found.and_then(|explored| explored.settle().map(|_| explored.worlds.len())) {
        Ok(met) => panic!("{mutation:?}: nothing is found in {met} worlds"),
        Err(story) => println!("{mutation:?}: {story}"),
    }
}

#[test]
fn believing_a_note_without_asking_would_leave_a_reset_without_effect() {
    finds("nobody elects after a reset", Mutation::AnswersWithoutAsking, wiped(running(3, 2)));
}

#[test]
fn voiding_a_note_in_any_other_epoch_would_hand_out_a_list_after_a_loss_of_data() {
    finds("a note is void in no greater epoch", Mutation::VoidsOnOther, running(3, 2));
}

#[test]
fn counting_epochs_would_leave_notes_that_hold_after_a_reset() {
    finds("a note holds after a reset", Mutation::CountsEpochs, wiped(running(3, 2)));
    finds("nobody elects after a reset", Mutation::CountsEpochs, wiped(running(3, 2)));
}

#[test]
fn believing_another_machines_note_would_keep_new_hosts_from_electing() {
    finds(
        "hosts form no cluster although nothing went wrong",
        Mutation::TakesAnyMachinesNote,
        copied(nothing(3, 2)),
    );
}

#[test]
fn marking_without_a_look_at_the_epoch_would_tell_of_a_cluster_before_the_reset() {
    finds(
        "a node that was started before the reset says that the cluster has formed",
        Mutation::MarksWhateverTheEpoch,
        nothing(3, 2),
    );
}

#[test]
fn freezing_without_a_hold_would_elect_a_second_cluster() {
    finds("two clusters are elected without a reset between them", Mutation::DoesNotHold, running(4, 2));
}

#[test]
fn freezing_again_with_the_clock_of_the_start_would_give_one_epoch_two_lists() {
    finds("two lists are frozen in one epoch", Mutation::KeepsItsFirstClock, nothing(3, 2));
}
