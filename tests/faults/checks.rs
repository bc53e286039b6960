//! Checks that ask CrateDB itself: what is good, and what is said of what is not.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    AT_ONCE, PATIENCE, SLACK,
    daemon::{Daemon, field},
    etcd::Etcd,
    eventually_eq, key_of,
    node::{FakeNode, Manner, answer, cratedb, locked},
    stays,
};

const QUICK: [&str; 6] = ["--check-interval", "50ms", "--check-timeout", "500ms", "--fall", "2"];
/// Two probes, each with all of its time, and the withdrawal.
const WITHDRAWN: Duration = Duration::from_millis(2 * 550 + 1000).saturating_add(SLACK);

fn gated(etcd: &Etcd, check: &str, more: &[&str]) -> Daemon {
    Daemon::announce(etcd, "h1", &[&QUICK[..], &["--check", check], more].concat())
}

fn is_there(etcd: &Etcd) -> bool {
    etcd.key(&key_of("h1")).is_some()
}

/// The reasons that were said since the start, in order.
fn reasons(daemon: &Daemon, check: &str) -> Vec<String> {
    let lines = daemon.lines("waiting for the node");
    lines
        .iter()
        .map(|line| {
            // Quotes within it are escaped.
            let (_, reason) = line.split_once(&format!("reason=\"{check}: ")).expect(line);
            reason.trim_end().strip_suffix('"').expect(line).replace("\\\"", "\"")
        })
        .collect()
}

#[test]
fn gate_says_each_new_reason_once() {
    let etcd = Etcd::start();
    let node = FakeNode::closed();
    let check = node.cratedb();
    let mut daemon = gated(&etcd, &check, &["--cluster-name", "ours"]);
    let manners = [
        (Manner::Closed, "connection refused"),
        (Manner::HangsUp, "closed without an answer"),
        (
            Manner::AnswersAndStays(b"\x15\x03\x01\x00\x02\x02\x46".to_vec()),
            "it speaks TLS: use crate+https://",
        ),
        (
            Manner::Answers(answer(400, "java.lang.NullPointerException")),
            "answered 400, which is not CrateDB's word for a node that can be joined",
        ),
        (
            Manner::Answers(answer(200, "up 1\n")),
            "it is no CrateDB: what it answered with 200 is not CrateDB's",
        ),
        (Manner::Answers(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "it is no CrateDB: it speaks no HTTP"),
        (Manner::Answers(cratedb(200, "theirs")), "the node belongs to cluster \"theirs\", not \"ours\""),
        (Manner::Silent, "no answer in time"),
    ];
    let mut expected = Vec::new();
    for (manner, reason) in manners {
        node.behave(manner.clone());
        expected.push(reason.to_owned());
        daemon.says_times("waiting for the node", expected.len(), PATIENCE);
        // Longer than many probes.
        stays("each is said once", Duration::from_millis(700), &expected, || reasons(&daemon, &check));
        assert!(!is_there(&etcd));
    }
    node.behave(Manner::Answers(locked()));
    daemon.says("gate opened", PATIENCE);
    daemon.says("announced", PATIENCE);
    daemon.says("the node wants a password", AT_ONCE);
    node.is_asked(10);
    assert_eq!(daemon.lines("the node wants a password").len(), 1, "{}", daemon.stderr());
    assert_eq!(reasons(&daemon, &check), expected);

    // What was said is said again when it comes again: the gate was open in between.
    node.behave(Manner::HangsUp);
    let line = daemon.says("gate closed", WITHDRAWN);
    assert_eq!(field(&line, "reason"), Some(format!("{check}: closed without an answer")));
    stays("said once", Duration::from_millis(700), &expected, || reasons(&daemon, &check));
    node.behave(Manner::Closed);
    daemon.says_times("waiting for the node", expected.len() + 1, PATIENCE);
}

#[test]
fn reasons_that_flap_fill_no_log() {
    let etcd = Etcd::start();
    let node = FakeNode::start(Manner::InTurn(vec![
        Manner::HangsUp,
        Manner::Answers(answer(400, "")),
        Manner::Answers(answer(404, "")),
    ]));
    let check = node.cratedb();
    let args = ["--check-interval", "1ms", "--check", &check];
    let daemon = Daemon::announce(&etcd, "h1", &args);
    node.is_asked(100);
    let lines = daemon.lines("waiting for the node").len();
    assert!((3..=12).contains(&lines), "{lines} lines: {}", daemon.stderr());
}

/// A cluster forms only if nodes are announced before a master is elected.
#[test]
fn cratedb_is_announced_with_and_without_a_master_and_behind_a_password() {
    let etcd = Etcd::start();
    for good in [cratedb(503, "crate"), cratedb(200, "crate"), locked()] {
        let node = FakeNode::start(Manner::Answers(good));
        let mut daemon = gated(&etcd, &node.cratedb(), &["--cluster-name", "crate"]);
        daemon.says("announced", PATIENCE);
        let before = etcd.key(&key_of("h1"));
        node.is_asked(10);
        assert_eq!(etcd.key(&key_of("h1")), before);
        let request = node.asked_last();
        assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
        for header in ["User-Agent: crate-discovery", "Accept: application/json", "Connection: close"] {
            assert!(request.contains(&format!("\r\n{header}\r\n")), "{request}");
        }
        assert!(request.contains(&format!("\r\nHost: 127.0.0.1:{}\r\n", node.port())), "{request}");
        assert!(!request.contains("Authorization"), "{request}");
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    }
}

/// For a moment before it can be joined CrateDB answers 400; and a frozen one accepts and is silent.
#[test]
fn node_that_answers_400_or_nothing_is_withdrawn() {
    let etcd = Etcd::start();
    for bad in [
        Manner::Answers(answer(400, "java.lang.NullPointerException")),
        Manner::Answers(answer(404, "")),
        Manner::Silent,
        Manner::HangsUp,
        Manner::Answers(cratedb(200, "theirs")),
        Manner::Answers(answer(200, &"x".repeat(100_000))),
    ] {
        let node = FakeNode::serving();
        let mut daemon = gated(&etcd, &node.cratedb(), &["--cluster-name", "crate"]);
        daemon.says("announced", PATIENCE);
        node.behave(bad);
        eventually_eq("withdrawn", WITHDRAWN, &false, || is_there(&etcd));
        node.serve();
        eventually_eq("announced", WITHDRAWN, &true, || is_there(&etcd));
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    }
}

#[test]
fn another_program_is_never_announced() {
    let etcd = Etcd::start();
    let foreign = [
        answer(200, "# TYPE up gauge\nup 1\n"),
        answer(200, "{}"),
        answer(
            200,
            r#"{"name":"crate1","cluster_name":"crate","cluster_uuid":"x","version":{"number":"8.1.0"},"tagline":"You Know, for Search"}"#,
        ),
        answer(503, ""),
        answer(401, ""),
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
    ];
    let nodes = foreign.map(|bytes| FakeNode::start(Manner::Answers(bytes)));
    let daemons: Vec<Daemon> = (0..nodes.len())
        .map(|n| {
            Daemon::announce(
                &etcd,
                &format!("h{n}"),
                &[&QUICK[..], &["--check", &nodes[n].cratedb()]].concat(),
            )
        })
        .collect();
    for node in &nodes {
        node.is_asked(5);
    }
    assert_eq!(etcd.announced(), Vec::<String>::new());
    for daemon in &daemons {
        let reason = field(&daemon.lines("waiting for the node")[0], "reason").unwrap();
        assert!(reason.contains("it is no CrateDB"), "{reason}");
    }
}

#[test]
fn cratedb_over_tls_is_asked_whatever_its_certificate() {
    let etcd = Etcd::start();
    let node = FakeNode::start(Manner::AnswersOverTls(cratedb(200, "crate")));
    let check = node.cratedb_over_tls();
    let mut daemon = gated(&etcd, &check, &[]);
    daemon.says("announced", PATIENCE);
    node.is_asked(5);
    // It lost its TLS.
    node.serve();
    let line = daemon.says("gate closed", WITHDRAWN);
    assert_eq!(field(&line, "reason"), Some(format!("{check}: it speaks no TLS: use crate://")));
    node.behave(Manner::Silent);
    daemon.says("waiting for the node", PATIENCE);
    assert_eq!(reasons(&daemon, &check), ["no answer in time"]);
    node.behave(Manner::AnswersOverTls(locked()));
    daemon.says_times("gate opened", 2, PATIENCE);
    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
}

/// A node logs a reset, and a check comes every two seconds.
#[test]
fn no_check_resets_a_connection() {
    let etcd = Etcd::start();
    let long = answer(200, &"x".repeat(50_000));
    for (manner, checks) in [
        (Manner::Answers(cratedb(200, "crate")), &[FakeNode::cratedb, FakeNode::http][..]),
        (Manner::AnswersAndStays(cratedb(200, "crate")), &[FakeNode::cratedb, FakeNode::http]),
        (Manner::Answers(locked()), &[FakeNode::cratedb]),
        (Manner::Answers(answer(400, "java.lang.NullPointerException")), &[FakeNode::cratedb]),
        (Manner::Answers(long), &[FakeNode::cratedb, FakeNode::http]),
        (Manner::AnswersOverTls(cratedb(200, "crate")), &[FakeNode::cratedb_over_tls, https]),
    ] {
        for check in checks {
            let node = FakeNode::start(manner.clone());
            let check = check(&node);
            let mut daemon = gated(&etcd, &check, &[]);
            node.is_asked(10);
            // The one that goes on now is cut off.
            assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
            let (ends, resets) = node.ends();
            assert!(ends >= 9 && resets <= 1, "{check}: {ends} orderly ends, {resets} resets, {manner:?}");
        }
    }
}

fn https(node: &FakeNode) -> String {
    node.http().replace("http", "https")
}
