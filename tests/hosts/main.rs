//! `hosts`: what it prints, what it writes to a file, what it waits for, and what it makes of junk.

mod file;
mod junk;
mod owner;
mod spellings;
#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use support::{
    AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK,
    daemon::{Daemon, Finished, hosts, run, tool},
    etcd::{Etcd, arg, scratch},
    eventually_eq, key_of,
    observer::Raw,
    stays,
};

/// The reading half of the 2014 unit, with v3's `get` for v2's `ls`.
const OLD_PIPELINE: &str = r#"set -o pipefail
etcdctl get --prefix --keys-only /services/crate/ | sed '/^$/d' \
  | sed "s/\/services\/crate\///g" | sed "s/$/:4300/" | paste -s -d",""#;

/// What the old pipeline prints.
fn old_pipeline(etcd: &Etcd) -> String {
    let mut bash = Command::new("bash");
    bash.args(["-c", OLD_PIPELINE]).env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", etcd.url());
    run(bash).printed()
}

/// Puts announcements, `(host, value)` each; the revision of the last.
fn put(etcd: &Etcd, announcements: &[(&str, &str)]) -> i64 {
    let mut raw = Raw::connect(etcd);
    announcements
        .iter()
        .map(|(host, value)| raw.put(key_of(host).as_bytes(), value.as_bytes()))
        .last()
        .unwrap_or(1)
}

/// What `hosts` with these flags prints.
fn printed(etcd: &Etcd, args: &[&str]) -> String {
    run(hosts(etcd, args)).printed()
}

/// Three hosts, one of each kind.
fn three() -> Etcd {
    let etcd = Etcd::start();
    put(
        &etcd,
        &[
            ("b", r#"{"http":4201,"transport":4301,"psql":5432,"address":"2001:db8::1"}"#),
            ("a", DEFAULT_VALUE),
            ("10.0.0.5", r#" { "transport": 4300, "zone": {"x": [1]}, "http": 4200, "psql": null } "#),
        ],
    );
    etcd
}

#[track_caller]
fn assert_failed(finished: &Finished, code: i32) {
    assert_eq!(finished.code, code, "{}", finished.stderr);
    assert_eq!(finished.stdout, "", "a failed read is no empty list");
    let errors = finished.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "{}", finished.stderr);
}

#[test]
fn csv_is_byte_for_byte_what_the_old_pipeline_printed() {
    let etcd = Etcd::start();
    let mut count = 0;
    for total in [0, 1, 3, 1000] {
        let more = (count..total).map(|i| (key_of(&format!("crate{i}")), DEFAULT_VALUE.to_owned()));
        Raw::connect(&etcd).put_all(more);
        count = total;
        let ours = printed(&etcd, &[]);
        assert_eq!(ours, old_pipeline(&etcd), "{total} hosts");
        assert_eq!(ours.matches(":4300").count(), total);
    }
}

#[test]
fn csv_differs_from_the_old_pipeline_only_by_the_announced_port() {
    let etcd = Etcd::start();
    put(&etcd, &[("a", DEFAULT_VALUE), ("b", r#"{"http":4200,"transport":4301}"#), ("c", DEFAULT_VALUE)]);
    assert_eq!(old_pipeline(&etcd), "a:4300,b:4300,c:4300\n");
    assert_eq!(printed(&etcd, &[]), "a:4300,b:4301,c:4300\n");
}

#[test]
fn each_format_is_as_promised() {
    let etcd = three();
    let revision = put(&etcd, &[("a", DEFAULT_VALUE)]);
    assert_eq!(printed(&etcd, &["--format", "csv"]), "10.0.0.5:4300,a:4300,[2001:db8::1]:4301\n");
    assert_eq!(printed(&etcd, &["--format", "lines"]), "10.0.0.5:4300\na:4300\n[2001:db8::1]:4301\n");
    assert_eq!(
        printed(&etcd, &["--format", "env"]),
        "CRATE_SEED_HOSTS=10.0.0.5:4300,a:4300,[2001:db8::1]:4301\n\
         CRATE_SEED_FLAGS=-Cdiscovery.seed_hosts=10.0.0.5:4300,a:4300,[2001:db8::1]:4301\n"
    );
    let nodes = [
        r#"{"host":"10.0.0.5","address":null,"http":4200,"transport":4300,"psql":null}"#,
        r#"{"host":"a","address":null,"http":4200,"transport":4300,"psql":null}"#,
        r#"{"host":"b","address":"2001:db8::1","http":4201,"transport":4301,"psql":5432}"#,
    ];
    let expected = format!("{{\"revision\":{revision},\"nodes\":[{}]}}\n", nodes.join(","));
    assert_eq!(printed(&etcd, &["--format", "json"]), expected);
}

#[test]
fn each_format_without_hosts_is_as_promised() {
    let etcd = Etcd::start();
    assert_eq!(printed(&etcd, &["--format", "csv"]), "\n");
    assert_eq!(printed(&etcd, &["--format", "lines"]), "");
    assert_eq!(printed(&etcd, &["--format", "env"]), "CRATE_SEED_HOSTS=\nCRATE_SEED_FLAGS=\n");
    assert_eq!(printed(&etcd, &["--format", "json"]), "{\"revision\":1,\"nodes\":[]}\n");
}

#[test]
fn hosts_without_the_chosen_port_are_left_out() {
    let etcd = three();
    assert_eq!(printed(&etcd, &["--port", "transport"]), "10.0.0.5:4300,a:4300,[2001:db8::1]:4301\n");
    assert_eq!(printed(&etcd, &["--port", "http"]), "10.0.0.5:4200,a:4200,[2001:db8::1]:4201\n");
    assert_eq!(printed(&etcd, &["--port", "psql"]), "[2001:db8::1]:5432\n");
}

/// A node that asks for its peers does not want itself.
#[test]
fn excluded_hosts_are_left_out_by_their_key() {
    let etcd = three();
    assert_eq!(printed(&etcd, &["--exclude", "a"]), "10.0.0.5:4300,[2001:db8::1]:4301\n");
    assert_eq!(printed(&etcd, &["--exclude", "a", "--exclude", "b"]), "10.0.0.5:4300\n");
    // `b` is excluded by its key, not by its address.
    assert_eq!(
        printed(&etcd, &["--exclude", "2001:db8::1", "--exclude", "10.0.0.5"]),
        "a:4300,[2001:db8::1]:4301\n"
    );
}

#[test]
fn failed_read_is_never_an_empty_list() {
    let mut etcd = three();
    etcd.freeze();
    for format in ["csv", "lines", "json", "env"] {
        assert_failed(&run(hosts(&etcd, &["--format", format, "--request-timeout", "300ms"])), 69);
    }
    etcd.thaw();
    etcd.kill();
    for format in ["csv", "lines", "json", "env"] {
        assert_failed(&run(hosts(&etcd, &["--format", format])), 69);
    }
}

#[test]
fn wait_for_ends_as_soon_as_enough_hosts_are_there() {
    let mut etcd = Etcd::start();
    put(&etcd, &[("a", DEFAULT_VALUE)]);
    assert_eq!(printed(&etcd, &["--wait-for", "1"]), "a:4300\n");

    etcd.kill();
    let command = hosts(&etcd, &["--wait-for", "2", "--timeout", "1m"]);
    let waiting = thread::spawn(move || run(command));
    // Long enough for an outage to be met; it must not end it.
    thread::sleep(Duration::from_secs(1));
    etcd.restart();
    thread::sleep(Duration::from_secs(1));
    assert!(!waiting.is_finished(), "one host is not two");
    put(&etcd, &[("b", DEFAULT_VALUE)]);
    assert_eq!(waiting.join().unwrap().printed(), "a:4300,b:4300\n");
}

/// How often etcd was asked for keys.
fn lists(etcd: &Etcd) -> f64 {
    let labels = r#"grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
    etcd.metric(&format!("grpc_server_started_total{{{labels}}}"))
}

/// `hosts` that waits for one host more than there are, and has listed.
fn waiting(etcd: &Etcd, args: &[&str]) -> Daemon {
    let before = lists(etcd);
    let daemon = Daemon::spawn(hosts(etcd, &[&["--wait-for", "2"], args].concat()));
    eventually_eq("it lists", PATIENCE, &(before + 1.0), || lists(etcd));
    thread::sleep(Duration::from_millis(500));
    daemon
}

/// It follows: whoever lists again and again costs etcd as much as all the others together.
#[test]
fn wait_for_lists_once_and_hears_of_the_rest() {
    let etcd = Etcd::start();
    put(&etcd, &[("a", DEFAULT_VALUE)]);
    let before = lists(&etcd);
    let command = hosts(&etcd, &["--wait-for", "2", "--timeout", "1m"]);
    let waiting = thread::spawn(move || run(command));
    eventually_eq("it lists, and follows", PATIENCE, &(before + 1.0), || lists(&etcd));
    stays("no list", Duration::from_secs(2), &(before + 1.0), || lists(&etcd));
    let start = Instant::now();
    put(&etcd, &[("b", DEFAULT_VALUE)]);
    assert_eq!(waiting.join().unwrap().printed(), "a:4300,b:4300\n");
    assert!(start.elapsed() < AT_ONCE + SLACK, "{:?}", start.elapsed());
}

#[test]
fn wait_for_ends_when_etcd_begins_to_refuse() {
    let mut etcd = Etcd::start();
    put(&etcd, &[("a", DEFAULT_VALUE)]);
    let mut waiting = waiting(&etcd, &["--timeout", "15s"]);
    etcd.enable_auth(&[]);
    // It looks three times in that time.
    assert_eq!(waiting.wait(PATIENCE), 77, "{}", waiting.stderr());
}

#[test]
fn wait_for_tells_that_etcd_went_away_while_it_waited() {
    let mut etcd = Etcd::start();
    put(&etcd, &[("a", DEFAULT_VALUE)]);
    let dir = scratch();
    let path = dir.path().join("seeds");
    fs::write(&path, "what it was\n").unwrap();
    let mut stale = waiting(&etcd, &["--timeout", "5s", "--output", arg(&path), "--allow-stale"]);
    let mut strict = waiting(&etcd, &["--timeout", "5s"]);
    etcd.kill();
    assert_eq!(stale.wait(PATIENCE), 0, "{}", stale.stderr());
    assert_eq!(strict.wait(PATIENCE), 69, "{}", strict.stderr());
    assert!(strict.stderr().contains("failed to read the hosts from etcd"), "{}", strict.stderr());
    assert_eq!(fs::read_to_string(&path).unwrap(), "what it was\n");
}

#[test]
fn wait_for_that_is_not_met_changes_nothing() {
    let etcd = three();
    let dir = scratch();
    let path = dir.path().join("seeds");
    fs::write(&path, "what it was\n").unwrap();
    let cases: [&[&str]; 4] = [
        &["--wait-for", "4"],
        &["--wait-for", "4", "--output", arg(&path)],
        &["--wait-for", "3", "--exclude", "a"],
        &["--wait-for", "2", "--port", "psql"],
    ];
    for case in cases {
        let start = Instant::now();
        let finished = run(hosts(&etcd, &[case, &["--timeout", "1s"]].concat()));
        assert_failed(&finished, 69);
        assert!(start.elapsed() >= Duration::from_secs(1), "{case:?}: it has to wait");
        assert!(start.elapsed() < Duration::from_secs(1) + SLACK, "{case:?}: {:?}", start.elapsed());
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "what it was\n");
}

/// Waiting cannot cure a refusal.
#[test]
fn wait_for_ends_at_once_when_etcd_refuses_us() {
    let mut etcd = Etcd::start();
    etcd.enable_auth(&[]);
    let start = Instant::now();
    assert_failed(&run(hosts(&etcd, &["--wait-for", "1", "--timeout", "1m"])), 77);
    assert!(start.elapsed() < AT_ONCE + SLACK);
}

#[test]
fn reader_that_went_away_is_no_error() {
    let etcd = three();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = hosts(&etcd, &[]);
    let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn full_disk_under_stdout_is_an_error() {
    let etcd = three();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = hosts(&etcd, &[]);
    let output = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.lines().last().is_some_and(|line| line.starts_with("error: ")), "{stderr}");
}

#[test]
fn signal_ends_the_wait() {
    let etcd = Etcd::start();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let command = hosts(&etcd, &["--wait-for", "1", "--timeout", "5m"]);
        let mut waiting = Daemon::spawn(command);
        // It has begun to wait once it is known to etcd; before that the signal ends it all the same.
        thread::sleep(Duration::from_millis(300));
        assert_eq!(waiting.end(signal, AT_ONCE + SLACK), code);
    }
}

#[test]
fn etcd_is_found_where_etcdctl_finds_it() {
    let etcd = three();
    let mut command = tool();
    command.arg("hosts").env("ETCDCTL_ENDPOINTS", format!("127.0.0.1:{}", etcd.port()));
    assert_eq!(run(command).printed(), "10.0.0.5:4300,a:4300,[2001:db8::1]:4301\n");
}
