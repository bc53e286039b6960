//! What a service manager hears over its notification socket, and how the log looks in the journal.
//! We play systemd's side of both here; the real one is in `systemd`.

mod support;

use std::{
    fs::{self, File},
    os::{
        linux::{fs::MetadataExt, net::SocketAddrExt},
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use support::{
    AT_ONCE, PATIENCE, SLACK, TTL,
    daemon::{Daemon, announce, run, tool},
    etcd::{Etcd, scratch},
    eventually, eventually_eq, key_of,
    node::{FakeNode, Manner, answer},
    stays,
};
use tempfile::TempDir;

/// Systemd's end of the socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
    _scratch: TempDir,
}

impl Manager {
    fn start() -> Self {
        let scratch = scratch();
        let path = scratch.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path, heard: Vec::new(), _scratch: scratch }
    }

    fn runs(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path);
    }

    /// Every message so far.
    fn heard(&mut self) -> &[String] {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        &self.heard
    }

    /// Waits for a message that holds `part` and came after the first `after` ones. Gives its number.
    #[track_caller]
    fn hears(&mut self, part: &str, after: usize) -> usize {
        eventually(&format!("systemd hears {part:?}"), PATIENCE, || {
            let heard = self.heard();
            let found = heard.iter().skip(after).position(|message| message.contains(part));
            found.map(|n| n + after).ok_or_else(|| format!("{heard:#?}"))
        })
    }
}

#[test]
fn systemd_hears_ready_at_once_and_then_how_things_are() {
    let mut etcd = Etcd::unstarted(&[], false);
    let mut manager = Manager::start();
    let mut command = announce(&etcd, "h1", &[]);
    manager.runs(&mut command);
    // A line every 300 ms.
    command.env("WATCHDOG_USEC", "900000");
    let mut daemon = Daemon::spawn(command);

    // Etcd is not there: that is no reason for the unit to fail.
    assert_eq!(manager.hears("READY=1\n", 0), 0, "it is the first that is said");
    let address = etcd.url().replace("http://", "");
    let waits = manager.hears(&format!("STATUS=not announced: etcd {address}: connection refused\n"), 0);

    etcd.launch();
    let announced = manager.hears(&format!("STATUS=announced {} · lease ", key_of("h1")), waits);
    let lease = etcd.key(&key_of("h1")).expect("announced").lease;
    let renewed = manager.hears(&format!("lease {lease:x} · etcd {address} · renewed 0 s ago\n"), announced);
    manager.hears(&format!("lease {lease:x} · etcd {address} · renewed 1 s ago\n"), renewed);

    // Long enough for a renewal to fail, too short for the lease to end.
    etcd.freeze();
    let failed = manager.hears(" · not renewed for ", renewed);
    etcd.thaw();
    let again = manager.hears(&format!("lease {lease:x} · etcd {address} · renewed "), failed);

    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    let stopping = manager.hears("STOPPING=1\nSTATUS=withdrawing", again);
    let heard = manager.heard();
    assert_eq!(heard.iter().filter(|message| message.contains("READY=1")).count(), 1, "{heard:#?}");
    assert_eq!(heard.iter().filter(|message| message.contains("STOPPING=1")).count(), 1, "{heard:#?}");
    assert!(stopping > again);
}

#[test]
fn status_says_what_the_node_lacks_and_who_holds_the_key() {
    let etcd = Etcd::start();
    let mut manager = Manager::start();
    let mut command = announce(&etcd, "h1", &["--check", "tcp://127.0.0.1:1", "--check-interval", "100ms"]);
    manager.runs(&mut command);
    let mut closed = Daemon::spawn(command);
    manager.hears("STATUS=not announced: waiting for the node: tcp://127.0.0.1:1: connection refused\n", 0);
    assert_eq!(closed.end(Signal::TERM, PATIENCE), 0);

    let node = FakeNode::closed();
    let mut manager = Manager::start();
    let check = node.cratedb();
    let mut command = announce(&etcd, "h1", &["--check", &check, "--check-interval", "100ms"]);
    manager.runs(&mut command);
    let _waiting = Daemon::spawn(command);
    let waits = "STATUS=not announced: waiting for the node:";
    let refused = manager.hears(&format!("{waits} {check}: connection refused\n"), 0);
    node.behave(Manner::HangsUp);
    let closed = manager.hears(&format!("{waits} {check}: closed without an answer\n"), refused);
    node.behave(Manner::Answers(answer(400, "")));
    let changed = manager.hears(&format!("{waits} {check}: answered 400, which is"), closed);
    node.serve();
    manager.hears("STATUS=announced", changed);

    let mut manager = Manager::start();
    let mut command = announce(&etcd, "h2", &[]);
    manager.runs(&mut command);
    let _elder = Daemon::spawn(command);
    let announced = manager.hears("STATUS=announced", 0);
    let _newer = Daemon::announced(&etcd, "h2", &[]);
    let holder = etcd.key(&key_of("h2")).expect("announced").lease;
    manager.hears(&format!("STATUS=standing by: {} is held by lease {holder:x}\n", key_of("h2")), announced);
}

#[test]
fn watchdog_hears_from_a_loop_that_turns_and_from_no_other() {
    let etcd = Etcd::start();
    let mut manager = Manager::start();
    let limit = Duration::from_secs(2);
    let mut command = announce(&etcd, "h1", &[]);
    manager.runs(&mut command);
    command.env("WATCHDOG_USEC", limit.as_micros().to_string());
    let daemon = Daemon::spawn(command);
    manager.hears("STATUS=announced", 0);

    let (since, before) = (Instant::now(), manager.heard().len());
    eventually("three times the limit pass", limit * 3 + PATIENCE, || {
        if since.elapsed() < limit * 3 { Err("not yet".to_owned()) } else { Ok(()) }
    });
    // One in a limit would do; three are meant.
    let beats = manager.heard()[before..].iter().filter(|message| message.contains("WATCHDOG=1")).count();
    assert!(beats >= 3, "{beats} beats in three times the limit");

    daemon.freeze();
    // Whatever was on its way.
    manager.heard();
    let (since, before) = (Instant::now(), manager.heard().len());
    eventually("the limit passes", limit + PATIENCE, || {
        if since.elapsed() < limit { Err("not yet".to_owned()) } else { Ok(()) }
    });
    assert_eq!(manager.heard().len(), before, "a process that is stopped says nothing");
    daemon.thaw();
    manager.hears("WATCHDOG=1", before);
}

/// Row 27: systemd is frozen, or busy for long.
#[test]
fn socket_that_nobody_reads_holds_nothing_up_and_ready_arrives_when_it_is_read() {
    let etcd = Etcd::start();
    let mut manager = Manager::start();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"X=1", &manager.path).is_ok() {}

    let start = || {
        let mut command = announce(&etcd, "h1", &[]);
        manager.runs(&mut command);
        command.env("WATCHDOG_USEC", "900000");
        Daemon::spawn(command)
    };
    let is_there = || etcd.key(&key_of("h1")).is_some();
    let mut unheard = start();
    eventually_eq("announced", PATIENCE, &true, is_there);
    stays("the key", TTL + SLACK, &true, is_there);
    assert_eq!(unheard.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert!(!is_there());

    let mut daemon = start();
    daemon.says("announced", PATIENCE);
    let before = manager.heard().len();
    let ready = manager.hears("READY=1\n", before);
    // Later than those that were lost, and once.
    manager.hears("WATCHDOG=1\nSTATUS=announced", ready + 1);
    while filler.send_to(b"X=1", &manager.path).is_ok() {}
    daemon.signal(Signal::STOP);
    daemon.thaw();
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    let ready = manager.heard().iter().filter(|message| message.contains("READY=1")).count();
    assert_eq!(ready, 1, "{:#?}", manager.heard);
}

#[test]
fn abstract_socket_hears_the_same() {
    let etcd = Etcd::start();
    let name = format!("crate-discovery-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = announce(&etcd, "h1", &[]);
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let mut daemon = Daemon::spawn(command);
    let mut heard = [0; 4096];
    let length = socket.recv(&mut heard).expect("something is heard");
    assert!(
        heard[..length].starts_with(b"READY=1\nSTATUS="),
        "{}",
        String::from_utf8_lossy(&heard[..length])
    );
    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
}

#[test]
fn watchdog_of_another_process_is_not_ours() {
    let etcd = Etcd::start();
    let mut manager = Manager::start();
    let mut command = announce(&etcd, "h1", &[]);
    manager.runs(&mut command);
    command.env("WATCHDOG_USEC", "300000").env("WATCHDOG_PID", "1");
    let _daemon = Daemon::spawn(command);
    let announced = manager.hears("STATUS=announced", 0);
    std::thread::sleep(Duration::from_secs(2));
    // A beat every 5 s, not every 100 ms.
    assert!(manager.heard().len() <= announced + 2, "{:#?}", manager.heard);
}

#[test]
fn nothing_is_said_where_nobody_listens() {
    let etcd = Etcd::start();
    let long = format!("/{}", "x".repeat(200));
    for socket in ["", "/nowhere/notify", "@nobody-binds-this", "vsock:2:1234", &long] {
        let mut command = announce(&etcd, "h1", &[]);
        command.env("NOTIFY_SOCKET", socket);
        let mut daemon = Daemon::spawn(command);
        daemon.says("announced", PATIENCE);
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0, "{}", daemon.stderr());
        let complaints: Vec<_> =
            daemon.stderr().lines().filter(|line| !line.contains(" INFO ")).map(str::to_owned).collect();
        assert_eq!(complaints, Vec::<String>::new());
    }
}

/// Starts `command` with its stderr in `log`, as the stream that systemd names or another one, and
/// gives what is in there once it holds `message`.
fn logged(mut command: Command, log: &Path, is_journal: bool, message: &str) -> String {
    let file = File::create(log).unwrap();
    let stat = file.metadata().unwrap();
    let inode = stat.st_ino() + u64::from(!is_journal);
    command.env("JOURNAL_STREAM", format!("{}:{inode}", stat.st_dev()));
    let mut daemon = Daemon::spawn_logging_to(command, file.into());
    let text = eventually("the log says so", PATIENCE, || {
        let text = fs::read_to_string(log).unwrap();
        if text.contains(message) { Ok(text) } else { Err(text) }
    });
    daemon.end(Signal::KILL, PATIENCE);
    text
}

#[test]
fn journal_gets_priorities_and_no_times() {
    let etcd = Etcd::unstarted(&[], false);
    let scratch = scratch();
    let log = scratch.path().join("log");
    let waits = || announce(&etcd, "h1", &[]);

    let text = logged(waits(), &log, true, "endpoint left");
    assert!(text.starts_with("<6> INFO starting "), "{text}");
    assert!(text.contains("\n<4> WARN endpoint left "), "{text}");

    let mut json = waits();
    json.args(["--log-format", "json"]);
    let text = logged(json, &log, true, "endpoint left");
    let line = text.lines().find_map(|line| line.strip_prefix("<4>")).expect("a warning");
    let line: serde_json::Value = serde_json::from_str(line).expect("the rest is JSON");
    assert_eq!(line["fields"]["message"], "endpoint left");
    assert_eq!(line["timestamp"], serde_json::Value::Null);

    // Somebody sent stderr elsewhere; the variable is a leftover.
    let text = logged(waits(), &log, false, "endpoint left");
    assert!(text.lines().all(|line| line.starts_with("20")), "{text}");
}

#[test]
fn journal_gets_the_last_line_of_a_failure_as_an_error() {
    let scratch = scratch();
    let log = scratch.path().join("log");
    let mut command = tool();
    command.args(["hosts", "--endpoints", "http://127.0.0.1:1"]);
    let text = logged(command, &log, true, "error: ");
    assert!(
        text.lines().last().unwrap().starts_with("<3>error: failed to read the hosts from etcd"),
        "{text}"
    );

    let rejected = || {
        let mut command = tool();
        command.args(["announce", "--ttl", "1s"]);
        command
    };
    let text = logged(rejected(), &log, true, "error: ");
    assert!(text.starts_with("<3>error: "), "{text}");
    let finished = run(rejected());
    assert!(finished.stderr.starts_with("error: "), "{}", finished.stderr);
    assert_eq!(finished.code, 2);
}
