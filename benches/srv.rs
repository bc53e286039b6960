//! How long one SRV answer takes, for fleets of 10, 1000 and 10,000, and how long the first of a snapshot, for which
//! its records are written: `cargo bench --bench srv` (`make bench`). Prints a table; fails where CrateDB would not wait
//! so long.

use std::time::{Duration, Instant};

use crate_discovery::{
    announcement::Announcement,
    feeds::srv::{
        answer::{Answer, Transport, answer},
        name::ServiceName,
        records::Records,
    },
    snapshot::{Node, Snapshot},
};

/// What CrateDB 6.2 and later wait (`SrvUnicastHostsProvider.buildResolver`).
const PATIENCE_OF_CRATE_DB: Duration = Duration::from_millis(100);
const ROUNDS: usize = 200;
const QUERY: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x06_crate\x04_tcp\x05crate\x05local\0\0\x21\0\x01";

fn main() {
    println!("{:<44} {:>12} {:>12} {:>12}", "", "bytes", "median, ms", "longest, ms");
    let announcement = Announcement::from_json(br#"{"http":4200,"transport":4300}"#).unwrap();
    for count in [10, 1000, 10_000] {
        for (kind, name) in [("names", named as fn(usize) -> String), ("addresses", numbered)] {
            let node = |n| Node { host: name(n).parse().unwrap(), announcement: announcement.clone() };
            let snapshot = Snapshot::new(1, (0..count).map(node).collect());
            first(&format!("first, {count} {kind}"), &snapshot);
            let records = Records::of(&snapshot);
            for transport in [Transport::Udp, Transport::Tcp] {
                next(&format!("{transport:?}, {count} {kind}"), &records, transport);
            }
        }
    }
}

fn first(what: &str, snapshot: &Snapshot) {
    let answer = |_| answer(QUERY, &ServiceName::default(), Some(&Records::of(snapshot)), Transport::Tcp, 0);
    row(what, answer);
}

fn next(what: &str, records: &Records, transport: Transport) {
    let service = ServiceName::default();
    row(what, |round| answer(QUERY, &service, Some(records), transport, round * 37));
}

fn row(what: &str, answer: impl Fn(usize) -> Option<Answer>) {
    let mut bytes = 0;
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|round| {
            let began = Instant::now();
            let answer = answer(round);
            let time = began.elapsed();
            bytes = answer.expect("an answer").message.len();
            time
        })
        .collect();
    times.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let median = times[ROUNDS / 2];
    println!("{what:<44} {bytes:>12} {:>12.4} {:>12.4}", millis(median), millis(times[ROUNDS - 1]));
    assert!(median < PATIENCE_OF_CRATE_DB, "{what}: {median:?}");
}

fn named(n: usize) -> String {
    format!("crate-{n:05}.example.com")
}

fn numbered(n: usize) -> String {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + n as u32).to_string()
}
