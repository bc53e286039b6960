//! How a cluster forms: three hosts that start at once or one after the other, however they are ordered.

use std::time::Duration;

use crate::{
    NODE, endpoints,
    host::{Host, UNIT_PATIENCE},
    support::{engine::Network, etcd::Etcd, eventually, eventually_eq, key_of, stays},
};

const NAMES: [&str; 3] = ["h1", "h2", "h3"];
/// One of each pair of neighbours comes first in some of these, and each host first, second and last.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
/// What is stored for the first election.
const STORED: &str = "/services/crate.meta/bootstrap/";

fn start(host: &Host) {
    host.systemctl(&["start", "--no-block", NODE]);
}

/// The first masters that each node was given at its last start; nothing for none.
fn masters(hosts: &[Host]) -> Vec<Vec<String>> {
    let of = |host: &Host| {
        let flags = host.node_flags().into_iter();
        flags
            .filter_map(|flag| flag.strip_prefix("-Ccluster.initial_master_nodes=").map(str::to_owned))
            .collect()
    };
    hosts.iter().map(of).collect()
}

/// How often a node has started, as it says itself.
fn starts(host: &Host) -> usize {
    host.journal(NODE).matches(" flags ").count()
}

/// Waits until each node has started for the `nth` time, and been told of all three by its sidekick.
#[track_caller]
fn all_know_all(hosts: &[Host], nth: usize) {
    let all = "knows h1:4300,h2:4300,h3:4300";
    for (host, name) in hosts.iter().zip(NAMES) {
        eventually(&format!("{name} knows the other two"), UNIT_PATIENCE, || {
            let journal = host.journal(NODE);
            let since = journal.split(" flags ").nth(nth).unwrap_or_default();
            if since.contains(all) { Ok(()) } else { Err(journal.clone()) }
        });
        assert_eq!(starts(host), nth);
    }
}

/// Stops all nodes and forgets that there ever was a cluster.
fn forget(hosts: &[Host], etcd: &Etcd) {
    for host in hosts {
        host.systemctl(&["stop", "--no-block", NODE]);
    }
    for host in hosts {
        host.becomes(NODE, "ActiveState", "inactive");
    }
    eventually_eq("nobody is announced", UNIT_PATIENCE, &Vec::new(), || etcd.announced());
    etcd.etcdctl(&["del", "--prefix", STORED]);
}

#[test]
fn three_nodes_started_in_any_order_know_each_other_and_were_given_one_set_of_first_masters() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    // So short that whoever comes early has to wait for longer.
    let settings = [&endpoints(&url)[..], "CRATE_BOOTSTRAP_EXPECT=3", "CRATE_BOOTSTRAP_TIMEOUT=1s"];
    let hosts = NAMES.map(|name| Host::boot(&network, name, &settings));

    hosts.iter().for_each(start);
    all_know_all(&hosts, 1);
    let mut given = masters(&hosts);
    assert!(given.iter().all(|list| *list == given[0] && list.len() == 1), "{given:?}");
    let mut names: Vec<&str> = given[0][0].split(',').collect();
    names.sort_unstable();
    assert_eq!(names, NAMES);

    for (round, order) in ORDERS.into_iter().enumerate() {
        forget(&hosts, &etcd);
        for (place, number) in order.into_iter().enumerate() {
            start(&hosts[number]);
            if place < 2 {
                let candidate = format!("{STORED}candidates/{}", NAMES[number]);
                eventually("it waits for the others", UNIT_PATIENCE, || {
                    etcd.key(&candidate).map(drop).ok_or_else(|| hosts[number].journal(NODE))
                });
            }
            if round == 0 && place == 0 {
                stays("it waits for longer than for etcd", Duration::from_secs(3), &1, || {
                    starts(&hosts[number])
                });
            }
        }
        all_know_all(&hosts, round + 2);
        given = masters(&hosts);
        assert!(given.iter().all(|list| *list == given[0] && list.len() == 1), "{order:?}: {given:?}");
    }

    // A node answers 200: the cluster has formed. One that lost its data joins it, and elects nothing.
    hosts[0].steer("formed");
    eventually("it is known that the cluster has formed", UNIT_PATIENCE, || {
        etcd.key(&format!("{STORED}formed")).map(drop).ok_or_else(|| hosts[0].journal("crate-discovery@1"))
    });
    hosts[2].systemctl(&["restart", NODE]);
    eventually("it is back", UNIT_PATIENCE, || {
        etcd.key(&key_of("h3")).map(drop).ok_or("not announced".to_owned())
    });
    assert_eq!(masters(&hosts)[2], Vec::<String>::new());
}

#[test]
fn etcd_that_is_away_keeps_no_node_from_starting_and_names_no_first_masters() {
    let network = Network::create();
    let etcd = network.etcd_to_be();
    let settings = [
        &endpoints(&network.url(&etcd))[..],
        "CRATE_BOOTSTRAP_EXPECT=3",
        "CRATE_BOOTSTRAP_TIMEOUT=2s",
        "CRATE_DISCOVERY_REQUEST_TIMEOUT=1s",
    ];
    let host = Host::boot(&network, "h1", &settings);
    host.systemctl(&["start", NODE]);
    host.becomes(NODE, "ActiveState", "active");
    eventually("the node has started", UNIT_PATIENCE, || match host.node_said("listening").len() {
        1 => Ok(()),
        _ => Err(host.journal(NODE)),
    });
    assert_eq!(masters(std::slice::from_ref(&host)), [Vec::<String>::new()]);
}
