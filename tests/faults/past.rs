//! Time and history: rows 23 and 24.

use std::{fs, path::Path, thread::sleep};

use crate::{
    is_back, key,
    support::{
        PATIENCE, SLACK, TTL,
        daemon::{Daemon, announce},
        etcd::{Etcd, scratch},
        observer::{Observer, Raw},
        round, stays,
    },
};

/// Row 23: the revision that the watch began at is compacted away, and the connection with it.
#[test]
fn compaction_leaves_no_gap() {
    let mut etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut raw = Raw::connect(&etcd);
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    // Not the observer's watch is to be compacted away: it has to have caught up.
    let last = (0..50).map(|n| raw.put(b"/other", format!("{n}").as_bytes())).last().unwrap();
    observer.history(&key());
    etcd.etcdctl(&["compact", &last.to_string()]);
    let seen = etcd.key(&key());
    etcd.kill();
    etcd.restart();
    daemon.says("etcd answers again", round(TTL) + SLACK);
    stays("the key", TTL, &seen, || etcd.key(&key()));
    assert_eq!(observer.history(&key()).len(), 1, "one PUT, no DELETE");

    // The new watch is a live one.
    etcd.etcdctl(&["del", &key()]);
    is_back(&etcd, SLACK);
}

/// Row 23: a store that went back to a backup from before we announced.
#[test]
fn store_that_went_back_in_time_gets_the_key_again() {
    let mut etcd = Etcd::start();
    let dir = scratch();
    let backup = dir.path().join("backup");
    etcd.kill();
    etcd.back_up(&backup);
    etcd.restart();
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    etcd.kill();
    etcd.restore(&backup);
    etcd.restart();
    is_back(&etcd, round(TTL) + SLACK);
    daemon.says_times("announced", 2, PATIENCE);
}

/// Row 24. The clock of this machine cannot be set, so that of the process is; its monotonic clock
/// goes on, as it does when a real clock is set.
#[test]
fn wall_clock_that_jumps_a_day_changes_nothing() {
    let library = ["x86_64", "aarch64"]
        .map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("libfaketime is not installed: apt-get install libfaketime");
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let dir = scratch();
    let offset = dir.path().join("offset");
    fs::write(&offset, "+0").unwrap();
    let mut command = announce(&etcd, "h1", &[]);
    command
        .env("LD_PRELOAD", library)
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_TIMESTAMP_FILE", &offset);
    let mut daemon = Daemon::spawn(command);
    daemon.says("announced", PATIENCE);
    for jump in ["+1d", "-1d", "+0"] {
        fs::write(&offset, jump).unwrap();
        sleep(TTL);
    }
    let history = observer.history(&key());
    assert_eq!(history.len(), 1, "one PUT, no DELETE: {history:#?}");
    assert_eq!(daemon.lines("endpoint left"), Vec::<String>::new(), "{}", daemon.stderr());

    // The clock that jumped is the process's own: its next log line is a day off.
    fs::write(&offset, "+1d").unwrap();
    let today = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    etcd.etcdctl(&["del", &key()]);
    is_back(&etcd, SLACK);
    let said = daemon.says("lost", PATIENCE);
    assert_ne!(said[..10], today[..10], "libfaketime had no effect: {said}");
}
