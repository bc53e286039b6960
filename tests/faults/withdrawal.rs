//! The end of an announcer: rows 13, 14 and 15. Whatever state it is in, nothing of ours is left
//! afterwards, or it says until when.

use std::{
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::Signal;

use crate::support::{
    AT_ONCE, PATIENCE, SLACK, TTL,
    daemon::{Daemon, field},
    etcd::Etcd,
    eventually, key_of,
    node::FakeNode,
};

/// Nothing of anybody is in etcd: no announcement and no lease.
fn nothing_of_ours(etcd: &Etcd) -> Result<(), String> {
    let (keys, leases) = (etcd.announced(), etcd.leases());
    if keys.is_empty() && leases.is_empty() {
        Ok(())
    } else {
        Err(format!("keys {keys:?}, leases {leases:?}"))
    }
}

#[track_caller]
fn assert_nothing_of_ours(etcd: &Etcd) {
    assert_eq!(nothing_of_ours(etcd), Ok(()));
}

/// What the sentence of exit 69 promises.
struct Promise {
    /// The key is gone by then,
    by: SystemTime,
    /// or this long after etcd next gains a leader, whichever is later.
    after_leader: Duration,
}

impl Promise {
    /// Reads `… ends with lease <hex> by <time> at the latest, or <N>s after etcd next gains a leader …`.
    fn read(daemon: &Daemon) -> Self {
        let stderr = daemon.stderr();
        let line = stderr.lines().last().unwrap_or_default();
        assert!(line.starts_with("error: failed to withdraw \"/services/crate/h1\" within"), "{stderr}");
        assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
        let between = |before: &str, after: &str| {
            let found = line.split_once(before).and_then(|(_, rest)| rest.split_once(after));
            found.unwrap_or_else(|| panic!("no {before:?} … {after:?} in: {line}")).0.to_owned()
        };
        Self {
            by: humantime::parse_rfc3339(&between(" by ", " at the latest")).expect("an RFC 3339 time"),
            after_leader: Duration::from_secs(between(" or ", "s after").parse().expect("seconds")),
        }
    }

    /// Holds that nothing of ours is left when the promise, made to a leader of `since`, is due.
    fn is_kept(&self, etcd: &Etcd, since: SystemTime) {
        let due = self.by.max(since + self.after_leader);
        let left = due.duration_since(SystemTime::now()).unwrap_or_default();
        assert!(left <= TTL + 2 * AT_ONCE + SLACK, "due in {left:?}: longer than TTL + election + 1 s");
        eventually("nothing of ours is left", left + SLACK, || nothing_of_ours(etcd));
    }
}

/// Row 13.
#[test]
fn sigterm_removes_key_and_lease_at_once() {
    let etcd = Etcd::start();
    let mut daemon = Daemon::announced(&etcd, "h1", &["--ttl", "60s"]);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_nothing_of_ours(&etcd);
}

/// Row 13: only what is ours.
#[test]
fn sigterm_leaves_what_is_not_ours() {
    let etcd = Etcd::start();
    let lease = etcd.grant(Duration::from_secs(600));
    etcd.etcdctl(&["put", &key_of("other"), "{}", "--lease", &format!("{lease:x}")]);
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.announced(), [key_of("other")]);
    assert_eq!(etcd.leases(), [lease]);
}

/// Row 14.
#[test]
fn sigterm_while_etcd_is_away_ends_in_time_and_says_until_when() {
    let mut etcd = Etcd::start();
    let mut daemon = Daemon::announced(&etcd, "h1", &["--stop-timeout", "1s"]);
    let lease = field(&daemon.lines("announced")[0], "lease").expect("a lease");
    etcd.kill();
    assert_eq!(daemon.end(Signal::TERM, Duration::from_secs(1) + SLACK), 69);
    assert!(daemon.stderr().contains(&format!("ends with lease {lease} by ")), "{}", daemon.stderr());
    let promise = Promise::read(&daemon);
    etcd.restart();
    promise.is_kept(&etcd, SystemTime::now());
}

/// Row 14: a connection that stays and says nothing.
#[test]
fn sigterm_while_etcd_is_frozen_ends_in_time_and_says_until_when() {
    let etcd = Etcd::start();
    let mut daemon = Daemon::announced(&etcd, "h1", &["--stop-timeout", "1s"]);
    etcd.freeze();
    assert_eq!(daemon.end(Signal::TERM, Duration::from_secs(1) + SLACK), 69);
    let promise = Promise::read(&daemon);
    etcd.thaw();
    promise.is_kept(&etcd, SystemTime::now());
}

/// Row 14: etcd that returns within the stop timeout is still asked.
#[test]
fn sigterm_while_etcd_is_away_for_a_moment_withdraws_when_it_returns() {
    let mut etcd = Etcd::start();
    let mut daemon = Daemon::announced(&etcd, "h1", &["--ttl", "60s", "--stop-timeout", "30s"]);
    etcd.kill();
    daemon.signal(Signal::TERM);
    daemon.says("withdrawing", PATIENCE);
    etcd.restart();
    // The TTL is 60 s: what is gone before that was withdrawn.
    assert_eq!(daemon.wait(Duration::from_secs(10) + SLACK), 0);
    assert_nothing_of_ours(&etcd);
}

/// Row 15.
#[test]
fn sigterm_while_waiting_at_the_gate_leaves_nothing() {
    let etcd = Etcd::start();
    let node = FakeNode::closed();
    let mut daemon = Daemon::announce(&etcd, "h1", &["--check", &node.tcp()]);
    daemon.says("starting", PATIENCE);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_nothing_of_ours(&etcd);
}

/// Row 15.
#[test]
fn sigterm_while_standing_by_leaves_the_holder_alone() {
    let etcd = Etcd::start();
    let mut elder = Daemon::announced(&etcd, "h1", &[]);
    let _holder = Daemon::announced(&etcd, "h1", &["--http", "4201"]);
    elder.says("standing by", PATIENCE);
    let before = etcd.key(&key_of("h1"));
    assert_eq!(elder.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&key_of("h1")), before);
    assert_eq!(etcd.leases().len(), 1);
}

/// Row 15: nothing was ever sent, so nothing can be left.
#[test]
fn sigterm_while_claiming_without_an_etcd_leaves_nothing() {
    let mut etcd = Etcd::start();
    etcd.kill();
    let mut daemon = Daemon::announce(&etcd, "h1", &["--ttl", "60s"]);
    daemon.says("endpoint left", PATIENCE);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    etcd.restart();
    assert_nothing_of_ours(&etcd);
}

/// Row 15: a request may lie in the frozen etcd's socket and be served after we ended.
#[test]
fn sigterm_while_claiming_at_a_frozen_etcd_leaves_nothing_for_longer_than_it_says() {
    let etcd = Etcd::start();
    etcd.freeze();
    let mut daemon = Daemon::announce(&etcd, "h1", &["--stop-timeout", "1s"]);
    daemon.says("endpoint left", PATIENCE);
    let code = daemon.end(Signal::TERM, Duration::from_secs(1) + SLACK);
    let promise = (code == 69).then(|| Promise::read(&daemon));
    etcd.thaw();
    match promise {
        Some(promise) => promise.is_kept(&etcd, SystemTime::now()),
        None => {
            assert_eq!(code, 0, "{}", daemon.stderr());
            // What etcd found in its sockets has been served by now; 0 means that there was nothing.
            sleep(AT_ONCE);
            assert_nothing_of_ours(&etcd);
        }
    }
}

/// Row 15, at many moments of the first claim.
#[test]
fn sigterm_at_any_moment_of_the_start_leaves_nothing() {
    let etcd = Etcd::start();
    for delay in [0, 2, 5, 10, 15, 20, 30, 50] {
        let mut daemon = Daemon::announce(&etcd, "h1", &["--ttl", "60s"]);
        let started = Instant::now();
        daemon.says("starting", PATIENCE);
        sleep(Duration::from_millis(delay));
        let code = daemon.end(Signal::TERM, AT_ONCE + SLACK);
        assert_eq!(code, 0, "after {:?}", started.elapsed());
        assert_nothing_of_ours(&etcd);
    }
}

/// Row 15, after the gate closed with etcd away: the lease on its way out may still be there.
#[test]
fn sigterm_while_a_release_is_unconfirmed_says_until_when() {
    let mut etcd = Etcd::start();
    let node = FakeNode::serving();
    let check = node.tcp();
    let args = ["--check", &check, "--check-interval", "100ms", "--fall", "1", "--stop-timeout", "1s"];
    let mut daemon = Daemon::announced(&etcd, "h1", &args);
    etcd.kill();
    drop(node);
    daemon.says("gate closed", PATIENCE);
    assert_eq!(daemon.end(Signal::TERM, Duration::from_secs(1) + SLACK), 69);
    let promise = Promise::read(&daemon);
    etcd.restart();
    promise.is_kept(&etcd, SystemTime::now());
}
