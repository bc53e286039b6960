//! How soon the seed file and the SRV answers tell of a change, and what following ten thousand hosts takes, on a real etcd:
//! `cargo bench --bench feeds` (`make bench`). Fails where the memory that is promised is not enough.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use support::{
    DEFAULT_VALUE, PATIENCE,
    daemon::{Daemon, announce, watch},
    dns,
    etcd::{Etcd, arg, scratch},
    eventually_eq, free_port, key_of,
    observer::Raw,
};

/// Changes of each kind; the median counts.
const ROUNDS: usize = 200;
const MANY: usize = 10_000;
/// A container of 16 MB has to be large enough, with room to spare.
const MOST_RESIDENT: f64 = 12e6;

fn main() {
    let etcd = Etcd::start();
    let mut raw = Raw::connect(&etcd);
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    let (of_announce, of_watch, in_place) = (path("announce"), path("watch"), path("in-place"));
    let srv = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let spawn_watch = |path: &Path, more: &[&str]| {
        Daemon::spawn(watch(&etcd, &[&["--seed-file", arg(path)], more].concat()))
    };
    let mut daemons = vec![
        (
            "announce --seed-file",
            Daemon::spawn(announce(&etcd, "me", &["--ttl", "60s", "--seed-file", arg(&of_announce)])),
        ),
        ("watch --seed-file", spawn_watch(&of_watch, &[])),
        ("watch --seed-file-in-place", spawn_watch(&in_place, &["--seed-file-in-place"])),
        ("watch --srv", Daemon::spawn(watch(&etcd, &["--srv", &srv.to_string()]))),
        ("watch --format json", Daemon::spawn_printing(watch(&etcd, &["--format", "json"]))),
    ];
    let everybody = |hosts: usize| {
        for file in [&of_announce, &of_watch, &in_place] {
            eventually_eq("everybody is there", PATIENCE, &hosts, || {
                fs::read_to_string(file).unwrap_or_default().lines().count()
            });
        }
    };
    everybody(1);
    println!("{:<52} {:>10} {:>10}", "", "median", "worst");
    for (hosts, seen) in [("1 host", 1), ("10,000 hosts", MANY + 2)] {
        if seen > 1 {
            let many = (0..MANY)
                .map(|i| (key_of(&format!("node-{i:05}.crate.example.org")), DEFAULT_VALUE.to_owned()));
            raw.put_all(many);
            everybody(seen);
        }
        for (file, name) in [(&of_watch, "replaced"), (&in_place, "in place")] {
            let times = (0..ROUNDS).map(|n| round(&mut raw, n, |seed| starts_with(file, seed))).collect();
            row(&format!("put to file, ms, {hosts}, {name}"), times);
        }
        if seen == 1 {
            // Of ten thousand each answer holds another part.
            let tells = |seed: &str| dns::seeds(srv).is_ok_and(|seeds| seeds.iter().any(|s| s == seed));
            row("put to SRV answer, ms, 1 host", (0..ROUNDS).map(|n| round(&mut raw, n, tells)).collect());
        }
    }
    // From the list, not from the watch.
    let listed = path("listed");
    let again = spawn_watch(&listed, &[]);
    eventually_eq("everybody is there", PATIENCE, &(MANY + 2), || {
        fs::read_to_string(&listed).unwrap_or_default().lines().count()
    });
    daemons.push(("watch --seed-file, from the list", again));
    println!("{:<52} {:>10} {:>10}", format!("resident with {MANY} hosts, MB"), "now", "most");
    for (name, daemon) in &mut daemons {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
        let bytes = |field: &str| -> f64 {
            let line = status.lines().find(|line| line.starts_with(field)).expect(field);
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
        };
        let most = bytes("VmHWM:");
        println!("{name:<52} {:>10.2} {:>10.2}", bytes("VmRSS:") / 1e6, most / 1e6);
        assert!(most < MOST_RESIDENT, "{name}: {most} bytes");
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    }
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let (median, worst) = (millis(times[times.len() / 2]), millis(times[times.len() - 1]));
    println!("{what:<52} {median:>10.2} {worst:>10.2}");
}

/// Whether a file begins with this seed's line.
fn starts_with(file: &Path, seed: &str) -> bool {
    let mut head = vec![0; seed.len() + 1];
    let read = fs::File::open(file).and_then(|mut file| std::io::Read::read(&mut file, &mut head));
    read.is_ok_and(|length| head[..length] == *format!("{seed}\n").as_bytes())
}

/// From the moment the put is sent until somebody `tells` of the seed.
fn round(raw: &mut Raw, n: usize, tells: impl Fn(&str) -> bool) -> Duration {
    let transport = 5000 + n % 1000;
    // It sorts before everybody else, so that a look at the file is no work.
    let seed = format!("a:{transport}");
    let value = format!(r#"{{"http":4200,"transport":{transport}}}"#);
    let began = Instant::now();
    raw.put(key_of("a").as_bytes(), value.as_bytes());
    while !tells(&seed) {
        assert!(began.elapsed() < PATIENCE, "nobody tells of {seed:?}");
        std::thread::sleep(Duration::from_micros(100));
    }
    began.elapsed()
}
