//! The compose file: three nodes, each with its sidekick.

use std::time::Duration;

use crate::{
    project::{COMPOSE_PATIENCE, Project},
    support::{
        DEFAULT_VALUE, SLACK,
        engine::run_docker,
        key_of,
        observer::{Event, Observer},
        stays,
    },
};

pub const NODES: [&str; 3] = ["crate1", "crate2", "crate3"];
const SIDEKICKS: [&str; 3] = ["sidekick1", "sidekick2", "sidekick3"];

/// `--fall` probes at the defaults: three, 2 s apart, each given 1 s.
const FALL: Duration = Duration::from_secs(3 * (2 + 1));

/// The first PUT of each node after `revision`.
#[track_caller]
fn all_announced(observer: &Observer, revision: i64) -> Vec<Event> {
    NODES.iter().map(|node| observer.next_put(&key_of(node), revision, COMPOSE_PATIENCE)).collect()
}

/// Nobody touched the sidekicks: each is the container it was, and ran without a pause.
fn unmoved(project: &Project) -> Vec<String> {
    SIDEKICKS.iter().map(|sidekick| project.inspect(sidekick, "{{.Id}} {{.State.StartedAt}}")).collect()
}

#[test]
fn nodes_that_stop_die_or_are_replaced_leave_and_return_without_a_hand_on_the_sidekicks() {
    let project = Project::up();
    let observer = project.observer();
    for put in all_announced(&observer, 0) {
        assert_eq!(put.value, DEFAULT_VALUE);
    }
    let uuid = project.is_with("crate1", &NODES);
    for service in NODES.iter().chain(&SIDEKICKS).chain(&["etcd"]) {
        project.is_healthy(service);
    }
    let before = unmoved(&project);

    for (ends, node) in [("stop", "crate2"), ("kill", "crate3")] {
        let put = observer.next_put(&key_of(node), 0, COMPOSE_PATIENCE);
        project.compose(&[ends, node]);
        observer.next_delete(&key_of(node), put.revision, FALL + SLACK);
    }
    project.compose(&["start", "crate2", "crate3"]);
    for node in ["crate2", "crate3"] {
        let delete = observer.next_delete(&key_of(node), 0, SLACK);
        observer.next_put(&key_of(node), delete.revision, COMPOSE_PATIENCE);
    }

    // The node's container replaced by another one, with another address.
    let put = observer.next_put(&key_of("crate1"), 0, SLACK);
    project.compose(&["rm", "--stop", "--force", "crate1"]);
    let delete = observer.next_delete(&key_of("crate1"), put.revision, FALL + SLACK);
    project.compose(&["up", "--detach", "--no-deps", "crate1"]);
    observer.next_put(&key_of("crate1"), delete.revision, COMPOSE_PATIENCE);
    for node in NODES {
        assert_eq!(project.is_with(node, &NODES), uuid);
    }
    assert_eq!(unmoved(&project), before);
}

#[test]
fn etcd_that_restarts_or_loses_its_volume_gets_all_keys_again() {
    let project = Project::up();
    let observer = project.observer();
    let first = all_announced(&observer, 0);
    let before = unmoved(&project);
    project.compose(&["restart", "etcd"]);
    let observer = {
        drop(observer);
        project.observer()
    };
    for put in &first {
        let history = observer.history(&put.key);
        assert_eq!(history.len(), 1, "away for less than the TTL: never missing: {history:#?}");
    }
    drop(observer);

    let volume = project.inspect("etcd", "{{range .Mounts}}{{.Name}}{{end}}");
    project.compose(&["rm", "--stop", "--force", "etcd"]);
    run_docker(&["volume", "rm", &volume]);
    project.compose(&["up", "--detach", "etcd"]);
    all_announced(&project.observer(), 0);
    assert_eq!(unmoved(&project), before);
}

#[test]
fn whole_project_stops_in_order_and_leaves_no_host_in_etcd() {
    let project = Project::up();
    let observer = project.observer();
    let puts = all_announced(&observer, 0);
    // Leaves the witness's mark, the one key that is to be found afterwards.
    observer.history(&puts[0].key);
    // Etcd takes its time. They stop one after the other, not merely one faster than the other.
    let nodes = NODES.map(|node| project.container(node));
    let told = || nodes.iter().filter(|node| run_docker(&["logs", node]).contains("SIGTERM")).count();
    let etcd = project.container("etcd");
    run_docker(&["pause", &etcd]);
    let stopping = project.begin(&["stop"]);
    // Well below --stop-timeout, 5 s: after that they end without an answer.
    stays("no node is told yet", Duration::from_secs(2), &0, told);
    run_docker(&["unpause", &etcd]);
    stopping.ends_well();
    for ((node, sidekick), put) in NODES.iter().zip(SIDEKICKS).zip(&puts) {
        assert_eq!(project.inspect(sidekick, "{{.State.ExitCode}}"), "0", "etcd confirmed the withdrawal");
        let delete = observer.next_delete(&put.key, put.revision, SLACK);
        let told = project.said(node, "SIGTERM");
        assert!(delete.on_clock <= told[0], "the key went at {delete:?}, the node was told at {told:?}");
    }
    drop(observer);
    // Taken down, but for etcd's volume: nothing is left in there but that the cluster has formed, if it had.
    project.compose(&["down"]);
    project.compose(&["up", "--detach", "--no-deps", "etcd"]);
    project.is_healthy("etcd");
    let keys =
        run_docker(&["exec", &project.container("etcd"), "etcdctl", "get", "--prefix", "--keys-only", ""]);
    let left = keys.split_whitespace().filter(|key| *key != "/services/crate.meta/bootstrap/formed");
    assert_eq!(left.collect::<Vec<_>>(), ["/the-observer-was-here"]);
}
