//! The SRV feed beside a real announcer and on a real etcd; what an answer may hold is in `tests/srv`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    delete, put,
    support::{
        AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK, TTL,
        daemon::{Daemon, announce, watch},
        dns::seeds,
        etcd::Etcd,
        eventually, eventually_eq, free_port,
        greedy::Greedy,
        key_of,
        observer::Raw,
        stays,
        witness::Witness,
    },
};

/// An address for `--srv`, and the same as text.
fn address() -> (SocketAddr, String) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    (address, address.to_string())
}

fn answered(hosts: &[&str]) -> Result<Vec<String>, String> {
    Ok(hosts.iter().map(|host| format!("{host}:4300")).collect())
}

#[track_caller]
fn answers(server: SocketAddr, hosts: &[&str], within: Duration) {
    eventually_eq("the answer", within, &answered(hosts), || seeds(server));
}

#[test]
fn joins_and_leaves_reach_the_answers_of_announce_and_of_watch() {
    let etcd = Etcd::start();
    let ((beside, beside_arg), (alone, alone_arg)) = (address(), address());
    let mut announcer = Daemon::announced(&etcd, "h1", &["--srv", &beside_arg]);
    let _watcher = Daemon::spawn(watch(&etcd, &["--srv", &alone_arg]));
    for server in [beside, alone] {
        answers(server, &["h1"], PATIENCE);
    }
    put(&etcd, &["10.0.0.5", "h2"]);
    for server in [beside, alone] {
        answers(server, &["10.0.0.5", "h1", "h2"], AT_ONCE + SLACK);
    }
    delete(&etcd, &["h2"]);
    for server in [beside, alone] {
        answers(server, &["10.0.0.5", "h1"], AT_ONCE + SLACK);
    }
    // The feed neither holds up the end nor is it heard of after that.
    assert_eq!(announcer.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&key_of("h1")), None);
    assert!(seeds(beside).is_err());
    answers(alone, &["10.0.0.5"], AT_ONCE + SLACK);
}

#[test]
fn answers_stay_while_etcd_is_away() {
    let mut etcd = Etcd::start();
    put(&etcd, &["a", "b"]);
    let (server, arg) = address();
    let mut watcher = Daemon::spawn(watch(&etcd, &["--srv", &arg]));
    answers(server, &["a", "b"], PATIENCE);
    etcd.kill();
    watcher.says("the hosts are stale", PATIENCE);
    stays("the answer", SLACK, &answered(&["a", "b"]), || seeds(server));
    etcd.restart();
    put(&etcd, &["c"]);
    answers(server, &["a", "b", "c"], PATIENCE);
}

#[test]
fn nothing_read_yet_is_a_failure_and_not_nobody() {
    let mut etcd = Etcd::unstarted(&[], false);
    let (server, arg) = address();
    let mut announcer = Daemon::spawn(announce(&etcd, "h1", &["--srv", &arg]));
    announcer.says("no endpoint of etcd answers", PATIENCE);
    assert_eq!(seeds(server), Err("Server Failure".to_owned()));
    etcd.launch();
    assert!(etcd.comes_up());
    answers(server, &["h1"], PATIENCE);
}

#[test]
fn taken_port_is_said_once_and_costs_the_announcement_nothing() {
    let etcd = Etcd::start();
    let (server, arg) = address();
    let holder = std::net::TcpListener::bind(server).unwrap();
    let mut announcer = Daemon::announced(&etcd, "h1", &["--srv", &arg]);
    let said = announcer.says("feeds: no SRV answers yet", PATIENCE);
    let sentence = format!("failed to listen on \"--srv\" address {arg} over TCP: address already in use");
    assert!(said.contains(&sentence), "{said}");
    drop(holder);
    answers(server, &["h1"], PATIENCE);
    assert_eq!(announcer.lines("feeds: no SRV answers yet").len(), 1, "{}", announcer.stderr());
}

#[test]
fn pipelining_clients_and_a_flood_delay_no_renewal() {
    let etcd = Etcd::start();
    let (server, arg) = address();
    let mut announcer = Daemon::announced(&etcd, "h1", &["--srv", &arg]);
    let witness = Witness::start(std::slice::from_ref(&etcd), &key_of("h1"));
    let everybody =
        (0..10_000).map(|i| (key_of(&format!("node-{i:05}.crate.example.org")), DEFAULT_VALUE.to_owned()));
    Raw::connect(&etcd).put_all(everybody);
    eventually("answers are full", PATIENCE, || match seeds(server)?.len() {
        1000.. => Ok(()),
        few => Err(format!("{few} hosts")),
    });
    let greedy = Greedy::start(server, 30);
    let lease = etcd.key(&key_of("h1")).unwrap().lease;
    let began = Instant::now();
    while began.elapsed() < 4 * TTL {
        // "lease 694d… granted with TTL(5s), remaining(4s)": it is renewed every third of the TTL.
        let told = etcd.lease(lease);
        let left =
            told.split("remaining(").nth(1).and_then(|rest| rest.split('s').next()?.parse::<u64>().ok());
        assert!(left.is_some_and(|left| left >= 2), "{told}");
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(greedy);
    assert_eq!(witness.worst_absence(), Duration::ZERO);
    assert_eq!(witness.history().len(), 1, "the key was written again");
    assert_eq!(announcer.lines("endpoint left"), Vec::<String>::new());
    assert_eq!(announcer.end(Signal::TERM, AT_ONCE + SLACK), 0);
}
