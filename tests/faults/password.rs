//! A node that wants a password: read anew for each probe, never in the way, never shown.

use std::{fs, process::Command};

use crate::support::{
    AT_ONCE, PATIENCE,
    daemon::{Daemon, announce},
    etcd::{Etcd, arg, scratch},
    eventually_eq, key_of,
    node::{FakeNode, Manner, cratedb, locked},
    stays,
};

const PASSWORD: &str = "hunter2";
/// The base64 of `check:hunter2`.
const PAIR: &str = "Y2hlY2s6aHVudGVyMg==";
/// The base64 of `check:rotated`.
const ROTATED: &str = "Y2hlY2s6cm90YXRlZA==";
const REFUSED: &str = "the node refuses user and password of the checks";
const UNREADABLE: &str = "cannot read the password of the checks";

fn asking(etcd: &Etcd, node: &FakeNode, file: &str, more: &[&str]) -> Command {
    let check = node.cratedb();
    let args = [
        "--check-interval",
        "50ms",
        "--check",
        &check,
        "--check-user",
        "check",
        "--check-password-file",
        file,
    ];
    announce(etcd, "h1", &[&args[..], more].concat())
}

fn formed(etcd: &Etcd) -> bool {
    etcd.key("/services/crate.meta/bootstrap/formed").is_some()
}

/// Neither password, in clear or as it is sent.
fn shows_no_secret(daemon: &Daemon) {
    let shown = daemon.stderr() + &fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
    for secret in [PASSWORD, PAIR, "rotated", ROTATED] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn password_is_read_anew_for_each_probe_and_never_shown() {
    let (etcd, dir) = (Etcd::start(), scratch());
    let file = dir.path().join("password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let node = FakeNode::start(Manner::Answers(locked()));
    node.unlock(PAIR, cratedb(200, "crate"));
    let mut command = asking(&etcd, &node, arg(&file), &["--log", "trace"]);
    command.env("RUST_BACKTRACE", "1");
    let mut daemon = Daemon::spawn(command);
    daemon.says("announced", PATIENCE);
    eventually_eq("it knows the node", PATIENCE, &true, || formed(&etcd));
    assert_eq!(daemon.lines(REFUSED).len(), 0, "{}", daemon.stderr());

    // The node's comes first: a rotated password closes no gate.
    node.unlock(ROTATED, cratedb(200, "crate"));
    daemon.says(REFUSED, PATIENCE);
    node.is_asked(10);
    assert_eq!(daemon.lines(REFUSED).len(), 1, "{}", daemon.stderr());
    fs::write(&file, "rotated").unwrap();
    eventually_eq("the new one is sent", PATIENCE, &true, || node.asked_last().contains(ROTATED));
    node.is_asked(3);
    node.unlock(PAIR, cratedb(200, "crate"));
    daemon.says_times(REFUSED, 2, PATIENCE);
    assert_eq!(daemon.lines("gate closed").len(), 0, "{}", daemon.stderr());
    shows_no_secret(&daemon);
}

#[test]
fn file_that_cannot_be_read_is_no_bad_probe_and_is_said_when_the_reason_changes() {
    let (etcd, dir) = (Etcd::start(), scratch());
    let file = dir.path().join("password");
    let node = FakeNode::start(Manner::Answers(locked()));
    node.unlock(PAIR, cratedb(200, "crate"));
    let mut daemon = Daemon::spawn(asking(&etcd, &node, arg(&file), &[]));
    daemon.says("announced", PATIENCE);
    let before = etcd.key(&key_of("h1"));
    let says = |daemon: &mut Daemon, times: usize, reason: &str| {
        let line = daemon.says_times(UNREADABLE, times, PATIENCE).pop().unwrap();
        assert!(line.contains(reason) && line.contains(arg(&file)), "{line}");
        node.is_asked(5);
        assert_eq!(daemon.lines(UNREADABLE).len(), times, "{}", daemon.stderr());
        assert!(!node.asked_last().contains("Authorization"));
    };
    says(&mut daemon, 1, "no such file or directory");
    fs::write(&file, "\n").unwrap();
    says(&mut daemon, 2, "it is empty");
    // Each takes the place of the other at once: a probe in between would find none.
    let beside = dir.path().join("beside");
    // A pipe that nobody writes to would hang whoever reads it.
    assert!(Command::new("mkfifo").arg(&beside).status().unwrap().success());
    fs::rename(&beside, &file).unwrap();
    says(&mut daemon, 3, "it is no regular file");
    assert!(!formed(&etcd));
    fs::write(&beside, PASSWORD).unwrap();
    fs::rename(&beside, &file).unwrap();
    eventually_eq("it knows the node", PATIENCE, &true, || formed(&etcd));
    fs::remove_file(&file).unwrap();
    says(&mut daemon, 4, "no such file or directory");
    assert_eq!(etcd.key(&key_of("h1")), before);
    assert_eq!(daemon.lines(REFUSED).len() + daemon.lines("the node wants").len(), 0, "{}", daemon.stderr());
    shows_no_secret(&daemon);
}

#[test]
fn password_that_leaves_the_machine_is_warned_about() {
    let (etcd, dir) = (Etcd::start(), scratch());
    let file = dir.path().join("password");
    fs::write(&file, PASSWORD).unwrap();
    // Connecting to this address is connecting to this machine, but who would promise that?
    for (scheme, warning) in
        [("crate", "goes in clear to another machine"), ("crate+https", "judges no certificate")]
    {
        for (host, warned) in [("0.0.0.0", true), ("127.0.0.1", false), ("localhost", false)] {
            let check = format!("{scheme}://{host}:{}", FakeNode::closed().port());
            let args = ["--check", &check, "--check-user", "check", "--check-password-file", arg(&file)];
            let mut daemon = Daemon::announce(&etcd, "h1", &args);
            daemon.says("starting", PATIENCE);
            assert_eq!(daemon.stderr().contains(warning), warned, "{check}: {}", daemon.stderr());
            shows_no_secret(&daemon);
        }
    }
}

#[test]
fn password_goes_to_checks_of_cratedb_alone() {
    let (etcd, dir) = (Etcd::start(), scratch());
    let file = dir.path().join("password");
    fs::write(&file, PASSWORD).unwrap();
    let (node, other) = (FakeNode::serving(), FakeNode::serving());
    let http = other.http();
    let mut daemon = Daemon::spawn(asking(&etcd, &node, arg(&file), &["--check", &http]));
    daemon.says("announced", PATIENCE);
    stays("no password", AT_ONCE, &(true, false), || {
        (node.asked_last().contains(PAIR), other.asked_last().contains("Authorization"))
    });
}
