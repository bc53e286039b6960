//! More in etcd than a node needs, or than anybody should have put there: nothing of it keeps a node down that was in the
//! cluster.

use crate::{
    NODE, SEEDS, SIDEKICK, endpoints,
    formation::{STORED, start},
    host::{Host, UNIT_PATIENCE, reserve},
    support::{DEFAULT_VALUE, engine::Network, etcd::Etcd, eventually, key_of, observer::Raw},
};

/// As many hosts as anybody has, each with a name of 40 characters.
const MANY: usize = 10_000;

fn crowd(etcd: &Etcd) {
    let name = |n| format!("crate-{n:05}.rack-07.hall-3.example.com.x");
    assert_eq!(name(0).len(), 40);
    Raw::connect(etcd).put_all((0..MANY).map(|n| (key_of(&name(n)), DEFAULT_VALUE.to_owned())));
}

/// A list of first masters that no `bootstrap` of ours would write.
fn hostile_list() -> String {
    let node = |n| format!(r#"{{"name":"evil-{n:03}","machine":"{n:032x}"}}"#);
    let nodes: Vec<String> = (0..600).map(node).collect();
    format!(r#"{{"epoch":0,"nodes":[{}]}}"#, nodes.join(","))
}

#[test]
fn ten_thousand_hosts_and_a_list_of_600_names_keep_no_noted_node_down_and_the_limits_are_enough() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let settings = [&endpoints(&url)[..], "CRATE_BOOTSTRAP_EXPECT=1"];
    let _reserved = reserve(2);
    let noted = Host::boot(&network, "h1", &settings);
    start(&noted);
    noted.is_with(&["h1"]);
    eventually("the host has noted it", UNIT_PATIENCE, || match noted.has_note() {
        true => Ok(()),
        false => Err(noted.journal(SIDEKICK)),
    });

    crowd(&etcd);
    etcd.etcdctl(&["del", "--prefix", STORED]);
    etcd.etcdctl(&["put", &format!("{STORED}list"), &hostile_list()]);
    noted.systemctl(&["restart", NODE]);
    assert_eq!(noted.starts(), 2);
    let seeds = noted.node_flags().into_iter().find(|flag| flag.starts_with("-Cdiscovery.seed_hosts="));
    assert_eq!(seeds.expect("it has peers").split(',').count(), 50);
    // Within the limits of the units: neither was ended for its memory.
    eventually("it is announced, and follows all of them", UNIT_PATIENCE, || {
        etcd.key(&key_of("h1")).map(drop).ok_or_else(|| noted.journal(SIDEKICK))
    });
    for (unit, tasks) in [(SIDEKICK, "64"), (SEEDS, "64")] {
        assert_eq!(noted.property(unit, "MemoryMax"), (64 << 20).to_string());
        assert_eq!(noted.property(unit, "TasksMax"), tasks);
        assert!(!noted.journal(unit).contains("oom"), "{}", noted.journal(unit));
    }
    assert_eq!(noted.property(SIDEKICK, "NRestarts"), "0");
    let pid = noted.main_pid(SIDEKICK);
    let peak = noted.exec(&["sh", "-c", &format!("grep -E 'VmHWM|Threads' /proc/{pid}/status")]);
    println!("the sidekick beside {MANY} hosts: {}", peak.replace(['\n', '\t'], " "));

    // One that was never in a cluster cannot be told who may elect. It says so, and tries again. (The first one's sidekick
    // has said anew that the cluster has formed, which would be an answer.)
    etcd.etcdctl(&["del", &format!("{STORED}formed")]);
    let fresh = Host::boot(&network, "h2", &settings);
    start(&fresh);
    eventually("it says why, more than once", UNIT_PATIENCE, || {
        let said = fresh.journal(SEEDS);
        match said.matches("error: ").count() {
            0 | 1 => Err(said),
            _ => Ok(()),
        }
    });
    let said = fresh.journal(SEEDS);
    let sentence = said.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(sentence.contains("600") && sentence.contains("50") && sentence.len() < 1000, "{sentence}");
    assert_eq!(fresh.starts(), 0);
    // The cause is gone, and it starts by itself. Somebody is announced, so it joins.
    etcd.etcdctl(&["del", &format!("{STORED}list")]);
    fresh.becomes(NODE, "ActiveState", "active");
    assert_eq!(fresh.first_masters(), None);
}
