//! `status`: what it shows, to whom, and how it ends. Etcd's side is read back through `etcdctl`.

mod support;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    DEFAULT_VALUE, PATIENCE, SLACK, TTL,
    daemon::{Daemon, Finished, run, tool, tool_behind},
    etcd::{Etcd, scratch},
    key_of,
    observer::Raw,
};

fn status(etcd: &Etcd, args: &[&str]) -> Command {
    let mut command = tool();
    command.args(["status", "--endpoints", &etcd.url()]).args(args);
    command
}

fn nodes(finished: Finished) -> Vec<Value> {
    let object: Value = serde_json::from_str(&finished.printed()).expect("it printed JSON");
    object["nodes"].as_array().expect("nodes are a list").clone()
}

#[test]
fn status_shows_each_host_with_lease_and_time_left() {
    let etcd = Etcd::start();
    let _b = Daemon::announced(&etcd, "b", &["--address", "10.0.0.5", "--psql", "5432", "--ttl", "77s"]);
    let _a = Daemon::announced(&etcd, "a", &[]);
    etcd.etcdctl(&["put", &key_of("by-hand"), r#"{"http":1,"transport":2}"#]);

    let nodes = nodes(run(status(&etcd, &["--format", "json"])));
    assert_eq!(nodes.iter().map(|node| &node["host"]).collect::<Vec<_>>(), ["a", "b", "by-hand"]);
    let stored = etcd.key(&key_of("b")).expect("announced");
    let b = &nodes[1];
    assert_eq!((&b["address"], &b["psql"]), (&json!("10.0.0.5"), &json!(5432)));
    assert_eq!(b["lease"], format!("{:x}", stored.lease));
    assert_eq!(b["mod_revision"], stored.mod_revision);
    assert_eq!(b["ttl"], 77);
    assert!(b["ttl_left"].as_u64().is_some_and(|left| (50..=77).contains(&left)), "{b}");
    let by_hand = &nodes[2];
    assert_eq!((&by_hand["lease"], &by_hand["ttl_left"]), (&json!(null), &json!(null)));

    let text = run(status(&etcd, &[])).printed();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[0], ["HOST", "ADDRESS", "HTTP", "TRANSPORT", "PSQL", "LEASE", "TTL LEFT", "REVISION"]);
    assert_eq!(lines[2][..5], ["b", "10.0.0.5", "4200", "4300", "5432"]);
    assert_eq!(lines[3][..6], ["by-hand", "-", "1", "2", "-", "-"]);
    assert!(!text.contains('\x1b'), "no colour elsewhere than on a terminal");
}

#[test]
fn terminal_gets_columns_and_colour() {
    let etcd = Etcd::start();
    let _a = Daemon::announced(&etcd, "a", &[]);
    // script(1) of util-linux runs a command on a terminal of its own.
    let scratch = scratch();
    let log = scratch.path().join("typescript");
    let shown = |no_colour: &str| {
        let line = format!("{} status --endpoints {}", env!("CARGO_BIN_EXE_crate-discovery"), etcd.url());
        let mut command = tool_behind("script", &["-q", "-e", "-c", &line]);
        command.arg(&log).env("NO_COLOR", no_colour);
        run(command).printed()
    };
    assert!(shown("").starts_with("\x1b[1mHOST  ADDRESS  HTTP  TRANSPORT"), "{:?}", shown(""));
    assert!(shown("1").starts_with("HOST  ADDRESS  HTTP  TRANSPORT"), "{:?}", shown("1"));
}

#[test]
fn status_of_a_host_ends_with_0_when_it_is_announced_and_3_when_not() {
    let etcd = Etcd::start();
    let mut h1 = Daemon::announced(&etcd, "h1", &[]);
    let _h10 = Daemon::announced(&etcd, "h10", &[]);
    let found = nodes(run(status(&etcd, &["--host", "h1", "--format", "json"])));
    assert_eq!(found.iter().map(|node| &node["host"]).collect::<Vec<_>>(), ["h1"]);

    assert_eq!(h1.end(Signal::TERM, PATIENCE), 0);
    let finished = run(status(&etcd, &["--host", "h1"]));
    assert_eq!((finished.code, finished.stdout.as_str()), (3, ""));
    assert_eq!(finished.stderr, "error: h1 is not announced\n");

    // What is no announcement announces nobody.
    etcd.etcdctl(&["put", &key_of("h1"), "junk"]);
    let finished = run(status(&etcd, &["--host", "h1"]));
    assert_eq!(finished.code, 3, "{}", finished.stderr);
    assert!(finished.stderr.contains("skipped a key that is no announcement"), "{}", finished.stderr);
}

#[test]
fn health_check_takes_the_host_that_announce_takes() {
    let etcd = Etcd::start();
    let own = |host: &str| {
        let mut command = status(&etcd, &["--self"]);
        command.env("CRATE_DISCOVERY_HOST", host);
        run(command)
    };
    assert_eq!(own("h1").code, 3);
    let _h1 = Daemon::announced(&etcd, "h1", &[]);
    assert_eq!(own("h1").code, 0);

    let finished = own("-x");
    assert_eq!(finished.code, 2);
    assert!(
        finished.stderr.starts_with(r#"error: invalid value "-x" for CRATE_DISCOVERY_HOST: "#),
        "{}",
        finished.stderr
    );

    // Unset: the system's own name, which nobody announces here.
    let finished = own("");
    assert!(matches!(finished.code, 3 | 78), "{}", finished.stderr);

    // `--host` of the other verbs is no variable: a leftover one would change what a script prints.
    let mut all = status(&etcd, &["--format", "json"]);
    all.env("CRATE_DISCOVERY_HOST", "nobody");
    assert_eq!(nodes(run(all)).len(), 1);
}

#[test]
fn outage_of_etcd_is_not_the_sidekicks_illness() {
    let mut etcd = Etcd::start();
    let own = |etcd: &Etcd| {
        let mut command = status(etcd, &["--self", "--request-timeout", "500ms"]);
        command.env("CRATE_DISCOVERY_HOST", "h1");
        run(command)
    };
    etcd.freeze();
    let began = Instant::now();
    let finished = own(&etcd);
    assert_eq!((finished.code, finished.stdout.as_str()), (0, ""), "{}", finished.stderr);
    assert!(began.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", began.elapsed());
    assert!(finished.stderr.contains("etcd cannot be asked"), "{}", finished.stderr);
    etcd.thaw();
    etcd.kill();
    assert_eq!(own(&etcd).code, 0);

    let finished = run(status(&etcd, &["--host", "h1"]));
    assert_eq!((finished.code, finished.stdout.as_str()), (69, ""));
    assert!(finished.stderr.contains("error: failed to read the status from etcd: "), "{}", finished.stderr);
}

#[test]
fn refusal_is_said_and_is_no_outage() {
    let mut etcd = Etcd::start();
    etcd.enable_auth(&[]);
    for args in [&["--host", "h1"][..], &["--self"]] {
        let mut command = status(&etcd, args);
        command.env("CRATE_DISCOVERY_HOST", "h1");
        let finished = run(command);
        assert_eq!(finished.code, 77, "{}", finished.stderr);
    }
}

#[test]
fn role_of_one_host_suffices_for_status() {
    let mut etcd = Etcd::start();
    etcd.enable_auth(&[(
        "h1",
        "secret",
        &[&["readwrite", &key_of("h1")], &["--prefix=true", "read", "/services/crate/"]],
    )]);
    let login = |mut command: Command| {
        command.env("ETCDCTL_USER", "h1:secret");
        command
    };
    let mut daemon = tool();
    daemon.args(["announce", "--endpoints", &etcd.url(), "--host", "h1"]);
    daemon.args(["--ttl", &format!("{}s", TTL.as_secs())]);
    let mut daemon = Daemon::spawn(login(daemon));
    daemon.says("announced", PATIENCE);
    let found = nodes(run(login(status(&etcd, &["--format", "json"]))));
    assert_eq!(found[0]["ttl"], TTL.as_secs(), "{found:?}");
}

#[test]
fn thousands_of_hosts_are_shown() {
    let etcd = Etcd::start();
    let lease = etcd.grant(Duration::from_secs(600));
    let pairs = (0..3000).map(|n| (key_of(&format!("n{n:04}")), DEFAULT_VALUE.to_owned()));
    Raw::connect(&etcd).put_all_under(lease, pairs);
    let found = nodes(run(status(&etcd, &["--format", "json"])));
    assert_eq!(found.len(), 3000);
    assert!(found.iter().all(|node| node["ttl"] == 600), "each has its TTL");
}
