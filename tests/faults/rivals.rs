//! Two announcers with one name, row 18: the newest holds, the elder stands by, nobody flaps.

use std::{thread::sleep, time::Duration};

use rustix::process::Signal;

use crate::support::{
    AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK, TTL,
    daemon::{Daemon, field},
    etcd::{Etcd, lease_id},
    eventually_eq, key_of,
    observer::Observer,
    round,
};

/// So long that no tick comes within any bound here: what is seen within a second, a live watch saw.
const WATCHED: [&str; 2] = ["--ttl", "60s"];
/// What tells the newer one from the elder.
const NEWER: [&str; 2] = ["--http", "4201"];
const NEWER_VALUE: &str = r#"{"http":4201,"transport":4300}"#;

#[test]
fn newest_holds_and_the_elder_stands_by_and_says_for_whom() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut elder = Daemon::announced(&etcd, "h1", &WATCHED);
    let newer = Daemon::announced(&etcd, "h1", &NEWER);
    let said = elder.says("standing by", AT_ONCE + SLACK);
    let held = etcd.key(&key_of("h1")).expect("announced");
    assert_eq!(held.value, NEWER_VALUE);
    assert_eq!(field(&said, "holder").map(|hex| lease_id(&hex)), Some(held.lease), "{said}");
    assert!(said.contains("4201"), "the holder's value: {said}");
    eventually_eq("the elder's lease is revoked", AT_ONCE + SLACK, &vec![held.lease], || etcd.leases());

    sleep(TTL);
    let history = observer.history(&key_of("h1"));
    assert_eq!(history.iter().map(|event| event.put).collect::<Vec<_>>(), [true, true], "{history:#?}");
    assert_eq!(elder.lines("standing by").len(), 1, "{}", elder.stderr());
    assert_eq!(newer.lines("standing by").len(), 0, "{}", newer.stderr());
}

#[test]
fn elder_returns_at_once_when_the_newest_leaves() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut elder = Daemon::announced(&etcd, "h1", &WATCHED);
    let mut newer = Daemon::announced(&etcd, "h1", &NEWER);
    elder.says("standing by", AT_ONCE + SLACK);
    assert_eq!(newer.end(Signal::TERM, AT_ONCE + SLACK), 0);
    let left = observer.next_delete(&key_of("h1"), 0, AT_ONCE + SLACK);
    let back = observer.next_put(&key_of("h1"), left.revision, AT_ONCE + SLACK);
    assert_eq!(back.value, DEFAULT_VALUE);
    assert_eq!(etcd.leases(), [back.lease]);
    assert_eq!(elder.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.leases(), Vec::<i64>::new());
}

#[test]
fn elder_returns_when_the_newest_is_killed_and_its_lease_ends() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut elder = Daemon::announced(&etcd, "h1", &WATCHED);
    let mut newer = Daemon::announced(&etcd, "h1", &NEWER);
    elder.says("standing by", AT_ONCE + SLACK);
    newer.end(Signal::KILL, PATIENCE);
    let left = observer.next_delete(&key_of("h1"), 0, TTL + AT_ONCE + SLACK);
    let back = observer.next_put(&key_of("h1"), left.revision, AT_ONCE + SLACK);
    assert_eq!(back.value, DEFAULT_VALUE);
}

/// A key that somebody keeps under a lease of his own is his, not ours to take back.
#[test]
fn key_under_another_lease_is_left_alone_until_that_lease_ends() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut daemon = Daemon::announced(&etcd, "h1", &WATCHED);
    let theirs = etcd.grant(Duration::from_secs(600));
    etcd.etcdctl(&["put", &key_of("h1"), "theirs", "--lease", &format!("{theirs:x}")]);
    let said = daemon.says("standing by", AT_ONCE + SLACK);
    assert_eq!(field(&said, "holder").map(|hex| lease_id(&hex)), Some(theirs), "{said}");
    eventually_eq("our lease is revoked", AT_ONCE + SLACK, &vec![theirs], || etcd.leases());
    assert_eq!(etcd.key(&key_of("h1")).expect("theirs").value, "theirs");

    etcd.etcdctl(&["lease", "revoke", &format!("{theirs:x}")]);
    let left = observer.next_delete(&key_of("h1"), 0, PATIENCE);
    let back = observer.next_put(&key_of("h1"), left.revision, AT_ONCE + SLACK);
    assert_eq!(back.value, DEFAULT_VALUE);
}

/// The elder must not take an outage for the newest's end.
#[test]
fn nobody_flaps_across_a_restart_of_etcd() {
    let mut etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut elder = Daemon::announced(&etcd, "h1", &[]);
    let _newer = Daemon::announced(&etcd, "h1", &NEWER);
    elder.says("standing by", AT_ONCE + SLACK);
    etcd.kill();
    etcd.restart();
    sleep(TTL + Duration::from_secs(2));
    let history = observer.history(&key_of("h1"));
    assert_eq!(history.iter().map(|event| event.put).collect::<Vec<_>>(), [true, true], "{history:#?}");
}

/// An elder that learns late, not from its watch, that its key is another's now: a claim after the
/// first one takes nothing away from anybody.
#[test]
fn elder_that_slept_through_the_takeover_stands_by() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut elder = Daemon::announced(&etcd, "h1", &[]);
    elder.freeze();
    let _newer = Daemon::announced(&etcd, "h1", &NEWER);
    let held = etcd.key(&key_of("h1")).expect("announced");
    eventually_eq("the elder's lease has ended", TTL + 2 * SLACK, &vec![held.lease], || etcd.leases());
    elder.thaw();
    let said = elder.says("standing by", AT_ONCE + SLACK);
    assert_eq!(field(&said, "holder").map(|hex| lease_id(&hex)), Some(held.lease), "{said}");

    sleep(TTL);
    let history = observer.history(&key_of("h1"));
    assert_eq!(history.iter().map(|event| event.put).collect::<Vec<_>>(), [true, true], "{history:#?}");
    assert_eq!(etcd.leases(), [held.lease]);
}

/// Both find the key absent. One of them wins, and the other one minds.
#[test]
fn one_of_two_holds_after_etcd_lost_its_data() {
    let mut etcd = Etcd::start();
    let mut elder = Daemon::announced(&etcd, "h1", &[]);
    let newer = Daemon::announced(&etcd, "h1", &NEWER);
    elder.says("standing by", AT_ONCE + SLACK);
    etcd.wipe();
    let observer = Observer::start(&etcd);
    let back = observer.next_put(&key_of("h1"), 0, round(TTL) + SLACK);
    sleep(TTL);
    let history = observer.history(&key_of("h1"));
    assert_eq!(history.len(), 1, "{history:#?}");
    assert_eq!(etcd.leases(), [back.lease], "elder:\n{}\nnewer:\n{}", elder.stderr(), newer.stderr());
}
