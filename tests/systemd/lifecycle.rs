//! Start, stop, boot: who comes when, and who goes first.

use std::time::Duration;

use crate::{
    IMAGE, NODE, SIDEKICK, endpoints,
    host::{Host, UNIT_PATIENCE},
    key,
    support::{
        DEFAULT_VALUE,
        engine::{Network, run_docker},
        eventually,
        observer::Observer,
        stays,
    },
};

#[test]
fn one_start_brings_up_both_and_the_key_comes_when_the_node_listens() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let observer = Observer::start(&etcd);
    let host = Host::boot(&network, "h1", &[&endpoints(&url)]);
    host.steer("listen-after=3000");
    host.systemctl(&["start", NODE]);
    host.becomes(SIDEKICK, "ActiveState", "active");
    host.becomes(
        SIDEKICK,
        "StatusText",
        "not announced: waiting for the node: tcp://127.0.0.1:4300: connection refused",
    );
    let put = observer.next_put(&key(), 0, UNIT_PATIENCE);
    assert_eq!(put.value, DEFAULT_VALUE);
    let listening = host.node_said("listening");
    assert!(listening[0] <= put.on_clock, "the node listened at {listening:?}, the key came at {put:?}");

    let line = eventually("systemctl status shows how things are", UNIT_PATIENCE, || {
        let status = host.systemctl(&["status", SIDEKICK]);
        let line = status.lines().find(|line| line.trim_start().starts_with("Status: ")).map(str::to_owned);
        line.filter(|line| line.contains("renewed")).ok_or(status)
    });
    let lease = etcd.key(&key()).expect("announced").lease;
    let shown =
        format!("announced {} · lease {lease:x} · etcd {} · renewed ", key(), url.replace("http://", ""));
    assert!(line.contains(&shown), "{line}, not {shown}");
}

#[test]
fn stop_takes_the_key_away_before_the_node_is_told() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let observer = Observer::start(&etcd);
    let host = Host::boot(&network, "h1", &[&endpoints(&url)]);
    host.systemctl(&["start", NODE]);
    let put = observer.next_put(&key(), 0, UNIT_PATIENCE);

    // Etcd takes its time. The two stop one after the other, not merely one faster than the other.
    etcd.freeze();
    host.systemctl(&["stop", "--no-block", NODE]);
    host.becomes(SIDEKICK, "ActiveState", "deactivating");
    stays("the node is not told yet", Duration::from_secs(2), &0, || host.node_said("SIGTERM").len());
    etcd.thaw();
    let delete = observer.next_delete(&key(), put.revision, UNIT_PATIENCE);
    host.becomes(NODE, "ActiveState", "inactive");
    let told = host.node_said("SIGTERM");
    assert_eq!(told.len(), 1, "{}", host.journal(NODE));
    assert!(delete.on_clock <= told[0], "the key went at {delete:?}, the node was told at {told:?}");
    assert_eq!(host.node_said("ended").len(), 1, "the node was given the time to end");
    for unit in [NODE, SIDEKICK, IMAGE] {
        host.ended_well(unit);
    }
    assert_eq!(host.containers(), "");
    assert!(host.journal(SIDEKICK).contains("withdrawn"), "{}", host.journal(SIDEKICK));
}

#[test]
fn reboot_withdraws_and_everything_returns() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let observer = Observer::start(&etcd);
    // With the default TTL of 60 s: a key that merely expired would be seen much later.
    let host = Host::boot(&network, "h1", &[&endpoints(&url)]);
    host.systemctl(&["enable", "--now", NODE]);
    let put = observer.next_put(&key(), 0, UNIT_PATIENCE);

    run_docker(&["restart", "--time", "60", host.container().name()]);
    let delete = observer.next_delete(&key(), put.revision, Duration::from_secs(1));
    let back = observer.next_put(&key(), delete.revision, UNIT_PATIENCE);
    assert_ne!(back.lease, put.lease);
    host.has_booted();
    assert_eq!(host.containers(), "crate-1");
    let told = host.node_said("SIGTERM");
    assert!(delete.on_clock <= told[0], "the key went at {delete:?}, the node was told at {told:?}");
}

#[test]
fn absent_etcd_fails_no_unit_at_start_and_none_at_stop() {
    let network = Network::create();
    let mut etcd = network.etcd_to_be();
    let host = Host::boot(&network, "h1", &[&endpoints(&network.url(&etcd)), "CRATE_DISCOVERY_TTL=10s"]);
    host.systemctl(&["start", NODE]);
    host.becomes(SIDEKICK, "ActiveState", "active");
    let waits =
        format!("not announced: etcd {}: connection refused", network.url(&etcd).replace("http://", ""));
    host.becomes(SIDEKICK, "StatusText", &waits);
    assert_eq!(host.property(NODE, "ActiveState"), "active", "the node runs without a list of peers");

    etcd.launch();
    assert!(etcd.comes_up());
    let observer = Observer::start(&etcd);
    observer.next_put(&key(), 0, UNIT_PATIENCE);

    etcd.freeze();
    host.systemctl(&["stop", NODE]);
    host.ended_well(NODE);
    host.ended_well(SIDEKICK);
    etcd.thaw();
    let said = host.journal(SIDEKICK);
    assert!(said.contains("error: failed to withdraw \"/services/crate/h1\" within 5s"), "{said}");
}
