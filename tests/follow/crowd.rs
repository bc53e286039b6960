//! Many hosts, and what else may lie under the prefix.

use std::time::{Duration, Instant};

use crate::{
    Kept, put,
    support::{
        DEFAULT_VALUE, PATIENCE,
        daemon::{Daemon, tool, watch},
        etcd::{Etcd, arg, scratch},
        eventually, eventually_eq, key_of,
        observer::Raw,
        proxy::{Mode, Proxy},
        seed_hosts_reader, stays,
    },
};

const MANY: usize = 10_000;
/// Bytes of our own, besides the binary's pages, of which there are many in a build for tests. `make bench` measures
/// what is resident.
const MOST_ANONYMOUS: u64 = 12_000_000;

fn many() -> impl Iterator<Item = (String, String)> {
    (0..MANY).map(|i| (key_of(&format!("node-{i:05}.crate.example.org")), DEFAULT_VALUE.to_owned()))
}

/// Waits until the file holds everybody.
#[track_caller]
fn holds_many(kept: &Kept) {
    eventually_eq("everybody is there", PATIENCE, &MANY, || kept.content().lines().count());
}

/// Bytes of its own that are resident.
fn anonymous(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn ten_thousand_hosts_are_one_snapshot_in_order() {
    let etcd = Etcd::start();
    Raw::connect(&etcd).put_all(many());
    let mut watching = Daemon::spawn_printing(watch(&etcd, &["--format", "json"]));
    let kept = Kept::start(&etcd, &[]);
    holds_many(&kept);
    let seeds = seed_hosts_reader::read(&kept.path);
    assert!(seeds.is_sorted(), "the order is that of the hosts");
    eventually("one line", PATIENCE, || match watching.stdout().lines().count() {
        1 => Ok(()),
        other => Err(other.to_string()),
    });
    assert_eq!(watching.stdout().matches("\"host\"").count(), MANY);

    put(&etcd, &["node-00000.a"]);
    eventually_eq("one more, in its place", PATIENCE, &("node-00000.a".to_owned(), 4300), || {
        seed_hosts_reader::read(&kept.path)[0].clone()
    });
    assert_eq!(seed_hosts_reader::read(&kept.path)[1..], seeds);
    assert!(watching.ended().is_none());
    println!("anonymous bytes: watch {}, seed file {}", anonymous(&watching), anonymous(&kept.daemon));
    assert!(anonymous(&watching) < MOST_ANONYMOUS, "{}", anonymous(&watching));
    assert!(anonymous(&kept.daemon) < MOST_ANONYMOUS, "{}", anonymous(&kept.daemon));
}

#[test]
fn storm_of_changes_ends_in_the_right_snapshot() {
    let etcd = Etcd::start();
    let mut kept = Kept::holding(&etcd, &[], &[]);
    Raw::connect(&etcd).put_all(many());
    holds_many(&kept);
    etcd.etcdctl(&["del", "--prefix", "/services/crate/"]);
    kept.holds(&[], PATIENCE);
    assert_eq!(kept.daemon.lines("endpoint left"), Vec::<String>::new());
    assert!(kept.daemon.ended().is_none());
}

#[test]
fn junk_and_huge_values_blind_nobody() {
    let etcd = Etcd::start();
    put(&etcd, &["a"]);
    let mut kept = Kept::holding(&etcd, &["a"], &[]);
    let mut raw = Raw::connect(&etcd);
    let huge = vec![b'x'; 1_400_000];
    for round in 0..2 {
        for i in 0..20 {
            raw.put(key_of(&format!("huge-{i}")).as_bytes(), &huge);
        }
        raw.put(b"/services/crate/\xff\n", b"junk");
        put(&etcd, &["b"]);
        kept.holds(&["a", "b"], PATIENCE);
        // Seen live in the first round; in the second they are there from the beginning.
        let naming =
            |part: &str| kept.daemon.lines("skipped").iter().filter(|line| line.contains(part)).count();
        // The log has a thread of its own, which may be later than the one of the file.
        eventually_eq("the huge ones are told", PATIENCE, &20, || naming("huge-"));
        eventually_eq("all are told", PATIENCE, &21, || kept.daemon.lines("skipped").len());
        assert_eq!(kept.daemon.lines("endpoint left"), Vec::<String>::new());
        println!("anonymous bytes, round {round}: {}", anonymous(&kept.daemon));
        assert!(anonymous(&kept.daemon) < MOST_ANONYMOUS, "{}", anonymous(&kept.daemon));
        if round == 0 {
            kept = Kept::holding(&etcd, &["a", "b"], &[]);
        }
    }
    // Junk in the place of an announcement takes it away, and an announcement in the place of junk counts.
    raw.put(key_of("a").as_bytes(), b"junk");
    raw.put(key_of("huge-7").as_bytes(), DEFAULT_VALUE.as_bytes());
    kept.holds(&["b", "huge-7"], PATIENCE);
}

/// Larger than any message that we accept, where etcd's own limit was raised: nobody else is hidden, and the follower
/// does not ask again and again.
#[test]
fn value_that_is_too_large_to_be_received_blinds_nobody() {
    let etcd = Etcd::start_with_flags(&["--max-request-bytes=16000000"]);
    put(&etcd, &["a"]);
    let kept = Kept::holding(&etcd, &["a"], &[]);
    Raw::connect(&etcd).put(key_of("huge").as_bytes(), &vec![b'x'; 8_000_000]);
    // Nothing else is written: the newest revision is the one that cannot be received.
    let metrics = ["etcd_debugging_mvcc_range_total", "etcd_mvcc_range_total"];
    let requests = || metrics.iter().find_map(|name| etcd.try_metric(name)).expect("etcd counts its reads");
    stays("the file", Duration::from_secs(1), &"a:4300\n".to_owned(), || kept.content());
    let before = requests();
    // Longer than a watch may be silent.
    std::thread::sleep(Duration::from_secs(18));
    let asked = requests() - before;
    assert!(asked <= 36.0, "{asked} requests in 18 s");
    assert_eq!(kept.daemon.lines("endpoint left").len(), 0, "{}", kept.daemon.stderr());
    put(&etcd, &["b"]);
    kept.holds(&["a", "b"], PATIENCE);
}

/// Etcd tells a watch that begins late of all that it missed in one message, which may be larger than we take; asked for
/// fragments, it cuts it into pieces. Nothing has to be listed again.
#[test]
fn large_changes_between_the_list_and_the_watch_come_in_pieces() {
    let etcd = Etcd::start();
    let proxy = Proxy::start(etcd.port());
    let delay = Duration::from_millis(500);
    proxy.set(Mode::Delay(delay));
    let ranges = || {
        let labels = r#"grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
        etcd.metric(&format!("grpc_server_started_total{{{labels}}}"))
    };
    let before = ranges();
    put(&etcd, &["a"]);
    let kept = Kept::start_at(&proxy.url(), &[]);
    eventually_eq("it lists", PATIENCE, &(before + 1.0), ranges);
    // The answer is on its way for half a second, and the watch for another half.
    let mut raw = Raw::connect(&etcd);
    for i in 0..3 {
        raw.put(key_of(&format!("large-{i}")).as_bytes(), &vec![b'x'; 1_000_000]);
    }
    put(&etcd, &["b"]);
    kept.holds(&["a", "b"], PATIENCE);
    assert_eq!(ranges(), before + 1.0, "one list is all that it took");
    eventually_eq("they are told", PATIENCE, &3, || kept.daemon.lines("skipped a key").len());
}

/// Row 36: the feeds of a fleet that starts at once must not take from etcd the time that its claims need.
#[test]
fn feeds_leave_etcd_to_the_first_claim() {
    // The feeds wait a second for a claim that does not succeed.
    const WAITS: Duration = Duration::from_millis(800);
    let etcd = Etcd::start();
    let proxy = Proxy::start(etcd.port());
    // The claim takes some of these, there and back.
    proxy.set(Mode::Delay(Duration::from_millis(60)));
    let dir = scratch();
    let seeds = dir.path().join("seeds");
    let mut command = tool();
    command.args(["announce", "--endpoints", &proxy.url(), "--host", "h1", "--seed-file", arg(&seeds)]);
    let start = Instant::now();
    let _announcer = Daemon::spawn(command);
    eventually("the claim", PATIENCE, || {
        // The feeds have a connection of their own.
        let open = proxy.open();
        let is_there = etcd.key(&key_of("h1")).is_some();
        assert!(is_there || open <= 1 || start.elapsed() > WAITS, "{open} connections before the claim");
        if is_there { Ok(()) } else { Err("no key".to_owned()) }
    });
    eventually_eq("the feeds follow", PATIENCE, &"h1:4300\n".to_owned(), || {
        std::fs::read_to_string(&seeds).unwrap_or_default()
    });
}
