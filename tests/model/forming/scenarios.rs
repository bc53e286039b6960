//! What may happen to hosts and etcd together (`docs/design.md`, "Bootstrap"), each scenario with its outcome: whatever
//! the order of the steps, this is how they end.

use super::{
    changes::Model,
    hidden, nothing,
    protocol::Mutation,
    running, wiped, with_early_backup,
    world::{Begun, Cluster, Host, World},
};
use crate::search::{Explored, Model as _};

const KILLED: &str = "a node is killed, or its candidate";
const DATA_WIPED: &str = "a node is killed, and its data wiped";
const ALL_WIPED: &str = "a node is killed, and all of its host wiped";
const SILENT: &str = "a sidekick is silent";
const LOST: &str = "etcd loses its data";
const RESTORED: &str = "etcd is restored from the backup";
const GONE: &str = "etcd is gone for good";
const RESET: &str = "somebody resets";

/// The worlds after each of `faults` in that order, befalling any host that it can.
fn after(world: World, faults: &[&str]) -> Vec<World> {
    let model = Model::new(Mutation::Nothing, &[]);
    faults.iter().fold(vec![world], |worlds, fault| {
        let befallen = worlds.iter().flat_map(|world| model.faults(world));
        let worlds: Vec<World> =
            befallen.filter(|change| change.what == *fault).map(|change| change.after).collect();
        assert!(!worlds.is_empty(), "{fault}: to nobody");
        worlds
    })
}

/// How it ends, by itself, whatever the order. No rule is broken on the way.
#[track_caller]
fn ends(worlds: &[World]) -> Vec<World> {
    let explored = Explored::explore(0, Model::new(Mutation::Nothing, worlds), None);
    let explored = explored.unwrap_or_else(|story| panic!("{story}"));
    explored.settle().unwrap_or_else(|story| panic!("{story}"));
    explored.ends().copied().collect()
}

#[track_caller]
fn always(worlds: &[World], is_so: impl Fn(&World) -> bool) {
    for world in ends(worlds) {
        assert!(is_so(&world), "{world}");
    }
}

fn is_one(world: &World, cluster: Cluster) -> bool {
    world.clusters == cluster && world.each().all(|host| host.runs && host.data == cluster)
}

/// Everybody runs and looks for a cluster, and nobody may elect one.
fn is_waiting_to_join(world: &World) -> bool {
    world.clusters == 1 && world.each().all(|host| host.runs && host.data == 0 && host.given == 0)
}

#[test]
fn new_hosts_form_one_cluster_that_etcd_is_told_of() {
    always(&[nothing(3, 3)], |world| is_one(world, 1) && world.stored.is_formed);
    always(&[nothing(4, 3)], |world| is_one(world, 1) && world.stored.is_formed);
    always(&[hidden(nothing(4, 3))], |world| is_one(world, 1) && !world.stored.is_formed);
}

/// Three hosts run, two of them noted; etcd loses its data while a third one restarts and three new ones wait.
#[test]
fn etcd_wiped_under_a_partly_noted_cluster_and_new_hosts_waiting_gives_no_second_one() {
    for notes in 1..=2 {
        let mut world = running(4, 2);
        // Two that were in the cluster run; two new ones are enough for a list of their own.
        for host in world.hosts.iter_mut().take(2 - notes) {
            (host.note, host.started) = (None, None);
        }
        always(&after(world, &[LOST]), |world| is_one(world, 1) && world.stored.is_formed);
        always(&after(world, &[LOST, KILLED]), |world| is_one(world, 1));
    }
}

#[test]
fn etcd_wiped_while_all_noted_hosts_are_silent_for_longer_than_the_hold_can_give_a_second_one() {
    let silent = after(running(4, 2), &[SILENT, SILENT, LOST]);
    assert!(
        ends(&silent).iter().any(|world| world.clusters == 2),
        "the table says that no protocol can prevent it"
    );
    let one_is_heard = after(running(4, 2), &[SILENT, LOST]);
    always(&one_is_heard, |world| is_one(world, 1));
}

#[test]
fn old_backup_of_etcd_leaves_notes_that_hold() {
    let world = with_early_backup(running(4, 3));
    always(&after(world, &[RESTORED, DATA_WIPED]), |world| is_one(world, 1) && world.stored.is_formed);
    // Its list is older than the last reset.
    let mut later = world;
    later.stored.epoch = 2;
    later.latest = 2;
    for host in later.hosts.iter_mut().take(3) {
        host.note = host.note.map(|note| super::Noted { epoch: 2, ..note });
        host.started = Some(Begun { epoch: Some(2), elects: true });
    }
    always(&after(later, &[RESTORED, DATA_WIPED]), |world| {
        is_one(world, 1) && world.stored.is_formed && world.stored.epoch == 2
    });
}

#[test]
fn note_of_before_a_reset_is_void_where_etcd_answers() {
    let reset = after(wiped(running(3, 3)), &[RESET]);
    always(&reset, |world| is_one(world, 2) && world.stored.is_formed && world.stored.epoch == 2);
}

#[test]
fn note_of_before_a_reset_means_join_where_etcd_is_gone() {
    let gone = after(wiped(running(3, 3)), &[RESET, GONE]);
    always(&gone, is_waiting_to_join);
}

#[test]
fn all_data_wiped_with_the_notes_kept_means_join_until_a_reset() {
    let all_wiped = wiped(running(3, 3));
    always(&[all_wiped], is_waiting_to_join);
    let stopped = ends(&[all_wiped]).into_iter().map(|mut world| {
        for host in &mut world.hosts {
            (host.runs, host.is_announced) = (false, false);
        }
        world
    });
    let reset: Vec<World> = stopped.flat_map(|world| after(world, &[RESET])).collect();
    always(&reset, |world| is_one(world, 2));
}

#[test]
fn clone_with_another_machine_id_is_a_new_host_and_one_with_the_same_joins() {
    // All of them are copies of one disk of another cluster.
    always(&[super::copied(nothing(4, 3))], |world| is_one(world, 1) && world.stored.is_formed);
    let mut world = running(4, 3);
    world.hosts[3] = Host { note: world.hosts[0].note, ..Host::default() };
    always(&[world], |world| is_one(world, 1));
    always(&after(world, &[LOST]), |world| is_one(world, 1));
}

#[test]
fn reset_is_refused_while_anybody_is_announced() {
    let model = Model::new(Mutation::Nothing, &[]);
    assert!(model.reset(&running(3, 3)).is_none());
}

#[test]
fn hosts_that_can_write_nothing_form_one_cluster_that_etcd_is_told_of() {
    let mut world = nothing(4, 3);
    for host in &mut world.hosts {
        host.is_read_only = true;
    }
    always(&[world], |world| is_one(world, 1) && world.stored.is_formed);
    // They are as hosts without notes: those that are announced keep the others from electing.
    let later = ends(&[world]);
    let lost: Vec<World> = later.iter().flat_map(|world| after(*world, &[LOST, ALL_WIPED])).collect();
    always(&lost, |world| is_one(world, 1));
}

#[test]
fn cluster_of_before_the_upgrade_is_noted_and_stays_one() {
    let world = super::upgraded(running(4, 3));
    always(&[world], |world| is_one(world, 1) && world.hosts.iter().all(|host| host.note.is_some()));
    always(&after(world, &[DATA_WIPED]), |world| is_one(world, 1));
    always(&after(world, &[LOST, KILLED]), |world| is_one(world, 1));
}

#[test]
fn etcd_gone_for_good_keeps_no_host_down_that_was_in_the_cluster() {
    let killed = after(running(3, 3), &[GONE, KILLED, KILLED, KILLED]);
    always(&killed, |world| is_one(world, 1));
    always(&after(running(3, 3), &[GONE, DATA_WIPED]), |world| is_one(world, 1));
    // Nobody noted anything: its data tells.
    always(&after(super::upgraded(running(3, 3)), &[GONE, KILLED]), |world| is_one(world, 1));
    // A new host waits.
    always(&after(running(4, 3), &[GONE]), |world| world.each().filter(|host| !host.runs).count() == 1);
}

/// The trial of the issue: 401 to every probe, two of three wiped.
#[test]
fn nodes_that_cannot_be_seen_and_are_wiped_join_again() {
    let two_wiped = after(hidden(running(3, 3)), &[DATA_WIPED, DATA_WIPED]);
    always(&two_wiped, |world| {
        world.clusters == 1 && world.each().all(|host| host.given == 0 || host.data == 1)
    });
}

/// What the notes cannot do: the list stands for ever, since nobody can say that the cluster has formed.
#[test]
fn nodes_that_cannot_be_seen_elect_again_where_a_majority_is_wiped_and_one_of_them_with_its_notes() {
    let worlds = after(hidden(running(3, 3)), &[DATA_WIPED, ALL_WIPED]);
    assert!(ends(&worlds).iter().any(|world| world.clusters == 2));
    // One disk alone is no harm.
    always(&after(hidden(running(3, 3)), &[ALL_WIPED]), |world| is_one(world, 1));
}

/// A fixed `initial_master_nodes`, as in a compose file: every start is given the list.
#[test]
fn two_of_three_wiped_nodes_with_a_fixed_list_elect_a_second_cluster() {
    let mut world = running(3, 3);
    // No protocol of ours takes part.
    (world.is_excused, world.is_disturbed) = (true, true);
    let fixed = world.hosts[2];
    for host in world.hosts.iter_mut().take(2) {
        *host = Host { data: 0, ..fixed };
    }
    assert!(ends(&[world]).iter().all(|world| world.clusters == 2));
}
