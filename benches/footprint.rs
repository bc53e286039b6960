//! What the sidekick costs, beside what it replaces, measured in the same run on a real etcd:
//! `cargo bench --bench footprint` (`make bench`). Prints a table; fails where a promise is broken
//! that does not depend on the machine's speed (raft writes, threads, size, memory).
//!
//! The baseline is the sidekick of 2014 in v3 words (a lease granted and the key put by etcdctl,
//! again and again) and `etcdctl lease keep-alive`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use support::{
    PATIENCE,
    daemon::Daemon,
    etcd::{Etcd, lease_id},
    key_of,
    observer::Observer,
};

/// How long the steady state is watched.
const STEADY: Duration = Duration::from_secs(60);
/// Starts of each kind; the median counts.
const STARTS: usize = 15;
const COMMITTED: &str = "etcd_server_proposals_committed_total";

/// Bytes on disk, and bytes resident in steady state: `docs/design.md`, "House". The latter was 5.0 before there were
/// feeds and `bootstrap`, whose code is mapped though it does not run.
const MOST_ON_DISK: f64 = 3.5e6;
const MOST_RESIDENT: f64 = 5.5e6;

fn main() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    // Its own etcd, because the leases that the old loop leaves behind end during our measurement.
    let old_etcd = Etcd::start();
    let old_observer = Observer::start(&old_etcd);

    println!("{:<44} {:>12} {:>12} {:>8}", "", "ours", "baseline", "ratio");
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_crate-discovery")).unwrap().len() as f64;
    let etcdctl = Command::new("sh").args(["-c", "command -v etcdctl"]).output().unwrap().stdout;
    let etcdctl = std::fs::metadata(String::from_utf8(etcdctl).unwrap().trim()).unwrap().len() as f64;
    row("on disk, MB (etcdctl)", size / 1e6, etcdctl / 1e6);

    let ours = median(|n| {
        let (host, began) = (format!("start{n}"), Instant::now());
        let mut daemon = Daemon::announce(&etcd, &host, &["--log", "off"]);
        let visible = observer.next_put(&key_of(&host), 0, PATIENCE).at - began;
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
        visible
    });
    let theirs = median(|n| {
        let (key, began) = (key_of(&format!("bash{n}")), Instant::now());
        renew_as_in_2014(&old_etcd, &key);
        old_observer.next_put(&key, 0, PATIENCE).at - began
    });
    row("start to visible key, ms (bash + etcdctl)", millis(ours), millis(theirs));

    let stop = median(|n| {
        let host = format!("stop{n}");
        let mut daemon = Daemon::announced(&etcd, &host, &[]);
        let began = Instant::now();
        daemon.signal(Signal::TERM);
        let gone = observer.next_delete(&key_of(&host), 0, PATIENCE).at - began;
        assert_eq!(daemon.wait(PATIENCE), 0);
        gone
    });
    println!("{:<44} {:>12.1} {:>12}", "SIGTERM to key gone, ms (bash: its TTL)", millis(stop), "60000");

    let daemon = Daemon::announced(&etcd, "steady", &["--ttl", "60s"]);
    let lease = etcd.key(&key_of("steady")).expect("steady is announced").lease;
    let keep_alive = Daemon::spawn({
        let mut command = etcd.etcdctl_command();
        command.args(["lease", "keep-alive", &format!("{lease:x}")]);
        command
    });
    sleep(Duration::from_secs(2));
    // Both renew; neither may write.
    let (before, events) = (etcd.metric(COMMITTED), observer.heard(&key_of("steady")).len());
    sleep(STEADY);
    let (writes, events) =
        (etcd.metric(COMMITTED) - before, observer.heard(&key_of("steady")).len() - events);
    let (resident, threads) = process(daemon.pid());
    let (their_resident, their_threads) = process(keep_alive.pid());
    row("resident, MB (etcdctl lease keep-alive)", resident / 1e6, their_resident / 1e6);
    row("threads (etcdctl lease keep-alive)", threads, their_threads);

    let renewals = 3;
    let before = old_etcd.metric(COMMITTED);
    (0..renewals).for_each(|_| renew_as_in_2014(&old_etcd, &key_of("bash")));
    let loop_writes = (old_etcd.metric(COMMITTED) - before) / f64::from(renewals);
    println!("{:<44} {:>12} {:>12}", "raft writes in a minute (bash: each renewal)", writes, loop_writes);
    println!("{:<44} {:>12} {:>12}", "watch events in a minute (bash: each renewal)", events, 1);

    assert_eq!(writes, 0.0, "renewing writes to etcd");
    assert_eq!(events, 0, "renewing wakes watchers");
    assert_eq!(threads, 2.0, "a thread besides the one that writes the log");
    assert!(resident < MOST_RESIDENT, "{resident} bytes resident");
    assert!(size < MOST_ON_DISK, "{size} bytes on disk");
}

fn row(what: &str, ours: f64, baseline: f64) {
    println!("{what:<44} {ours:>12.2} {baseline:>12.2} {:>8.2}", ours / baseline);
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median(mut once: impl FnMut(usize) -> Duration) -> Duration {
    let mut all: Vec<Duration> = (0..STARTS).map(&mut once).collect();
    all.sort_unstable();
    all[STARTS / 2]
}

/// One turn of the loop: bash starts etcdctl, which leaves a new lease behind each time.
fn renew_as_in_2014(etcd: &Etcd, key: &str) {
    let script = r#"lease=$(etcdctl lease grant 60 | cut -d " " -f 2)
        etcdctl put "$KEY" '{"http": 4200, "transport": 4300}' --lease "$lease""#;
    let status = Command::new("bash")
        .args(["-c", script])
        .env("ETCDCTL_API", "3")
        .env("ETCDCTL_ENDPOINTS", etcd.url())
        .env("KEY", key)
        .stdout(Stdio::null())
        .status()
        .expect("bash runs");
    assert!(status.success(), "the loop of 2014 failed");
    let lease = etcd.key(key).expect("the key is there").lease;
    assert_ne!(lease, lease_id("0"), "the key has no lease");
}

/// Bytes resident and number of threads.
fn process(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let field = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("VmRSS:") * 1024.0, field("Threads:"))
}
