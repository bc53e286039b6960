//! Nodes that wait for each other: the boot goes on, and they can be stopped.

use std::time::Duration;

use crate::{
    NODE, SEEDS, endpoints,
    formation::{STORED, start, three_hosts},
    host::{Host, UNIT_PATIENCE},
    support::{
        engine::{Network, run_docker},
        etcd::Etcd,
        eventually, stays,
    },
};

/// Waits until `name` waits in etcd for the others.
#[track_caller]
fn waits(etcd: &Etcd, host: &Host, name: &str) {
    let candidate = format!("{STORED}candidates/{name}");
    eventually("it waits for the others", UNIT_PATIENCE, || {
        etcd.key(&candidate).map(drop).ok_or_else(|| host.journal(SEEDS))
    });
}

/// Waits until nobody waits in etcd.
#[track_caller]
fn nobody_waits(etcd: &Etcd) {
    eventually("nobody is a candidate", UNIT_PATIENCE, || {
        match etcd.etcdctl(&["get", "--prefix", "--keys-only", &format!("{STORED}candidates/")]).trim() {
            "" => Ok(()),
            keys => Err(keys.to_owned()),
        }
    });
}

#[test]
fn boot_finishes_while_a_node_waits_and_a_stop_ends_the_waiting() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let host = Host::boot(&network, "h1", &[&endpoints(&url), "CRATE_BOOTSTRAP_EXPECT=3"]);
    host.systemctl(&["enable", NODE]);
    run_docker(&["restart", "--time", "60", host.container().name()]);
    waits(&etcd, &host, "h1");
    eventually("the boot has come to its end", UNIT_PATIENCE, || {
        match host.property("multi-user.target", "ActiveState").as_str() {
            "active" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    host.becomes(SEEDS, "ActiveState", "activating");
    assert_eq!(host.property(NODE, "ActiveState"), "inactive", "it waits as a job");
    let said = host.journal(SEEDS);
    assert!(said.contains("only 1 of 3 candidates are there: h1"), "{said}");

    host.systemctl(&["stop", NODE]);
    nobody_waits(&etcd);
    host.becomes(SEEDS, "ActiveState", "inactive");
    host.ended_well(SEEDS);
    assert_eq!(host.starts(), 0);
    stays("nothing starts it again", Duration::from_secs(4), &"inactive".to_owned(), || {
        host.property(SEEDS, "ActiveState")
    });

    // A restart waits anew.
    host.systemctl(&["restart", "--no-block", NODE]);
    waits(&etcd, &host, "h1");
    host.systemctl(&["stop", NODE]);
    nobody_waits(&etcd);
}

#[test]
fn node_that_dies_is_asked_for_again_and_returns_to_its_cluster() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let hosts = three_hosts(&network, &url, &[]);
    hosts.iter().for_each(start);
    let uuid = crate::formation::one_announced_cluster(&hosts, &etcd);
    crate::formation::is_noted(&hosts, &etcd);
    let runs = || hosts[1].journal(SEEDS).matches("Starting crate-seeds@1.service").count();
    let before = runs();
    hosts[1].exec(&["docker.real", "kill", "--signal", "KILL", "crate-1"]);
    eventually("systemd has started it again", UNIT_PATIENCE, || {
        match hosts[1].property(NODE, "NRestarts").as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    assert_eq!(crate::formation::one_announced_cluster(&hosts, &etcd), uuid);
    assert!(runs() > before, "{}", hosts[1].journal(SEEDS));
    assert_eq!(hosts[1].first_masters(), None);
}
