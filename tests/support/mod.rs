//! What every test crate needs: a real etcd, the real binary, an outside witness, and patience.
//!
//! A fault shows itself to the outside world, so tests look from outside: through `etcdctl`, a raw
//! client and the watch history, never through the library under test.

// Every test crate compiles this module for itself and uses only a part of it.
#![allow(dead_code)]

pub mod balancer;
pub mod cluster;
pub mod crate_db;
pub mod daemon;
pub mod disk;
pub mod dns;
pub mod engine;
pub mod etcd;
pub mod false_etcd;
pub mod greedy;
pub mod net;
pub mod node;
pub mod observer;
pub mod ports;
pub mod proxy;
pub mod seed_hosts_reader;
pub mod witness;

use std::{
    fmt::Debug,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};

pub use ports::free_port;

/// What a busy machine of two cores may add to any bound of `docs/design.md`: process starts, scheduling,
/// etcd's own expiry scan of 500 ms.
pub const SLACK: Duration = Duration::from_secs(2);

/// The bound of `docs/design.md`, "Faults", for what a live watch or a signal triggers.
pub const AT_ONCE: Duration = Duration::from_secs(1);

/// How long to wait for what has no bound of its own, such as a start.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The shortest TTL that the tool takes: what makes tests of expiry quick.
pub const TTL: Duration = Duration::from_secs(5);

/// The prefix that the tool uses unless told otherwise.
pub const PREFIX: &str = "/services/crate";

/// What an announcement holds unless told otherwise, byte for byte.
pub const DEFAULT_VALUE: &str = r#"{"http":4200,"transport":4300}"#;

/// The key of `host` under the default prefix.
pub fn key_of(host: &str) -> String {
    format!("{PREFIX}/{host}")
}

/// A round (`docs/design.md`, "Connection and timing"): one cap + *n* attempts + 1 s, here for one endpoint, the
/// default request timeout, and a lease of `ttl`.
pub fn round(ttl: Duration) -> Duration {
    let cap = (ttl / 6).min(Duration::from_secs(5));
    let attempt = (ttl / 6).min(Duration::from_secs(5));
    cap + attempt + Duration::from_secs(1)
}

/// Asks `probe` until it says `Ok`.
///
/// # Panics
/// After `within`, with what `probe` said last.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(seen) => return seen,
            Err(last) if start.elapsed() > within => {
                panic!("not within {within:?}: {what}; last seen: {last}")
            }
            Err(_) => sleep(Duration::from_millis(20)),
        }
    }
}

/// [`eventually`] for a value that should become `expected`.
#[track_caller]
pub fn eventually_eq<T: PartialEq + Debug>(
    what: &str,
    within: Duration,
    expected: &T,
    mut look: impl FnMut() -> T,
) {
    eventually(what, within, || {
        let seen = look();
        if seen == *expected { Ok(()) } else { Err(format!("{seen:?}, not {expected:?}")) }
    });
}

/// Holds that `look` goes on saying `expected` for all of `during`.
#[track_caller]
pub fn stays<T: PartialEq + Debug>(what: &str, during: Duration, expected: &T, mut look: impl FnMut() -> T) {
    let start = Instant::now();
    while start.elapsed() < during {
        assert_eq!(look(), *expected, "{what}, after {:?}", start.elapsed());
        sleep(Duration::from_millis(100));
    }
}

/// Sends `signal` to the one process `pid`, which is a child of ours and not yet waited for.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a process id is not 0");
    kill_process(pid, signal).unwrap_or_else(|e| panic!("failed to send {signal:?} to {pid:?}: {e}"));
}

/// Stops `pid` with SIGSTOP and waits until every part of it stands still.
pub fn freeze(pid: u32) {
    signal(pid, Signal::STOP);
    eventually_eq("the process stands still", PATIENCE, &'T', || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name stands in parentheses and may hold anything; the state follows it.
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?')
    });
}

/// Lets a process that [`freeze`] stopped go on.
pub fn thaw(pid: u32) {
    signal(pid, Signal::CONT);
}

/// The body of a plain `GET`, or why there was none. The server is one of ours, on loopback.
pub fn http_get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// A certificate authority with one certificate for 127.0.0.1 and [`net::NameService::NAME`], for either side of a
/// connection.
pub struct Pki {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
}

impl Pki {
    /// Writes `ca.pem`, `cert.pem` and `key.pem` into `dir`.
    pub fn create(dir: &Path) -> Self {
        let mut authority = CertificateParams::new(vec![]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let ca = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);

        let mut params =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), net::NameService::NAME.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();

        let write = |name: &str, pem: String| {
            let path = dir.join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        Self {
            ca: write("ca.pem", ca.pem()),
            cert: write("cert.pem", cert.pem()),
            key: write("key.pem", key.serialize_pem()),
        }
    }
}
