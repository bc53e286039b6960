//! What the engine does to a container, and what becomes of the key.

use std::time::Duration;

use crate::{
    sidekick::{sidekick, stop, tool},
    support::{
        AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK, TTL,
        engine::{Container, Network, run_docker},
        etcd::Etcd,
        eventually, key_of,
        observer::{Event, Observer, Raw},
    },
};

/// A sidekick that has announced h1, and who saw it.
struct Announced {
    // Dropped in this order: the network last.
    sidekick: Container,
    observer: Observer,
    etcd: Etcd,
    _network: Network,
    put: Event,
}

impl Announced {
    fn start() -> Self {
        let network = Network::create();
        let (etcd, url) = network.etcd();
        let observer = Observer::start(&etcd);
        let sidekick = sidekick(&network, "h1", &url, &[]);
        sidekick.start();
        let put = observer.next_put(&key_of("h1"), 0, PATIENCE);
        Self { sidekick, observer, etcd, _network: network, put }
    }
}

#[test]
fn docker_stop_withdraws_the_key_at_once() {
    let Announced { sidekick, etcd, put, .. } = &Announced::start();
    assert_eq!(put.value, DEFAULT_VALUE);
    // Well under the grace period of 10 s, after which docker kills.
    let (took, code) = stop(sidekick);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(code, "0", "{}", sidekick.logs());
    assert_eq!(etcd.key(&key_of("h1")), None);
    assert_eq!(etcd.leases(), [0; 0]);
}

#[test]
fn docker_kill_leaves_the_key_to_its_lease() {
    let Announced { sidekick, observer, put, .. } = &Announced::start();
    run_docker(&["kill", sidekick.name()]);
    observer.next_delete(&key_of("h1"), put.revision, TTL + AT_ONCE + SLACK);
}

#[test]
fn docker_pause_longer_than_the_ttl_is_got_over() {
    let Announced { sidekick, observer, put, .. } = &Announced::start();
    run_docker(&["pause", sidekick.name()]);
    let delete = observer.next_delete(&key_of("h1"), put.revision, TTL + AT_ONCE + SLACK);
    run_docker(&["unpause", sidekick.name()]);
    observer.next_put(&key_of("h1"), delete.revision, AT_ONCE + SLACK);
}

#[test]
fn docker_restart_withdraws_and_announces_again() {
    let Announced { sidekick, observer, put, .. } = &Announced::start();
    run_docker(&["restart", sidekick.name()]);
    let delete = observer.next_delete(&key_of("h1"), put.revision, PATIENCE);
    let back = observer.next_put(&key_of("h1"), delete.revision, PATIENCE);
    assert_ne!(back.lease, put.lease);
}

#[test]
fn health_check_tells_a_missing_key_from_an_absent_etcd() {
    let network = Network::create();
    let (mut etcd, url) = network.etcd();
    let observer = Observer::start(&etcd);
    // Nothing listens there: the gate stays closed.
    let closed = ["--env", "CRATE_DISCOVERY_CHECK=tcp://127.0.0.1:9"];
    let waits = sidekick(&network, "h2", &url, &closed);
    let sidekick = sidekick(&network, "h1", &url, &[]);
    waits.start();
    sidekick.start();
    observer.next_put(&key_of("h1"), 0, PATIENCE);
    let check = ["/crate-discovery", "status", "--self"];
    assert!(sidekick.exec(&check).contains("h1\t-\t4200\t4300"));
    let said = waits.try_exec(&check).unwrap_err();
    assert!(said.contains("error: h2 is not announced"), "{said}");
    etcd.kill();
    // No failure, for either.
    sidekick.exec(&check);
    waits.exec(&check);
}

/// So many hosts in 16 MB, and no more: without swap, an excess ends the process.
const MANY: usize = 10_000;

/// An etcd with [`MANY`] hosts, and its URL on the network.
fn crowded(network: &Network) -> (Etcd, String) {
    let (etcd, url) = network.etcd();
    let host = |n| key_of(&format!("crate-{n:05}.example.com"));
    Raw::connect(&etcd).put_all((0..MANY).map(|n| (host(n), DEFAULT_VALUE.to_owned())));
    (etcd, url)
}

#[test]
fn ten_thousand_hosts_are_listed_in_16_megabytes() {
    let network = Network::create();
    let (_etcd, url) = crowded(&network);
    let sidekick = sidekick(&network, "h1", &url, &[]);
    let limits = sidekick.inspect("{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}");
    assert_eq!(limits, "16777216 16777216");
    sidekick.start();
    eventually("announced", PATIENCE, || sidekick.try_exec(&["/crate-discovery", "status", "--self"]));
    // In the same 16 MB as the announcer: an excess ends one of the two.
    let listed = sidekick.exec(&["/crate-discovery", "hosts", "--format", "lines"]);
    assert_eq!(listed.lines().count(), MANY + 1);
    assert_eq!(sidekick.inspect("{{.State.Running}} {{.State.OOMKilled}}"), "true false");
}
#[test]
fn ten_thousand_hosts_are_followed_in_16_megabytes() {
    let network = Network::create();
    let (etcd, url) = crowded(&network);
    let follower = tool(&network, &url, &[], &["watch", "--format", "lines"]);
    follower.start();
    let lines_of = |what: &str| follower.logs().lines().filter(|line| line.contains(what)).count();
    eventually("the first snapshot", PATIENCE, || match lines_of("crate-") {
        MANY => Ok(()),
        n => Err(format!("{n} lines")),
    });
    for round in 1..=3 {
        etcd.etcdctl(&["put", &key_of(&format!("joined-{round}")), DEFAULT_VALUE]);
        eventually("the next snapshot", PATIENCE, || match lines_of(&format!("joined-{round}:")) {
            0 => Err("not there".to_owned()),
            _ => Ok(()),
        });
    }
    assert_eq!(follower.inspect("{{.State.Running}} {{.State.OOMKilled}}"), "true false");
    let (_, code) = stop(&follower);
    assert_eq!(code, "0", "{}", follower.logs().lines().last().unwrap_or_default());
}
