//! What ends a start, and with which exit code.

use std::{
    net::{Ipv4Addr, TcpStream},
    thread::{scope, spawn},
    time::Duration,
};

use crate::{
    node::{Node, PATIENCE, limits},
    support::{
        crate_db::ULIMITS,
        engine::{Network, run_docker},
        eventually,
    },
};

/// Runs a node with these flags alone until it ends: exit code and log.
fn ends(flags: &[&str]) -> (String, String) {
    let network = Network::create();
    let node = Node::start(&network, "n1", flags);
    (node.exit_code(), node.container.logs())
}

#[test]
fn empty_value_ends_it() {
    let (code, log) = ends(&["-Cdiscovery.seed_hosts="]);
    assert_eq!(code, "64", "{log}");
    assert!(log.contains("discovery.seed_hosts"), "{log}");
}

#[test]
fn setting_given_twice_ends_it() {
    let (code, log) = ends(&["-Ccluster.name=a", "-Ccluster.name=b"]);
    assert_eq!(code, "64", "{log}");
    assert!(log.contains("cluster.name") && log.contains("already set"), "{log}");
}

#[test]
fn unknown_setting_ends_it() {
    let (code, log) = ends(&["-Cdiscovery.zen.minimum_master_nodes=2"]);
    assert_eq!(code, "1", "{log}");
    assert!(log.contains("unknown setting [discovery.zen.minimum_master_nodes]"), "{log}");
}

#[test]
fn heap_size_that_is_unset_ends_it_with_78_where_others_reach_it() {
    let network = Network::create();
    // In docker's own environment it is not set either: docker removes what the image has.
    let node = Node::start_with(&network, "n1", "6.4.3", &["--env", "CRATE_HEAP_SIZE"], &[]);
    assert_eq!(node.exit_code(), "78", "{}", node.container.logs());
    let log = node.container.logs();
    assert!(log.contains("initial heap size [268435456] not equal to maximum heap size ["), "{log}");
}

#[test]
fn heap_size_that_is_empty_is_as_one_that_is_unset() {
    let network = Network::create();
    let node = Node::start_with(&network, "n1", "6.4.3", &["--env", "CRATE_HEAP_SIZE="], &[]);
    assert_eq!(node.exit_code(), "78", "{}", node.container.logs());
}

#[test]
fn heap_size_of_the_image_is_enough() {
    let network = Network::create();
    let node = Node::start(&network, "n1", &["-Ccluster.initial_master_nodes=n1"]);
    node.says(200);
}

#[test]
fn too_few_open_files_end_it_with_78() {
    let network = Network::create();
    let few = limits(&["nofile=1024:1024", ULIMITS[1], ULIMITS[2]]);
    let few: Vec<&str> = few.iter().map(String::as_str).collect();
    let node = Node::bare(&network, "n1", "6.4.3", &few, &["-Cnode.name=n1"]);
    assert_eq!(node.exit_code(), "78", "{}", node.container.logs());
    assert!(node.container.logs().contains("1024"), "{}", node.container.logs());
}

#[test]
fn on_loopback_alone_the_checks_are_warnings() {
    let network = Network::create();
    let node = Node::start_with(
        &network,
        "n1",
        "6.4.3",
        &["--env", "CRATE_HEAP_SIZE"],
        // Nobody else gives an address, so nothing is set twice.
        &["-Cnetwork.bind_host=127.0.0.1", "-Ccluster.initial_master_nodes=n1"],
    );
    // What it publishes is reachable, so that it is no loopback node.
    assert_eq!(node.exit_code(), "78", "{}", node.container.logs());
    drop(node);
    let flags = ["-Cnode.name=n1", "-Cnetwork.host=127.0.0.1", "-Ccluster.initial_master_nodes=n1"];
    let node = Node::bare(&network, "n1", "6.4.3", &["--env", "CRATE_HEAP_SIZE"], &flags);
    eventually("it answers 200 on its loopback", PATIENCE, || {
        let url = "http://127.0.0.1:4200/";
        node.container.try_exec(&["curl", "--fail", "--silent", "--output", "/dev/null", url])
    });
    node.has_said("initial heap size [268435456]");
}

#[test]
fn ports_are_open_for_a_moment_before_a_check_ends_it() {
    let network = Network::create();
    // What the engine gives to the first container. A busy machine may let it end before it is asked for its address.
    let first = Ipv4Addr::from(u32::from(network.gateway()) + 1);
    let open = move || TcpStream::connect_timeout(&(first, 4300).into(), Duration::from_millis(100));
    let knocking = spawn(move || {
        eventually("4300 is open", PATIENCE, || open().map(drop).map_err(|error| error.to_string()));
    });
    let node = Node::start_with(&network, "n1", "6.4.3", &["--env", "CRATE_HEAP_SIZE"], &[]);
    // Where this machine looked for the address too early, it may find it a second later only.
    while !knocking.is_finished() {
        assert_eq!(node.exit_code(), "78");
        node.container.start();
    }
    knocking.join().expect("4300 is open for a moment");
    assert_eq!(node.exit_code(), "78");
}

#[test]
fn sigterm_ends_it_with_143() {
    let network = Network::create();
    let node = Node::start(&network, "n1", &["-Ccluster.initial_master_nodes=n1"]);
    node.says(200);
    node.stop();
    assert_eq!(node.exit_code(), "143", "{}", node.container.logs());
}

#[test]
fn decommission_ends_it_with_0_and_it_says_200_until_then() {
    let network = Network::create();
    let flags = ["-Cdiscovery.seed_hosts=n1,n2,n3", "-Ccluster.initial_master_nodes=n1,n2,n3"];
    let nodes = ["n1", "n2", "n3"].map(|name| Node::start(&network, name, &flags));
    nodes.iter().for_each(|node| drop(node.is_with(&["n1", "n2", "n3"])));
    // Asked from before on: a busy machine may let it end before the statement's answer is here.
    let mut statuses = vec![nodes[1].status()];
    scope(|scope| {
        scope.spawn(|| nodes[0].sql("alter cluster decommission 'n2'").unwrap());
        eventually("it has ended", PATIENCE, || {
            let running = ["inspect", "--format", "{{.State.Running}}", nodes[1].container.name()];
            match run_docker(&running).as_str() {
                "false" => Ok(()),
                _ => {
                    statuses.push(nodes[1].status());
                    Err(format!("{statuses:?}"))
                }
            }
        });
    });
    assert_eq!(nodes[1].exit_code(), "0", "{}", nodes[1].container.logs());
    // In the very end it does not listen any more.
    statuses.dedup();
    assert!(statuses == [200] || statuses == [200, 0], "{statuses:?}");
    nodes[0].is_with(&["n1", "n3"]);
}
