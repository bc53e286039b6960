//! Row 28: an etcd that is slow, far away or half dead when we are told to end.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    key,
    login::{Login, RIGHT},
    support::{
        PATIENCE, PREFIX, SLACK,
        daemon::{Daemon, tool},
        etcd::Etcd,
        eventually, key_of,
        proxy::{Mode, Proxy, Refusing},
    },
};

/// How long a withdrawal may take, unless it is told otherwise.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// So long is the way, at the longest, in either direction.
const FAR: Duration = Duration::from_secs(1);

fn announce(endpoints: &[String], args: &[&str]) -> Daemon {
    let mut command = tool();
    command
        .args(["announce", "--host", "h1", "--ttl", "60s", "--endpoints", &endpoints.join(",")])
        .args(args);
    Daemon::spawn(command)
}

#[track_caller]
fn withdraws(etcd: &Etcd, mut daemon: Daemon, what: &str) {
    let asked = Instant::now();
    assert_eq!(daemon.end(Signal::TERM, STOP_TIMEOUT + SLACK), 0, "{what}");
    println!("{what}: withdrawn after {} ms", asked.elapsed().as_millis());
    assert_eq!((etcd.key(&key()), etcd.leases()), (None, vec![]), "{what}");
}

#[test]
fn etcd_that_is_slow_at_sigterm_is_given_its_time() {
    let etcd = Etcd::start();
    for delay in [Duration::from_millis(450), FAR] {
        let proxy = Proxy::start(etcd.port());
        let mut daemon = announce(&[proxy.url()], &[]);
        daemon.says("announced", PATIENCE);
        proxy.set(Mode::Delay(delay));
        withdraws(&etcd, daemon, &format!("one endpoint, {delay:?} each way"));
    }
}

/// The one in use is dead or slow, one of the others is slow, the last one is dead.
#[test]
fn etcd_whose_other_endpoints_are_dead_is_given_its_time() {
    let etcd = Etcd::start();
    for (used, other) in [
        (Mode::Delay(FAR), Mode::BlackHole),
        (Mode::BlackHole, Mode::Delay(FAR)),
        (Mode::Cut, Mode::Delay(FAR)),
        (Mode::Stall, Mode::Delay(Duration::from_millis(450))),
    ] {
        let proxies: Vec<Proxy> = (0..2).map(|_| Proxy::start(etcd.port())).collect();
        let dead = Refusing::open();
        let mut daemon = announce(&[proxies[0].url(), proxies[1].url(), dead.url()], &[]);
        daemon.says("announced", PATIENCE);
        let open = eventually("one is in use", PATIENCE, || match (proxies[0].open(), proxies[1].open()) {
            (1.., 0) => Ok(0),
            (0, 1..) => Ok(1),
            open => Err(format!("{open:?}")),
        });
        proxies[open].set(used);
        proxies[1 - open].set(other);
        withdraws(&etcd, daemon, &format!("in use {used:?}, another one {other:?}, the third refuses"));
    }
}

/// A claim on a long way takes 2 s for the look, 2 s for the grant and 2 s for the put.
#[test]
fn sigterm_while_a_grant_or_a_put_is_on_its_way_leaves_nothing() {
    let etcd = Etcd::start();
    let starts = [500, 2500, 3500, 4500, 5500].map(|millis| {
        let proxy = Proxy::start(etcd.port());
        proxy.set(Mode::Delay(FAR));
        let daemon = announce(&[proxy.url()], &["--stop-timeout", "15s"]);
        (Instant::now(), Duration::from_millis(millis), proxy, daemon)
    });
    let mut running = starts.map(|(start, after, proxy, daemon)| {
        sleep((start + after).saturating_duration_since(Instant::now()));
        daemon.signal(Signal::TERM);
        (after, Instant::now(), proxy, daemon)
    });
    for (after, asked, _, daemon) in &mut running {
        assert_eq!(daemon.wait(Duration::from_secs(15) + SLACK), 0, "SIGTERM after {after:?}");
        println!("SIGTERM {after:?} after the start: ended within {:?}", asked.elapsed());
    }
    // What was on its way may come later.
    sleep(2 * FAR + SLACK);
    assert_eq!((etcd.key(&key()), etcd.leases()), (None, vec![]));
}

/// Somebody attached a key to our lease that our role may not delete: etcd refuses to revoke it.
#[test]
fn key_is_deleted_where_the_lease_may_not_be_revoked() {
    let mut etcd = Etcd::start();
    let own = [vec!["readwrite", PREFIX, "--prefix"]];
    let own: Vec<&[&str]> = own.iter().map(Vec::as_slice).collect();
    etcd.enable_auth(&[("h1", RIGHT, &own)]);
    let login = Login::with(RIGHT);
    let mut daemon = login.announce(&etcd, &[]);
    daemon.says("announced", PATIENCE);
    let lease = etcd.key(&key()).expect("announced").lease;
    etcd.etcdctl(&["put", "/theirs", "x", "--lease", &format!("{lease:x}")]);
    etcd.etcdctl(&["put", &key_of("h2"), "{}"]);
    assert_eq!(daemon.end(Signal::TERM, STOP_TIMEOUT + SLACK), 0);
    assert_eq!(etcd.key(&key()), None);
    assert_eq!(etcd.key("/theirs").map(|stored| stored.lease), Some(lease));
    assert!(etcd.key(&key_of("h2")).is_some());
    // It ends with its lease, which nobody keeps alive any more.
    eventually("the lease ends", PATIENCE, || match etcd.key("/theirs") {
        None => Ok(()),
        Some(stored) => Err(format!("{stored:?}")),
    });
}
