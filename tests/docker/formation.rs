//! How a cluster forms by the compose file. Nothing here steers the node: `make test-cratedb` runs these with a real one.

use crate::{
    compose::NODES,
    project::{COMPOSE_PATIENCE, Project},
    support::{engine::run_docker, key_of},
};

/// Holds that all three are in one cluster: its uuid.
#[track_caller]
fn one_cluster(project: &Project) -> String {
    let uuids = NODES.map(|node| project.is_with(node, &NODES));
    assert!(uuids.iter().all(|uuid| *uuid == uuids[0] && !uuid.is_empty()), "{uuids:?}");
    uuids[0].clone()
}

#[test]
fn nodes_started_at_once_or_one_after_the_other_are_one_cluster() {
    one_cluster(&Project::up());
    for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
        let services = order.map(|number| format!("sidekick{number}"));
        let project = Project::up_with(&[&services[0]]);
        let observer = project.observer();
        observer.next_put(&key_of(&format!("crate{}", order[0])), 0, COMPOSE_PATIENCE);
        for service in &services[1..] {
            project.compose(&["up", "--detach", service]);
        }
        one_cluster(&project);
    }
}

#[test]
fn node_that_lost_its_volume_joins_the_cluster_and_two_of_them_begin_a_second_one() {
    let project = Project::up();
    let uuid = one_cluster(&project);
    let wipe = |nodes: &[&str]| {
        for node in nodes {
            let volume = project.inspect(node, "{{range .Mounts}}{{.Name}}{{end}}");
            project.compose(&["rm", "--stop", "--force", node]);
            run_docker(&["volume", "rm", &volume]);
        }
        project.compose(&[&["up", "--detach", "--no-deps"], nodes].concat());
    };
    wipe(&["crate1"]);
    assert_eq!(one_cluster(&project), uuid);
    // As the comment in the file says: the list is fixed, so nothing of ours can take it back. The third one is away: as
    // long as it takes itself for the master the others could still join it.
    project.compose(&["stop", "crate3"]);
    wipe(&["crate1", "crate2"]);
    assert_ne!(project.is_with("crate1", &["crate1", "crate2"]), uuid);
}
