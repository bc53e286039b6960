//! `watch` on stdout.

use std::{fs, io::Read, process::Stdio, time::Duration};

use rustix::process::Signal;

use crate::{
    delete, put,
    support::{
        AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK,
        daemon::{Daemon, announce, watch},
        etcd::{Etcd, arg, scratch},
        eventually, eventually_eq, key_of,
        observer::Raw,
        stays,
    },
};

#[test]
fn joins_and_leaves_are_printed_as_they_happen() {
    let etcd = Etcd::start();
    let mut watching = Daemon::spawn_printing(watch(&etcd, &[]));
    watching.prints("\n", PATIENCE);
    let mut first = Daemon::spawn(announce(&etcd, "a", &[]));
    watching.prints("\na:4300\n", PATIENCE);
    let _second = Daemon::spawn(announce(&etcd, "b", &["--address", "2001:db8::1", "--transport", "4301"]));
    watching.prints("\na:4300\na:4300,[2001:db8::1]:4301\n", PATIENCE);
    assert_eq!(first.end(Signal::TERM, PATIENCE), 0);
    watching.prints("\na:4300\na:4300,[2001:db8::1]:4301\n[2001:db8::1]:4301\n", AT_ONCE + SLACK);
}

#[test]
fn each_format_is_that_of_hosts_with_an_end_to_each_snapshot() {
    let etcd = Etcd::start();
    let mut watching = ["csv", "lines", "json", "env"]
        .map(|format| Daemon::spawn_printing(watch(&etcd, &["--format", format])));
    let empty = ["\n", "\n", "{\"revision\":1,\"nodes\":[]}\n", "CRATE_SEED_HOSTS=\nCRATE_SEED_FLAGS=\n\n"];
    for (daemon, expected) in watching.iter_mut().zip(empty) {
        daemon.prints(expected, PATIENCE);
    }
    put(&etcd, &["a"]);
    let one = [
        "a:4300\n",
        "a:4300\n\n",
        "{\"revision\":2,\"nodes\":[{\"host\":\"a\",\"address\":null,\"http\":4200,\"transport\":4300,\"psql\":null}]}\n",
        "CRATE_SEED_HOSTS=a:4300\nCRATE_SEED_FLAGS=-Cdiscovery.seed_hosts=a:4300\n\n",
    ];
    for (daemon, (before, now)) in watching.iter_mut().zip(empty.into_iter().zip(one)) {
        daemon.prints(&[before, now].concat(), AT_ONCE + SLACK);
        assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    }
}

#[test]
fn only_what_is_selected_is_printed_and_only_when_it_changes() {
    let etcd = Etcd::start();
    let mut raw = Raw::connect(&etcd);
    raw.put(key_of("me").as_bytes(), DEFAULT_VALUE.as_bytes());
    let mut seeds = Daemon::spawn_printing(watch(&etcd, &["--exclude", "me"]));
    let mut json = Daemon::spawn_printing(watch(&etcd, &["--format", "json", "--exclude", "me"]));
    let mut psql = Daemon::spawn_printing(watch(&etcd, &["--port", "psql"]));
    seeds.prints("\n", PATIENCE);
    json.prints("{\"revision\":2,\"nodes\":[]}\n", PATIENCE);
    psql.prints("\n", PATIENCE);
    let told = |json: &Daemon| -> Vec<String> {
        json.stdout().lines().map(|line| line.split(',').next().unwrap().to_owned()).collect()
    };
    let of = |revisions: &[i64]| -> Vec<String> {
        revisions.iter().map(|revision| format!("{{\"revision\":{revision}")).collect()
    };
    // Of the excluded one; of a neighbour of the prefix; the same again; of a port that is not shown.
    raw.put(key_of("me").as_bytes(), br#"{"http":1,"transport":2,"psql":3}"#);
    psql.prints("\nme:3\n", PATIENCE);
    raw.put(b"/services/crate2/x", DEFAULT_VALUE.as_bytes());
    let first = raw.put(key_of("a").as_bytes(), DEFAULT_VALUE.as_bytes());
    seeds.prints("\na:4300\n", PATIENCE);
    eventually_eq("json tells of the host", PATIENCE, &of(&[2, first]), || told(&json));
    raw.put(key_of("a").as_bytes(), DEFAULT_VALUE.as_bytes());
    let last = raw.put(key_of("a").as_bytes(), br#"{"http":4200,"transport":4300,"psql":5432}"#);
    psql.prints("\nme:3\na:5432,me:3\n", PATIENCE);
    eventually_eq("json tells of each field", PATIENCE, &of(&[2, first, last]), || told(&json));
    assert_eq!(seeds.stdout(), "\na:4300\n");
}

#[test]
fn nothing_is_printed_before_the_first_good_list() {
    let mut etcd = Etcd::start();
    put(&etcd, &["a"]);
    etcd.kill();
    let mut watching = Daemon::spawn_printing(watch(&etcd, &[]));
    watching.says("no endpoint of etcd answers", PATIENCE);
    stays("stdout", Duration::from_secs(1), &String::new(), || watching.stdout());
    etcd.restart();
    watching.prints("a:4300\n", PATIENCE);
}

#[test]
fn refusal_is_retried_until_etcd_lets_us_in() {
    let mut etcd = Etcd::start();
    put(&etcd, &["a"]);
    etcd.enable_auth(&[]);
    let mut watching = Daemon::spawn_printing(watch(&etcd, &[]));
    watching.says("etcd refuses", PATIENCE);
    etcd.etcdctl(&["auth", "disable"]);
    // Back-off after a refusal is up to a minute, but has only begun to grow.
    watching.prints("a:4300\n", PATIENCE);
    assert_eq!(watching.end(Signal::INT, AT_ONCE + SLACK), 0);
}

#[test]
fn reader_that_goes_away_ends_it_at_once() {
    let etcd = Etcd::start();
    put(&etcd, &["a"]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut watching = Daemon::spawn_writing_to(watch(&etcd, &[]), writer.into(), Stdio::piped());
    let mut line = [0; 7];
    reader.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"a:4300\n");
    drop(reader);
    assert_eq!(watching.wait(AT_ONCE + SLACK), 0);
    assert_eq!(watching.stderr(), "");
}

#[test]
fn reader_that_does_not_read_does_not_keep_it_from_ending() {
    let etcd = Etcd::start();
    // More than a pipe holds.
    let hosts =
        (0..10_000).map(|i| (key_of(&format!("host-with-a-long-name-{i}")), DEFAULT_VALUE.to_owned()));
    Raw::connect(&etcd).put_all(hosts);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut watching = Daemon::spawn_writing_to(watch(&etcd, &[]), writer.into(), Stdio::piped());
    // It has begun to write.
    reader.read_exact(&mut [0]).unwrap();
    assert_eq!(watching.end(Signal::TERM, AT_ONCE + SLACK), 0);
}

#[test]
fn full_disk_under_stdout_is_an_error() {
    let etcd = Etcd::start();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut watching = Daemon::spawn_writing_to(watch(&etcd, &[]), full.into(), Stdio::piped());
    assert_eq!(watching.wait(PATIENCE), 1);
    let stderr = watching.stderr();
    assert!(stderr.lines().last().is_some_and(|line| line.starts_with("error: failed to write")), "{stderr}");
}

#[test]
fn output_is_kept_current_instead_of_printing() {
    let etcd = Etcd::start();
    let dir = scratch();
    let path = dir.path().join("seeds");
    let args = ["--format", "env", "--exclude", "me", "--output", arg(&path)];
    let mut watching = Daemon::spawn_printing(watch(&etcd, &args));
    let holds = |expected: &str| {
        eventually("the file is current", PATIENCE, || match fs::read_to_string(&path) {
            Ok(content) if content == expected => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    holds("CRATE_SEED_HOSTS=\nCRATE_SEED_FLAGS=\n");
    put(&etcd, &["a", "me"]);
    holds("CRATE_SEED_HOSTS=a:4300\nCRATE_SEED_FLAGS=-Cdiscovery.seed_hosts=a:4300\n");
    let before = crate::identity(&path);
    delete(&etcd, &["me"]);
    put(&etcd, &["b"]);
    holds("CRATE_SEED_HOSTS=a:4300,b:4300\nCRATE_SEED_FLAGS=-Cdiscovery.seed_hosts=a:4300,b:4300\n");
    assert_ne!(crate::identity(&path).0, before.0, "replaced");
    assert_eq!(watching.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(watching.stdout(), "");
}
