//! The gate, row 26: a node that dies or hangs is withdrawn, and announced again when it is back.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK, TTL,
    daemon::{Daemon, announce},
    etcd::Etcd,
    eventually, eventually_eq, key_of,
    node::{FakeNode, Manner},
    observer::Observer,
    round, stays,
};

/// Quick probes, and different numbers for rise and fall so that they cannot be mixed up unseen.
const PROBES: [&str; 8] =
    ["--check-interval", "100ms", "--check-timeout", "300ms", "--rise", "2", "--fall", "4"];
const RISE: usize = 2;
const FALL: usize = 4;

/// `fall` probes, each of which may use all of its timeout, and the withdrawal.
const WITHDRAWN: Duration = Duration::from_millis(4 * (100 + 300) + 1000).saturating_add(SLACK);

/// An announcer with these checks.
fn gated(etcd: &Etcd, checks: &[String]) -> Daemon {
    let mut args: Vec<&str> = PROBES.to_vec();
    args.extend(checks.iter().flat_map(|url| ["--check", url.as_str()]));
    Daemon::announce(etcd, "h1", &args)
}

fn is_there(etcd: &Etcd) -> bool {
    etcd.key(&key_of("h1")).is_some()
}

#[test]
fn node_that_never_listened_is_not_announced() {
    let etcd = Etcd::start();
    let node = FakeNode::closed();
    let mut daemon = gated(&etcd, &[node.tcp()]);
    daemon.says("starting", PATIENCE);
    stays("closed gate", Duration::from_secs(2), &(false, 0), || (is_there(&etcd), etcd.leases().len()));

    node.serve();
    eventually_eq("announced", WITHDRAWN, &true, || is_there(&etcd));
    daemon.says("gate opened", AT_ONCE);
}

#[test]
fn node_that_dies_is_withdrawn_and_announced_again_when_it_returns() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let node = FakeNode::serving();
    let mut daemon = gated(&etcd, &[node.tcp()]);
    let first = observer.next_put(&key_of("h1"), 0, PATIENCE);

    node.behave(Manner::Closed);
    let gone = observer.next_delete(&key_of("h1"), first.revision, WITHDRAWN);
    daemon.says("gate closed", AT_ONCE);
    assert_eq!(daemon.ended(), None);
    eventually_eq("nothing of ours is left", AT_ONCE + SLACK, &0, || etcd.leases().len());

    node.serve();
    let back = observer.next_put(&key_of("h1"), gone.revision, WITHDRAWN);
    assert_eq!(back.value, DEFAULT_VALUE);
    assert_ne!(back.lease, first.lease, "a lease id is never used again");
    assert_eq!(daemon.says_times("gate opened", 2, AT_ONCE).len(), 2);
}

/// A cluster forms only if nodes are announced before a master is elected, and until then CrateDB
/// answers 503.
#[test]
fn answer_of_503_is_a_good_one() {
    let etcd = Etcd::start();
    let node = FakeNode::serving();
    let mut daemon = gated(&etcd, &[node.http()]);
    daemon.says("announced", PATIENCE);
    assert!(node.answered() >= RISE, "{} probes opened the gate, not {RISE}", node.answered());
    let before = etcd.key(&key_of("h1"));
    stays("announced", Duration::from_secs(2), &before, || etcd.key(&key_of("h1")));
}

/// A frozen process still accepts TCP.
#[test]
fn node_that_accepts_but_does_not_answer_is_withdrawn_after_fall_probes() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let node = FakeNode::serving();
    let mut daemon = gated(&etcd, &[node.tcp(), node.http()]);
    let first = observer.next_put(&key_of("h1"), 0, PATIENCE);

    node.behave(Manner::Silent);
    let gone = observer.next_delete(&key_of("h1"), first.revision, WITHDRAWN);
    daemon.says("gate closed", AT_ONCE);
    assert!(node.ignored() >= FALL, "{} probes closed the gate, not {FALL}", node.ignored());

    node.serve();
    observer.next_put(&key_of("h1"), gone.revision, WITHDRAWN);
}

#[test]
fn fewer_bad_probes_than_fall_change_nothing() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let node = FakeNode::serving();
    let mut daemon = gated(&etcd, &[node.http()]);
    observer.next_put(&key_of("h1"), 0, PATIENCE);
    for hiccup in 1..=3 {
        node.hiccup(FALL - 1);
        eventually_eq("the probes were met with silence", PATIENCE, &(hiccup * (FALL - 1)), || {
            node.ignored()
        });
        // A good probe in between: bad ones count in a row only.
        let before = node.answered();
        eventually("a good probe", PATIENCE, || {
            if node.answered() > before { Ok(()) } else { Err("none".to_owned()) }
        });
    }
    assert_eq!(observer.history(&key_of("h1")).len(), 1);
    assert_eq!(daemon.lines("gate closed").len(), 0, "{}", daemon.stderr());
    assert_eq!(daemon.ended(), None);
}

#[test]
fn one_bad_check_of_two_closes_the_gate() {
    let etcd = Etcd::start();
    let (good, bad) = (FakeNode::serving(), FakeNode::serving());
    let mut daemon = gated(&etcd, &[good.tcp(), bad.tcp()]);
    daemon.says("announced", PATIENCE);
    bad.behave(Manner::Closed);
    eventually_eq("withdrawn", WITHDRAWN, &false, || is_there(&etcd));
    stays("one is not all", AT_ONCE, &false, || is_there(&etcd));
    bad.serve();
    eventually_eq("announced", WITHDRAWN, &true, || is_there(&etcd));
}

/// Comma separated is as good as repeated, and the way of the environment.
#[test]
fn checks_come_from_the_environment_too() {
    let etcd = Etcd::start();
    let (good, bad) = (FakeNode::serving(), FakeNode::closed());
    let mut command = announce(&etcd, "h1", &PROBES);
    command.env("CRATE_DISCOVERY_CHECK", format!("{},{}", good.tcp(), bad.http()));
    let mut daemon = Daemon::spawn(command);
    daemon.says("starting", PATIENCE);
    stays("one is not all", Duration::from_secs(1), &false, || is_there(&etcd));
    bad.serve();
    daemon.says("announced", PATIENCE);
}

/// The gate closes while etcd is away: the withdrawal is made up for as soon as etcd is back.
#[test]
fn node_that_dies_while_etcd_is_away_is_withdrawn_when_etcd_returns() {
    let mut etcd = Etcd::start();
    let node = FakeNode::serving();
    let mut args = vec!["--ttl", "60s"];
    let check = node.tcp();
    args.extend(PROBES);
    args.extend(["--check", &check]);
    let mut daemon = Daemon::announced(&etcd, "h1", &args);
    etcd.kill();
    node.behave(Manner::Closed);
    daemon.says("gate closed", WITHDRAWN);
    etcd.restart();
    eventually_eq("key and lease are gone", round(Duration::from_secs(60)) + SLACK, &(false, 0), || {
        (is_there(&etcd), etcd.leases().len())
    });
    assert_eq!(daemon.ended(), None);
}

/// What a `https://` check asks is whether the node is alive: no certificate is too odd, and a node
/// that wants one of ours has answered. The node is an etcd here, because that one can do TLS.
#[test]
fn https_check_wants_an_answer_and_judges_no_certificate() {
    let etcd = Etcd::start();
    for node in [Etcd::start_with_tls(&[]), Etcd::start_with_tls(&["--client-cert-auth=false"])] {
        let check = format!("https://127.0.0.1:{}/", node.port());
        let mut daemon = gated(&etcd, &[check]);
        daemon.says("announced", PATIENCE);
        node.freeze();
        daemon.says("gate closed", WITHDRAWN);
        eventually_eq("withdrawn", WITHDRAWN, &false, || is_there(&etcd));
        node.thaw();
        daemon.says_times("gate opened", 2, WITHDRAWN);
        assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    }
}

/// A renewal that failed shortly before is no reason to say later that the key ended by itself.
#[test]
fn withdrawal_during_an_outage_is_followed_by_no_alarm() {
    let etcd = Etcd::start();
    let node = FakeNode::serving();
    let mut daemon = gated(&etcd, &[node.tcp()]);
    daemon.says("announced", PATIENCE);
    etcd.freeze();
    daemon.says("no endpoint of etcd answers", PATIENCE);
    node.behave(Manner::Closed);
    daemon.says("gate closed", WITHDRAWN);
    etcd.thaw();
    daemon.says("withdrawn while the gate is closed", PATIENCE);
    stays("closed gate", TTL + 2 * SLACK, &false, || is_there(&etcd));
    assert_eq!(daemon.lines("no renewal for a TTL"), Vec::<String>::new());
    assert_eq!(daemon.lines("no endpoint of etcd answers").len(), 1, "{}", daemon.stderr());
}

/// The alarm itself is still there.
#[test]
fn renewal_that_fails_for_a_ttl_is_told() {
    let etcd = Etcd::start();
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    etcd.freeze();
    daemon.says("no renewal for a TTL", TTL * 2 + SLACK);
    assert_eq!(daemon.ended(), None);
}
