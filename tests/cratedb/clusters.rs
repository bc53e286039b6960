//! When nodes are one cluster, and when two.

use std::time::Duration;

use crate::{
    node::{Node, PATIENCE},
    support::{
        engine::{Network, run_docker},
        eventually, stays,
    },
};

const SEEDS: &str = "-Cdiscovery.seed_hosts=n1,n2,n3";
const LIST: &str = "-Ccluster.initial_master_nodes=n1,n2,n3";
const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Three nodes with one list, in one cluster: they, and its uuid.
fn cluster_of_three(network: &Network) -> (Vec<Node>, String) {
    let nodes: Vec<Node> = NAMES.iter().map(|name| Node::start(network, name, &[SEEDS, LIST])).collect();
    let uuids: Vec<String> = nodes.iter().map(|node| node.is_with(&NAMES)).collect();
    assert!(uuids.iter().all(|uuid| *uuid == uuids[0]), "{uuids:?}");
    (nodes, uuids[0].clone())
}

/// Holds that a node knows no master for longer than an election takes.
#[track_caller]
fn elects_nobody(node: &Node) {
    node.says(503);
    stays("it knows no master", Duration::from_secs(8), &503, || node.status());
}

#[test]
fn three_nodes_with_one_list_are_one_cluster() {
    let network = Network::create();
    let (nodes, uuid) = cluster_of_three(&network);
    // All of them stopped and started again: the same cluster, which its own list has no say in any more.
    for node in &nodes {
        node.stop();
    }
    for node in &nodes {
        run_docker(&["start", node.container.name()]);
    }
    for node in &nodes {
        assert_eq!(node.is_with(&NAMES), uuid);
    }
}

#[test]
fn more_than_half_of_the_list_is_enough_and_half_is_not() {
    let network = Network::create();
    let list = "-Ccluster.initial_master_nodes=n1,n2,n3,n4";
    let mut nodes: Vec<Node> =
        NAMES[..2].iter().map(|name| Node::start(&network, name, &[SEEDS, list])).collect();
    elects_nobody(&nodes[0]);
    nodes.push(Node::start(&network, "n3", &[SEEDS, list]));
    nodes[0].is_with(&NAMES);
}

#[test]
fn node_without_a_list_elects_nobody_and_joins_those_that_did() {
    let network = Network::create();
    let fresh = Node::start(&network, "n3", &[SEEDS]);
    elects_nobody(&fresh);
    let list = "-Ccluster.initial_master_nodes=n1,n2";
    let others: Vec<Node> =
        NAMES[..2].iter().map(|name| Node::start(&network, name, &[SEEDS, list])).collect();
    let uuid = fresh.is_with(&NAMES);
    assert_eq!(others[0].is_with(&NAMES), uuid);
}

#[test]
fn node_that_is_its_own_list_elects_itself_and_never_joins_another() {
    let network = Network::create();
    let nodes = NAMES[..2]
        .iter()
        .map(|name| Node::start(&network, name, &[&format!("-Ccluster.initial_master_nodes={name}")]))
        .collect::<Vec<_>>();
    let uuids = [nodes[0].is_with(&["n1"]), nodes[1].is_with(&["n2"])];
    assert_ne!(uuids[0], uuids[1]);
    // The second one loses its master, and is told of the first one.
    let data = nodes[1].data().join("data");
    nodes[1].stop();
    let volume = format!("{}:/data/data", data.display());
    let second = Node::start_with(&network, "n2", "6.4.3", &["--volume", &volume], &[SEEDS]);
    // It is master of its own, whom it needs nobody for.
    assert_eq!(second.is_with(&["n2"]), uuids[1]);
}

#[test]
fn node_that_was_told_of_nobody_elects_itself() {
    let network = Network::create();
    let node = Node::start(&network, "n1", &[]);
    node.is_with(&["n1"]);
}

#[test]
fn majority_that_dies_leaves_no_master_and_its_return_the_old_one() {
    let network = Network::create();
    let (nodes, uuid) = cluster_of_three(&network);
    for node in &nodes[..2] {
        run_docker(&["kill", node.container.name()]);
    }
    nodes[2].says(503);
    run_docker(&["start", nodes[0].container.name()]);
    assert_eq!(nodes[2].is_with(&["n1", "n3"]), uuid);
}

#[test]
fn master_takes_nobody_in_while_the_majority_does_not_answer() {
    let network = Network::create();
    let (nodes, uuid) = cluster_of_three(&network);
    let is_master = |node: &&Node| node.container.logs().contains("elected-as-master");
    let master = nodes.iter().find(is_master).expect("one is master").container.name().to_owned();
    let others: Vec<&str> =
        nodes.iter().map(|node| node.container.name()).filter(|name| *name != master).collect();
    others.iter().for_each(|name| drop(run_docker(&["pause", name])));
    let fresh = Node::start(&network, "n4", &[SEEDS]);
    stays("it is in no cluster", Duration::from_secs(15), &true, || fresh.cluster().is_err());
    others.iter().for_each(|name| drop(run_docker(&["unpause", name])));
    assert_eq!(fresh.is_with(&["n1", "n2", "n3", "n4"]), uuid);
}

#[test]
fn wiped_node_joins_the_old_cluster() {
    let network = Network::create();
    let (mut nodes, uuid) = cluster_of_three(&network);
    let wiped = nodes.remove(0).wiped(&network, "n1", &[SEEDS]);
    assert_eq!(wiped.is_with(&NAMES), uuid);
}

#[test]
fn two_wiped_nodes_of_three_elect_nobody_without_a_list() {
    let network = Network::create();
    let (mut nodes, _) = cluster_of_three(&network);
    let third = nodes.pop().unwrap();
    drop(nodes);
    third.says(503);
    let wiped = NAMES[..2].iter().map(|name| Node::start(&network, name, &[SEEDS])).collect::<Vec<_>>();
    elects_nobody(&wiped[0]);
    elects_nobody(&third);
}

#[test]
fn two_wiped_nodes_of_three_with_the_old_list_are_a_second_cluster_that_refuses_the_third() {
    let network = Network::create();
    let (mut nodes, uuid) = cluster_of_three(&network);
    let third = nodes.pop().unwrap();
    // At once, before the third one has missed them.
    drop(nodes);
    let wiped = NAMES[..2].iter().map(|name| Node::start(&network, name, &[SEEDS, LIST])).collect::<Vec<_>>();
    let second = wiped[0].is_with(&["n1", "n2"]);
    assert_ne!(second, uuid);
    eventually("the third is refused", PATIENCE, || {
        let log = third.container.logs() + &wiped[0].container.logs() + &wiped[1].container.logs();
        if log.contains("with a different cluster uuid") { Ok(()) } else { Err(log) }
    });
    elects_nobody(&third);
}

#[test]
fn another_cluster_name_is_another_cluster() {
    let network = Network::create();
    let (nodes, _) = cluster_of_three(&network);
    let other = Node::start(&network, "n4", &[SEEDS, "-Ccluster.name=other"]);
    elects_nobody(&other);
    nodes[0].is_with(&NAMES);
}
