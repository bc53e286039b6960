//! Row 30, of the node: a slow, silent or lying name service delays an opening, and closes no gate.

use std::{
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use crate::support::{
    AT_ONCE, PATIENCE, SLACK,
    daemon::{Daemon, copy_binary, field, tool_behind},
    etcd::{Etcd, arg, scratch},
    eventually_eq, key_of,
    net::{NameService, SilentPort},
    node::{FakeNode, Manner, cratedb},
    stays,
};

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// The checks of a node by its name: its port, and itself.
fn checks(node: &FakeNode) -> [String; 2] {
    let (name, port) = (NameService::NAME, node.port());
    [format!("tcp://{name}:{port}"), format!("crate://{name}:{port}")]
}

/// An announcer that asks this name service, once a tenth of a second whether the node is there.
fn announcer(etcd: &Etcd, names: &NameService, checks: &[String], more: &[&str]) -> Daemon {
    let mut command = names.tool();
    command.args(["announce", "--host", "h1", "--address", "127.0.0.1", "--endpoints", &etcd.url()]);
    command.args(["--check-interval", "100ms"]).args(more);
    command.args(checks.iter().flat_map(|check| ["--check", check]));
    Daemon::spawn(command)
}

fn is_there(etcd: &Etcd) -> bool {
    etcd.key(&key_of("h1")).is_some()
}

/// Gives reason to doubt the addresses, one bad probe at a time, until the name is looked up again.
fn is_looked_up_again(names: &NameService, node: &FakeNode) {
    let asked = names.asked();
    eventually_eq("the name is looked up again", PATIENCE, &true, || {
        node.hiccup(1);
        node.is_asked(2);
        names.asked() > asked
    });
}

#[test]
fn slow_name_service_delays_the_opening_by_one_lookup() {
    let etcd = Etcd::start();
    let node = FakeNode::serving();
    let delay = Duration::from_millis(5200);
    let names = NameService::start(&[HOME], delay);
    let start = Instant::now();
    let mut daemon = announcer(&etcd, &names, &checks(&node), &["--check-timeout", "1s"]);
    let line = daemon.says("waiting for the node", PATIENCE);
    let reason = format!("{}: the name {} is still being looked up", checks(&node)[0], NameService::NAME);
    assert_eq!(field(&line, "reason"), Some(reason));
    daemon.says("gate opened", 2 * delay);
    assert!(start.elapsed() >= delay, "{:?}", start.elapsed());
    assert_eq!(daemon.lines("waiting for the node").len(), 1, "{}", daemon.stderr());
    daemon.says("announced", AT_ONCE + SLACK);
    // Nothing is looked up inside a probe from now on.
    node.is_asked(30);
    assert_eq!(daemon.lines("gate closed").len(), 0, "{}", daemon.stderr());
}

#[test]
fn name_service_that_falls_silent_closes_no_gate() {
    let etcd = Etcd::start();
    let node = FakeNode::serving();
    let names = NameService::start(&[HOME], Duration::ZERO);
    let args = ["--check-timeout", "300ms", "--fall", "2"];
    let mut daemon = announcer(&etcd, &names, &checks(&node)[1..], &args);
    daemon.says("announced", PATIENCE);
    let before = etcd.key(&key_of("h1"));
    names.falls_silent();
    // A bad probe is a reason to look the name up again, once that is allowed.
    let start = Instant::now();
    is_looked_up_again(&names, &node);
    assert!(start.elapsed() > Duration::from_secs(3), "not at each bad probe: {:?}", start.elapsed());
    node.is_asked(30);
    assert_eq!(etcd.key(&key_of("h1")), before);
    assert_eq!(daemon.lines("gate closed").len(), 0, "{}", daemon.stderr());
}

#[test]
fn name_without_an_address_is_told_from_a_dead_node() {
    let etcd = Etcd::start();
    let node = FakeNode::serving();
    let names = NameService::start(&[], Duration::ZERO);
    let mut daemon = announcer(&etcd, &names, &checks(&node)[1..], &["--check-timeout", "300ms"]);
    let line = daemon.says("waiting for the node", PATIENCE);
    let reason = field(&line, "reason").unwrap();
    let expected = format!("{}: the name {} cannot be looked up: ", checks(&node)[1], NameService::NAME);
    assert!(reason.starts_with(&expected), "{reason}");
    assert!(!reason.contains("os error"), "{reason}");
    names.knows(&[HOME]);
    daemon.says("announced", PATIENCE);
    // It is gone again, and the node is not.
    names.knows(&[]);
    is_looked_up_again(&names, &node);
    stays("announced", Duration::from_secs(2), &(true, 0), || {
        (is_there(&etcd), daemon.lines("gate closed").len())
    });
}

#[test]
fn silent_address_beside_a_good_one_costs_no_probe() {
    let etcd = Etcd::start();
    let node = FakeNode::start_at(ELSEWHERE, Manner::Answers(cratedb(503, "crate")));
    // The system gives this machine's own address first (RFC 6724, rule 9), wherever it stands.
    let silent = [HOME, Ipv4Addr::new(127, 0, 0, 10), Ipv4Addr::new(127, 0, 0, 11)];
    let _silent = silent.map(|ip| SilentPort::start(ip, node.port()));
    let names = NameService::start(&[silent[0], silent[1], silent[2], ELSEWHERE], Duration::ZERO);
    let args = ["--check-timeout", "2s", "--fall", "1"];
    let mut daemon = announcer(&etcd, &names, &checks(&node), &args);
    daemon.says("announced", PATIENCE);
    node.is_asked(10);
    assert_eq!(daemon.lines("gate closed").len(), 0, "{}", daemon.stderr());
    assert_eq!(daemon.lines("waiting for the node").len(), 0, "{}", daemon.stderr());
}

#[test]
fn node_that_moves_is_found_at_its_new_address() {
    let etcd = Etcd::start();
    let node = FakeNode::serving();
    let names = NameService::start(&[ELSEWHERE], Duration::ZERO);
    let mut daemon = announcer(&etcd, &names, &checks(&node), &[]);
    let line = daemon.says("waiting for the node", PATIENCE);
    assert!(line.contains("connection refused"), "{line}");
    names.knows(&[HOME]);
    daemon.says("announced", PATIENCE);
}

/// tokio's own lookup panics there.
#[test]
fn process_that_may_start_no_thread_says_so_and_lives() {
    let (etcd, dir) = (Etcd::start(), scratch());
    let node = FakeNode::serving();
    // For an account of its own, which must be able to run it.
    let binary = dir.path().join("crate-discovery");
    copy_binary(&binary);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let flags = ["--nproc=1", "setpriv", "--reuid=54321", "--clear-groups", arg(&binary)];
    let password = dir.path().join("password");
    std::fs::write(&password, "hunter2").unwrap();
    let run = |checks: &[&str]| {
        let mut command = tool_behind("prlimit", &flags);
        command.args(["announce", "--host", "h1", "--address", "127.0.0.1", "--endpoints", &etcd.url()]);
        command.args(["--check-interval", "100ms"]).args(checks);
        Daemon::spawn(command)
    };
    let named = format!("crate://localhost:{}", node.port());
    let mut daemon = run(&["--check", &named]);
    let line = daemon.says("waiting for the node", PATIENCE);
    assert!(line.contains("the name localhost cannot be looked up: no thread can be started"), "{line}");
    stays("alive", AT_ONCE, &None, || daemon.ended());
    drop(daemon);

    let args = ["--check", &node.cratedb(), "--check-user", "check", "--check-password-file", arg(&password)];
    let mut daemon = run(&args);
    let line = daemon.says("cannot read the password of the checks", PATIENCE);
    assert!(line.contains("no thread can be started"), "{line}");
    daemon.says("announced", PATIENCE);
}
