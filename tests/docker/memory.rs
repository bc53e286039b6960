//! Row 33: 16 MB are enough, whatever lies in etcd and whatever etcd says.

use std::{
    fs,
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    sidekick::tool,
    support::{
        DEFAULT_VALUE, PATIENCE, dns,
        engine::{Container, Network},
        eventually,
        false_etcd::{FalseEtcd, Lie},
        key_of,
        observer::Raw,
    },
};

/// In bytes; what [`crate::sidekick::CONFINED`] allows.
const LIMIT: u64 = 16 * 1024 * 1024;
/// A list of all that may take four attempts, and the machine is busy.
const LONG: Duration = Duration::from_secs(90);

/// A sidekick that announces h1 and answers SRV.
fn with_feed(network: &Network, url: &str) -> (Container, SocketAddr) {
    let args = ["--env", "CRATE_DISCOVERY_HOST=h1", "--env", "CRATE_DISCOVERY_SRV=0.0.0.0:5399"];
    let container = tool(network, url, &args, &[]);
    container.start();
    let server = format!("{}:5399", network.address_of(&container)).parse().unwrap();
    (container, server)
}

/// It runs, was not killed for its memory, and stayed within it. Gives the peak of what was resident.
#[track_caller]
fn lives(container: &Container, what: &str) -> u64 {
    let state = container.inspect("{{.State.Running}} {{.State.OOMKilled}} {{.RestartCount}}");
    assert_eq!(state, "true false 0", "{what}: {}", container.logs());
    let status = fs::read_to_string(format!("/proc/{}/status", container.inspect("{{.State.Pid}}"))).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let peak = 1024 * kib("VmHWM:");
    println!("{what}: {peak} bytes at most, {} bytes of log", container.logs().len());
    assert!(peak < LIMIT, "{what}: {peak}");
    assert!(container.logs().len() < 60_000, "{what}: {}", container.logs().len());
    peak
}

/// A hundred values of 1.4 MB with control characters inside, ten thousand hosts, and small junk: 100,000 keys, ours among
/// them. One key more is too many for a list, and no business of the announcement.
#[test]
fn sidekick_of_sixteen_megabytes_lives_beside_a_hundred_thousand_keys() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let mut raw = Raw::connect(&etcd);
    let large: Vec<u8> = b"\x1b[31m\x07\0\n\xc2\x9b".iter().copied().cycle().take(1_400_000).collect();
    for i in 0..100 {
        raw.put(key_of(&format!("large-{i:03}")).as_bytes(), &large);
    }
    let hosts = (0..10_000).map(|i| (key_of(&format!("node-{i:05}.example.org")), DEFAULT_VALUE.to_owned()));
    raw.put_all(hosts);
    raw.put_all((0..89_899).map(|i| (key_of(&format!("junk/{i}")), "\u{1b}".to_owned())));

    let (sidekick, server) = with_feed(&network, &url);
    let started = Instant::now();
    eventually("it is announced", PATIENCE, || etcd.key(&key_of("h1")).ok_or_else(|| sidekick.logs()));
    // As many as a DNS message holds.
    eventually("hosts are served", LONG, || match dns::seeds(server)?.len() {
        seeds if seeds > 1000 => Ok(()),
        seeds => Err(format!("{seeds} seeds")),
    });
    println!("100,000 keys: served after {:?}", started.elapsed());
    lives(&sidekick, "100,000 keys, a hundred values of 1.4 MB");
    // On a busy machine a list of all takes longer than the four attempts of 5 s that it has.
    let asking = tool(&network, &url, &[], &["hosts", "--format", "lines", "--request-timeout", "20s"]);
    asking.start();
    asking.has_ended(LONG);
    assert_eq!(asking.inspect("{{.State.ExitCode}} {{.State.OOMKilled}}"), "0 false", "{}", asking.logs());
    assert_eq!(asking.logs().lines().filter(|line| line.ends_with(":4300")).count(), 10_001);

    raw.put(key_of("one-more").as_bytes(), b"x");
    let (other, server) = with_feed(&network, &url);
    eventually("it says why it has no list", LONG, || {
        let logs = other.logs();
        if logs.contains("there are more than 100000 keys under the prefix") { Ok(()) } else { Err(logs) }
    });
    assert!(dns::seeds(server).is_err(), "no list is no empty list");
    assert!(other.logs().contains(" announced "), "{}", other.logs());
    lives(&other, "100,001 keys");
    lives(&sidekick, "100,001 keys after 100,000");
}

#[test]
fn sidekick_of_sixteen_megabytes_lives_when_etcd_lies() {
    let network = Network::create();
    let lies = [Lie::EndlessHosts, Lie::EndlessList, Lie::StuckList, Lie::Repeated, Lie::LongReason];
    let sidekicks: Vec<_> = lies
        .into_iter()
        .map(|lie| {
            let etcd = FalseEtcd::start_at(network.gateway(), lie);
            let (container, _) = with_feed(&network, &etcd.url());
            (lie, etcd, container)
        })
        .collect();
    sleep(Duration::from_secs(20));
    for (lie, etcd, container) in &sidekicks {
        assert!(etcd.asked() > 0, "{lie:?}");
        lives(container, &format!("{lie:?}"));
    }
}
