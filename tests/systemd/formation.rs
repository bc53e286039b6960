//! How a cluster forms: three hosts that start at once or one after the other, however they are ordered. Nothing here
//! steers the node: `make test-cratedb` runs these with a real one.

use std::time::Duration;

use crate::{
    NODE, endpoints,
    host::{Host, UNIT_PATIENCE, reserve},
    support::{engine::Network, etcd::Etcd, eventually, eventually_eq, key_of, stays},
};

pub const NAMES: [&str; 3] = ["h1", "h2", "h3"];
/// Each host is first, second and last in one of these.
const ORDERS: [[usize; 3]; 3] = [[0, 1, 2], [1, 2, 0], [2, 0, 1]];
/// What is stored for the first election.
pub const STORED: &str = "/services/crate.meta/bootstrap/";

/// Starts the node, and does not wait for it.
pub fn start(host: &Host) {
    host.systemctl(&["start", "--no-block", NODE]);
}

/// Three hosts that are to elect a first master, and have not begun.
pub fn three_hosts(network: &Network, url: &str, more: &[&str]) -> [Host; 3] {
    let _reserved = reserve(3);
    three_of_the_reserved(network, url, more)
}

/// As [`three_hosts`], for a test that boots more than three and has reserved them.
pub fn three_of_the_reserved(network: &Network, url: &str, more: &[&str]) -> [Host; 3] {
    let endpoints = endpoints(url);
    let settings = [&[endpoints.as_str(), "CRATE_BOOTSTRAP_EXPECT=3"], more].concat();
    NAMES.map(|name| Host::boot(network, name, &settings))
}

/// Holds that the hosts are in one cluster, all of them: its uuid.
#[track_caller]
pub fn one_cluster(hosts: &[Host]) -> String {
    let uuids: Vec<String> = hosts.iter().map(|host| host.is_with(&NAMES)).collect();
    assert!(uuids.iter().all(|uuid| *uuid == uuids[0] && !uuid.is_empty()), "{uuids:?}");
    uuids[0].clone()
}

/// As [`one_cluster`], and all of them are announced.
#[track_caller]
pub fn one_announced_cluster(hosts: &[Host], etcd: &Etcd) -> String {
    let uuid = one_cluster(hosts);
    eventually_eq("all are announced", UNIT_PATIENCE, &NAMES.map(key_of).into(), || etcd.announced());
    uuid
}

/// Waits until etcd says that the cluster has formed, and each host has noted it.
#[track_caller]
pub fn is_noted(hosts: &[Host], etcd: &Etcd) {
    eventually("it is known that the cluster has formed", UNIT_PATIENCE, || {
        etcd.key(&format!("{STORED}formed")).map(drop).ok_or_else(|| hosts[0].journal("crate-discovery@1"))
    });
    for host in hosts {
        eventually("the host has noted it", UNIT_PATIENCE, || match host.has_note() {
            true => Ok(()),
            false => Err(host.journal("crate-discovery@1")),
        });
    }
}

/// Stops all nodes, takes their data away, and begins anew, as an operator would who wants a new cluster.
fn begin_anew(hosts: &[Host], etcd: &Etcd) {
    hosts.iter().for_each(Host::stop_node);
    hosts.iter().for_each(Host::wipe_data);
    eventually_eq("nobody is announced", UNIT_PATIENCE, &Vec::new(), || etcd.announced());
    hosts[0].exec(&[
        "systemd-run",
        "--quiet",
        "--pipe",
        "--wait",
        "-p",
        "EnvironmentFile=/etc/crate-discovery/crate-discovery.env",
        "/usr/local/bin/crate-discovery",
        "bootstrap",
        "--reset",
        "--yes",
    ]);
}

#[test]
fn three_nodes_started_in_any_order_are_one_cluster() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let hosts = three_hosts(&network, &url, &[]);

    hosts.iter().for_each(start);
    let mut before = one_announced_cluster(&hosts, &etcd);
    for (round, order) in ORDERS.into_iter().enumerate() {
        is_noted(&hosts, &etcd);
        begin_anew(&hosts, &etcd);
        let starts = hosts.each_ref().map(Host::starts);
        for (place, number) in order.into_iter().enumerate() {
            start(&hosts[number]);
            if place == 2 {
                break;
            }
            let candidate = format!("{STORED}candidates/{}", NAMES[number]);
            eventually("it waits for the others", UNIT_PATIENCE, || {
                etcd.key(&candidate).map(drop).ok_or_else(|| hosts[number].journal("crate-seeds@1"))
            });
            if round == 0 && place == 0 {
                stays("it is not started", Duration::from_secs(3), &starts[number], || {
                    hosts[number].starts()
                });
            }
        }
        let now = one_announced_cluster(&hosts, &etcd);
        assert_ne!(now, before, "the data was taken away");
        before = now;
        let given = hosts.each_ref().map(Host::first_masters);
        let mut names: Vec<&str> = given[0].as_deref().expect("they elect").split(',').collect();
        names.sort_unstable();
        assert_eq!(names, NAMES, "{order:?}");
        assert!(given.iter().all(|list| *list == given[0]), "{order:?}: {given:?}");
    }
}

#[test]
fn node_that_lost_its_data_joins_the_cluster_that_has_formed_and_elects_nobody() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let hosts = three_hosts(&network, &url, &[]);
    hosts.iter().for_each(start);
    let uuid = one_announced_cluster(&hosts, &etcd);
    is_noted(&hosts, &etcd);
    // With a note, and as a host that replaces it, without one.
    for keeps_its_note in [true, false] {
        hosts[2].stop_node();
        hosts[2].wipe_data();
        if !keeps_its_note {
            hosts[2].wipe_notes();
        }
        start(&hosts[2]);
        assert_eq!(one_announced_cluster(&hosts, &etcd), uuid);
        assert_eq!(hosts[2].first_masters(), None);
    }
}

#[test]
fn restarted_one_after_the_other_or_all_at_once_they_are_the_same_cluster() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let hosts = three_hosts(&network, &url, &[]);
    hosts.iter().for_each(start);
    let uuid = one_announced_cluster(&hosts, &etcd);
    is_noted(&hosts, &etcd);
    for host in &hosts {
        host.systemctl(&["restart", NODE]);
        assert_eq!(one_announced_cluster(&hosts, &etcd), uuid);
    }
    for host in &hosts {
        host.systemctl(&["restart", "--no-block", NODE]);
    }
    assert_eq!(one_announced_cluster(&hosts, &etcd), uuid);
}
