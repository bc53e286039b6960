//! Endpoints that never answered at all. One good one among them is found within a round; with none,
//! SIGTERM ends in time, and with exit 0: nothing of ours was ever there.

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    is_back, key_of,
    support::{
        AT_ONCE, SLACK, TTL,
        daemon::{Daemon, tool, tool_behind},
        etcd::{Etcd, arg, scratch},
        free_port,
        proxy::{BlackHole, Refusing},
    },
};

/// How long a stop may take here.
const STOP: &str = "1s";
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// No name server knows it: RFC 6761.
const NO_SUCH_NAME: &str = "http://no-such-host.invalid:2379";

/// A listener that accepts (the kernel does) and never says a word, and its port.
fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A round (`docs/design.md`, "Connection and timing") for `endpoints` of them.
fn round(endpoints: u32) -> Duration {
    TTL / 6 + endpoints * (TTL / (2 * endpoints.max(3))) + Duration::from_secs(1)
}

/// `announce` on these endpoints.
fn announce(endpoints: &[&str], args: &[&str]) -> Daemon {
    let mut command = tool();
    command.args(announce_args(endpoints, args));
    Daemon::spawn(command)
}

fn announce_args(endpoints: &[&str], args: &[&str]) -> Vec<String> {
    let list = endpoints.join(",");
    let fixed = ["announce", "--host", "h1", "--ttl", "5s", "--stop-timeout", STOP, "--endpoints", &list];
    fixed.iter().chain(args).map(|&arg| arg.to_owned()).collect()
}

/// It says once which endpoint it left and why; SIGTERM, sent while it tries again, ends it in time.
#[track_caller]
fn ends_in_time(what: &str, mut daemon: Daemon, endpoint: &str) {
    let line = daemon.says("endpoint left", TTL + SLACK);
    assert!(line.contains(endpoint) && line.contains("reason="), "{line}");
    daemon.says("no endpoint of etcd answers", SLACK);
    // Some time into the rounds that follow: in an attempt or in the pause after it.
    std::thread::sleep(TTL / 6 + TTL / 12);
    let asked = Instant::now();
    assert_eq!(daemon.end(Signal::TERM, STOP_TIMEOUT + SLACK), 0, "{what}");
    println!("{what}: ended {} ms after SIGTERM", asked.elapsed().as_millis());
    assert_eq!(daemon.lines("endpoint left").len(), 1, "{}", daemon.stderr());
}

/// It is announced through the only good one of `endpoints` within a round, and withdraws.
#[track_caller]
fn finds_the_good_one(what: &str, etcd: &Etcd, mut daemon: Daemon, endpoints: u32) {
    let started = Instant::now();
    daemon.says("announced", round(endpoints) + SLACK);
    println!("{what}: announced after {} ms", started.elapsed().as_millis());
    is_back(etcd, SLACK);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert!(etcd.key(&key_of("h1")).is_none());
}

/// A resolver that never answers, and a resolv.conf that knows no other.
struct SilentResolver {
    _socket: UdpSocket,
    dir: TempDir,
}

impl SilentResolver {
    fn open() -> Self {
        // Any address of 127.0.0.0/8 is loopback; the port of a name server is always 53.
        let (socket, address) = (1..=254)
            .map(|last| Ipv4Addr::new(127, 53, (std::process::id() % 251) as u8, last))
            .find_map(|address| Some((UdpSocket::bind((address, 53)).ok()?, address)))
            .expect("these tests need port 53 on loopback: run as root");
        let dir = scratch();
        std::fs::write(Self::file(dir.path()), format!("nameserver {address}\n")).unwrap();
        Self { _socket: socket, dir }
    }

    fn file(dir: &Path) -> PathBuf {
        dir.join("resolv.conf")
    }

    /// `announce` where /etc/resolv.conf is ours. The host's is left alone.
    fn announce(&self, endpoints: &[&str]) -> Daemon {
        let file = Self::file(self.dir.path());
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let mut command = tool_behind("unshare", &["--mount", "sh", "-c", script, arg(&file)]);
        command.arg(env!("CARGO_BIN_EXE_crate-discovery")).args(announce_args(endpoints, &[]));
        Daemon::spawn(command)
    }
}

/// Row 1, where all endpoints but one never answered: refused, black-holed, unknown, silent; and one that is good.
#[test]
fn good_endpoint_is_found_among_those_that_never_answer() {
    let etcd = Etcd::start();
    let (refusing, black_hole, (_listener, port)) = (Refusing::open(), BlackHole::open(), silent());
    let silent = format!("http://127.0.0.1:{port}");
    let endpoints = [&refusing.url(), &black_hole.url(), NO_SUCH_NAME, &silent, &etcd.url()];
    finds_the_good_one("all kinds and a good one", &etcd, announce(&endpoints, &[]), 5);
}

/// A TCP connection is no TLS connection yet.
#[test]
fn good_endpoint_is_found_among_stalled_tls_handshakes() {
    let etcd = Etcd::start_with_tls(&[]);
    let listeners: Vec<_> = (0..3).map(|_| silent()).collect();
    let silent: Vec<String> = listeners.iter().map(|(_, port)| format!("https://127.0.0.1:{port}")).collect();
    let endpoints = [&silent[0], &silent[1], &silent[2], &*etcd.url()];
    let pki = etcd.pki();
    let args = ["--cacert", arg(&pki.ca), "--cert", arg(&pki.cert), "--key", arg(&pki.key)];
    finds_the_good_one("stalled handshakes and a good one", &etcd, announce(&endpoints, &args), 4);
}

/// The resolver's silence lasts longer than any attempt.
#[test]
fn good_endpoint_is_found_among_names_that_nobody_resolves() {
    let etcd = Etcd::start();
    let resolver = SilentResolver::open();
    let names = ["http://a.example.com:2379", "http://b.example.com:2379", "http://c.example.com:2379"];
    let endpoints = [names[0], names[1], names[2], &etcd.url()];
    finds_the_good_one("silent resolver and a good one", &etcd, resolver.announce(&endpoints), 4);
}

/// Row 15.
#[test]
fn sigterm_ends_in_time_while_the_endpoint_refuses() {
    let refusing = Refusing::open();
    ends_in_time("refused", announce(&[&refusing.url()], &[]), &refusing.url());
}

/// Row 15.
#[test]
fn sigterm_ends_in_time_while_the_endpoint_drops_every_packet() {
    let black_hole = BlackHole::open();
    ends_in_time("black-holed", announce(&[&black_hole.url()], &[]), &black_hole.url());
}

/// Row 15: connected, HTTP/2 preface sent, never answered.
#[test]
fn sigterm_ends_in_time_while_the_endpoint_is_silent() {
    let (_listener, port) = silent();
    let endpoint = format!("http://127.0.0.1:{port}");
    ends_in_time("silent", announce(&[&endpoint], &[]), &endpoint);
}

/// Row 15.
#[test]
fn sigterm_ends_in_time_while_the_tls_handshake_stalls() {
    let (_listener, port) = silent();
    let endpoint = format!("https://127.0.0.1:{port}");
    ends_in_time("stalled handshake", announce(&[&endpoint], &[]), &endpoint);
}

/// Row 15.
#[test]
fn sigterm_ends_in_time_while_the_name_does_not_resolve() {
    ends_in_time("no such name", announce(&[NO_SUCH_NAME], &[]), NO_SUCH_NAME);
}

/// Row 15: a thread that waits for the resolver must not keep the process.
#[test]
fn sigterm_ends_in_time_while_the_resolver_is_silent() {
    let resolver = SilentResolver::open();
    let endpoint = "http://etcd.example.com:2379";
    let daemon = resolver.announce(&[endpoint]);
    ends_in_time("silent resolver", daemon, endpoint);
    // Kept for as long as the daemon ran.
    drop(resolver);
}
