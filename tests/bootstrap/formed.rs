//! The first sidekick whose node has a master says so, and from then on nobody is to elect.

use std::time::Duration;

use rustix::process::Signal;

use crate::{
    STORED, ask,
    support::{
        AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK,
        daemon::{Daemon, announce, run},
        etcd::Etcd,
        eventually_eq, key_of,
        node::{FakeNode, Manner, answer, cratedb, locked},
        stays,
    },
};

/// A node that answers so.
fn node(answer: Vec<u8>) -> FakeNode {
    FakeNode::start(Manner::Answers(answer))
}

/// An announcer with this check, asked often.
fn announced(etcd: &Etcd, host: &str, check: &str) -> Daemon {
    Daemon::announced(etcd, host, &["--check", check, "--check-interval", "100ms"])
}

/// Who said that the cluster has formed.
fn formed(etcd: &Etcd) -> Option<String> {
    let stored = etcd.key(&format!("{STORED}formed"))?.value;
    let by = stored.strip_prefix(r#"{"by":""#).and_then(|rest| rest.split_once(r#"","epoch":"#));
    Some(by.map_or(stored.as_str(), |(by, _)| by).to_owned())
}

#[test]
fn cluster_has_formed_when_a_node_knows_a_master_and_not_before() {
    let etcd = Etcd::start();
    assert_eq!(run(ask(&etcd, "a", 1, &[])).printed(), "a\n");
    let node = node(cratedb(503, "crate"));
    let _daemon = announced(&etcd, "h1", &node.cratedb());
    stays("not formed", Duration::from_secs(1), &None, || formed(&etcd));
    assert_eq!(run(ask(&etcd, "b", 1, &[])).printed(), "a\n");
    let metrics = answer(200, "# TYPE up gauge\nup 1\n");
    let others = [204, 301, 400, 401, 500].map(|status| answer(status, ""));
    for other in others.into_iter().chain([metrics, answer(200, "{}"), locked()]) {
        node.behave(Manner::Answers(other));
        node.is_asked(4);
        stays("not formed", Duration::from_millis(300), &None, || formed(&etcd));
    }

    node.behave(Manner::Answers(cratedb(200, "crate")));
    eventually_eq("formed", AT_ONCE + SLACK, &Some("h1".to_owned()), || formed(&etcd));
    for wiped in ["a", "b"] {
        assert_eq!(run(ask(&etcd, wiped, 1, &["--format", "env"])).printed(), "CRATE_BOOTSTRAP_FLAGS=\n");
    }
}

#[test]
fn cluster_that_formed_without_a_list_has_formed_too() {
    let etcd = Etcd::start();
    let node = node(cratedb(200, "crate"));
    let mut h1 = announced(&etcd, "h1", &node.cratedb());
    eventually_eq("formed", AT_ONCE + SLACK, &Some("h1".to_owned()), || formed(&etcd));
    // All of it is down, and two of its nodes are wiped: they must not elect a second one.
    assert_eq!(h1.end(Signal::TERM, PATIENCE), 0);
    let finished = run(ask(&etcd, "a", 1, &[]));
    assert_eq!((finished.code, finished.stdout.as_str()), (0, ""), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("the cluster has formed, as the sidekick of h1 saw"),
        "{}",
        finished.stderr
    );
}

#[test]
fn first_to_say_it_is_the_only_one() {
    let etcd = Etcd::start();
    let node = node(cratedb(200, "crate"));
    let _h1 = announced(&etcd, "h1", &node.cratedb());
    eventually_eq("formed", AT_ONCE + SLACK, &Some("h1".to_owned()), || formed(&etcd));
    let before = etcd.key(&format!("{STORED}formed"));
    let _h2 = announced(&etcd, "h2", &node.cratedb());
    stays("put once", Duration::from_secs(1), &before, || etcd.key(&format!("{STORED}formed")));
}

/// Even where it is a CrateDB that answers: what is good for `http://` is anybody's word.
#[test]
fn announcer_without_a_check_that_asks_cratedb_says_nothing() {
    let etcd = Etcd::start();
    let node = node(cratedb(200, "crate"));
    let _daemons = [announced(&etcd, "h1", &node.tcp()), announced(&etcd, "h2", &node.http())];
    node.is_asked(4);
    stays("nothing is said", Duration::from_secs(1), &None, || formed(&etcd));
}

#[test]
fn foreign_200_says_nothing_and_announces_nobody() {
    let etcd = Etcd::start();
    let metrics = answer(200, "# TYPE up gauge\nup 1\n");
    let elasticsearch = r#"{"name":"crate1","cluster_name":"crate","cluster_uuid":"x","version":{"number":"8.1.0"},"tagline":"You Know, for Search"}"#;
    for foreign in [metrics, answer(200, "{}"), answer(200, elasticsearch), answer(200, "")] {
        let node = node(foreign);
        let _daemon =
            Daemon::announce(&etcd, "h1", &["--check", &node.cratedb(), "--check-interval", "100ms"]);
        node.is_asked(4);
        stays("nothing is said", Duration::from_millis(500), &(None, None), || {
            (formed(&etcd), etcd.key(&key_of("h1")))
        });
    }
}

/// A node that was told to join another cluster says nothing of ours.
#[test]
fn node_of_another_cluster_says_nothing() {
    let etcd = Etcd::start();
    let node = node(cratedb(200, "theirs"));
    let check = node.cratedb();
    let args = ["--check", &check, "--check-interval", "100ms", "--cluster-name", "ours"];
    let _daemon = Daemon::announce(&etcd, "h1", &args);
    node.is_asked(4);
    stays("nothing is said", Duration::from_millis(500), &None, || formed(&etcd));
}

#[test]
fn announcer_that_may_not_say_it_announces_as_ever() {
    let mut etcd = Etcd::start();
    let own = key_of("h1");
    etcd.enable_auth(&[(
        "h1",
        "secret",
        &[&["readwrite", &own], &["--prefix=true", "read", "/services/crate/"]],
    )]);
    let node = node(cratedb(200, "crate"));
    let mut command = announce(&etcd, "h1", &["--check", &node.cratedb(), "--check-interval", "100ms"]);
    command.env("ETCDCTL_USER", "h1:secret");
    let mut daemon = Daemon::spawn(command);
    daemon.says("announced", PATIENCE);
    daemon.says("cannot say that the cluster has formed", PATIENCE);
    let before = etcd.key(&own).unwrap();
    assert_eq!(before.value, DEFAULT_VALUE);
    // Longer than its TTL.
    stays("announced", Duration::from_secs(7), &Some(before), || etcd.key(&own));
    assert_eq!(daemon.lines("cannot say that the cluster has formed").len(), 1, "{}", daemon.stderr());
    assert_eq!(daemon.stderr().matches(" WARN ").count(), 1, "{}", daemon.stderr());
    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    assert_eq!(etcd.key(&own), None);
}
