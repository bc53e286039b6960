//! What a host remembers by itself: etcd that is away for good, or has lost everything, keeps no node down that was in
//! the cluster, and makes no second one.

use std::time::{Duration, Instant};

use crate::{
    NODE, SEEDS, endpoints,
    formation::{
        NAMES, STORED, is_noted, one_announced_cluster, one_cluster, start, three_hosts,
        three_of_the_reserved,
    },
    host::{Host, UNIT_PATIENCE, reserve},
    support::{engine::Network, eventually, eventually_eq, stays},
};

/// Restarts all nodes at once: how long it took until they were one cluster again, the better one of two times.
fn restart_all(hosts: &[Host], uuid: &str) -> Duration {
    let once = || {
        let starts: Vec<usize> = hosts.iter().map(|host| host.starts() + 1).collect();
        let began = Instant::now();
        for host in hosts {
            host.systemctl(&["restart", "--no-block", NODE]);
        }
        // None of them is in the cluster that runs at the moment.
        for (host, starts) in hosts.iter().zip(starts) {
            eventually_eq("it has started again", UNIT_PATIENCE, &starts, || host.starts());
        }
        assert_eq!(one_cluster(hosts), uuid);
        began.elapsed()
    };
    once().min(once())
}

#[test]
fn etcd_that_is_away_for_good_costs_a_cluster_seconds_and_a_fresh_node_waits_for_it() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let settings = ["CRATE_BOOTSTRAP_TIMEOUT=10s"];
    let _reserved = reserve(4);
    let hosts = three_of_the_reserved(&network, &url, &settings);
    hosts.iter().for_each(start);
    let uuid = one_announced_cluster(&hosts, &etcd);
    is_noted(&hosts, &etcd);
    let with_etcd = restart_all(&hosts, &uuid);
    one_announced_cluster(&hosts, &etcd);

    // Silent, not refusing: that takes longest.
    etcd.freeze();
    let without_etcd = restart_all(&hosts, &uuid);
    for host in &hosts {
        assert_eq!(host.first_masters(), None);
    }
    println!("three nodes restarted: {with_etcd:?} with etcd, {without_etcd:?} without");
    assert!(without_etcd < with_etcd + Duration::from_secs(10), "{without_etcd:?}, not {with_etcd:?}");
    let said = hosts[0].journal(SEEDS);
    assert!(said.contains("join: nobody may elect a first master"), "{said}");

    // Its data is gone, and the host knows that it was in the cluster.
    hosts[2].stop_node();
    hosts[2].wipe_data();
    start(&hosts[2]);
    assert_eq!(one_cluster(&hosts), uuid);

    // Data, and no note, as after an upgrade from a program that wrote none: it starts after --timeout.
    hosts[1].stop_node();
    hosts[1].wipe_notes();
    let began = Instant::now();
    start(&hosts[1]);
    assert_eq!(one_cluster(&hosts), uuid);
    assert!(began.elapsed() > Duration::from_secs(10), "{:?}", began.elapsed());

    // A fresh one knows nothing, and may decide nothing.
    let fresh = Host::boot(&network, "h4", &[&endpoints(&url), "CRATE_BOOTSTRAP_EXPECT=3", settings[0]]);
    start(&fresh);
    let sentence = "waiting for etcd: a node that was never in a cluster has to be told who may elect";
    eventually("it says what it waits for", UNIT_PATIENCE, || {
        let said = fresh.journal(SEEDS);
        if said.contains(sentence) { Ok(()) } else { Err(said) }
    });
    stays("it waits for longer than for --timeout", Duration::from_secs(12), &0, || fresh.starts());
    etcd.thaw();
    eventually("it joins", UNIT_PATIENCE, || match fresh.sql("select id from sys.cluster") {
        Ok(id) if id.concat() == uuid => Ok(()),
        other => Err(format!("{other:?}\n{}", fresh.journal(SEEDS))),
    });
}

#[test]
fn etcd_that_lost_everything_makes_no_second_cluster_of_nodes_that_lost_their_data() {
    let network = Network::create();
    let (mut etcd, url) = network.etcd();
    let hosts = three_hosts(&network, &url, &[]);
    hosts.iter().for_each(start);
    let uuid = one_announced_cluster(&hosts, &etcd);
    is_noted(&hosts, &etcd);
    // All of it at once: the nodes down, the data of two gone, and etcd's as well.
    hosts.iter().for_each(Host::stop_node);
    hosts[..2].iter().for_each(Host::wipe_data);
    etcd.wipe();
    hosts.iter().for_each(start);
    for host in &hosts {
        eventually("it has started", UNIT_PATIENCE, || match host.starts() {
            2 => Ok(()),
            n => Err(format!("{n}\n{}", host.journal(SEEDS))),
        });
        assert_eq!(host.first_masters(), None, "{}", host.journal(SEEDS));
    }
    // The third one alone is no majority: nobody is master, and nobody elects another one.
    stays("no second cluster begins", Duration::from_secs(10), &[false; 3], || {
        hosts.each_ref().map(Host::has_master)
    });
    let shown = hosts[2].journal(NODE);
    assert!(shown.contains(&uuid), "{shown}");
}

/// Seen on a real server: 401 to every probe, so that nobody could note that the cluster had formed; two of three were
/// wiped, were given the old list again, and elected a second cluster.
#[test]
fn nodes_that_want_a_password_and_lose_their_data_make_no_second_cluster() {
    crate::support::crate_db::CrateDb::is_the_stand_in();
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let locked = "CRATE_FLAGS=-Cauth.host_based.enabled=true -Cauth.host_based.config.0.user=somebody \
                  -Cauth.host_based.config.0.method=password";
    let hosts = three_hosts(&network, &url, &[locked]);
    hosts.iter().for_each(start);
    let clusters = || {
        let mut uuids: Vec<String> = hosts
            .iter()
            .flat_map(|host| {
                let journal = host.journal(NODE);
                journal
                    .lines()
                    .filter_map(|line| {
                        line.split_once(" in cluster ")?.1.split(' ').next().map(str::to_owned)
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        uuids.sort_unstable();
        uuids.dedup();
        uuids
    };
    eventually("all three are in the cluster", UNIT_PATIENCE, || {
        let in_it =
            hosts.iter().all(|host| host.journal(NODE).contains(&format!("of {} under", NAMES.join(","))));
        if in_it { Ok(()) } else { Err(format!("{:?}", clusters())) }
    });
    let before = clusters();
    assert_eq!(before.len(), 1);
    for host in &hosts {
        eventually("the host has noted that its node was given the list", UNIT_PATIENCE, || {
            match host.has_note() {
                true => Ok(()),
                false => Err(host.journal("crate-discovery@1")),
            }
        });
    }
    assert_eq!(etcd.key(&format!("{STORED}formed")).map(drop), None, "nobody could see it");

    hosts[..2].iter().for_each(Host::stop_node);
    hosts[..2].iter().for_each(Host::wipe_data);
    hosts[..2].iter().for_each(start);
    for host in &hosts[..2] {
        eventually("it has started again", UNIT_PATIENCE, || match host.starts() {
            2 => Ok(()),
            n => Err(format!("{n}\n{}", host.journal(SEEDS))),
        });
        assert_eq!(host.first_masters(), None, "{}", host.journal(SEEDS));
    }
    stays("no second cluster begins", Duration::from_secs(10), &before, clusters);
}

#[test]
fn files_that_are_gone_at_a_stop_do_not_keep_the_node_from_being_stopped() {
    let network = Network::create();
    let (_etcd, url) = network.etcd();
    let host = Host::boot(&network, "h1", &[&endpoints(&url)]);
    host.systemctl(&["start", NODE]);
    eventually("the node runs", UNIT_PATIENCE, || match host.containers().as_str() {
        "crate-1" => Ok(()),
        other => Err(other.to_owned()),
    });
    host.exec(&["sh", "-c", "rm -rf /run/crate-1/* /run/crate-seeds-1/* /etc/crate-discovery/*"]);
    host.systemctl(&["stop", NODE]);
    host.ended_well(NODE);
    assert_eq!(host.containers(), "");
    assert!(host.docker_calls().iter().any(|call| call == "stop -t 120 crate-1"));
}
