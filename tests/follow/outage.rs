//! Etcd is away, or has lost something: what was known stays, who is new is there at once, who is missing goes after
//! the hold.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    Kept, delete, identity, put,
    support::{
        AT_ONCE, PATIENCE, SLACK,
        daemon::field,
        etcd::{Etcd, scratch},
        stays,
    },
};

/// Long enough to tell "held" from "not yet noticed".
const HOLD: Duration = Duration::from_secs(6);
const HOLD_ARGS: [&str; 2] = ["--hold", "6s"];

#[test]
fn file_stays_while_etcd_is_away_and_that_is_said_once() {
    let mut etcd = Etcd::start();
    put(&etcd, &["a", "b"]);
    let mut kept = Kept::holding(&etcd, &["a", "b"], &HOLD_ARGS);
    let before = identity(&kept.path);
    etcd.kill();
    let stale = kept.daemon.says("the hosts are stale", PATIENCE);
    assert!(field(&stale, "since").is_some() && field(&stale, "hosts").as_deref() == Some("2"), "{stale}");
    stays("the file", HOLD + SLACK, &before, || identity(&kept.path));
    etcd.restart();
    kept.daemon.says("the hosts are live again", PATIENCE);
    stays("the file", SLACK, &before, || identity(&kept.path));
    assert_eq!(kept.daemon.lines("the hosts are stale").len(), 1, "{}", kept.daemon.stderr());
    assert_eq!(kept.daemon.lines("missing after").len(), 0, "{}", kept.daemon.stderr());
    // The new watch is a live one.
    put(&etcd, &["c"]);
    kept.holds(&["a", "b", "c"], AT_ONCE + SLACK);
}

#[test]
fn wiped_etcd_adds_at_once_and_removes_only_after_the_hold() {
    let mut etcd = Etcd::start();
    put(&etcd, &["a", "b"]);
    let mut kept = Kept::holding(&etcd, &["a", "b"], &HOLD_ARGS);
    etcd.wipe();
    let back = Instant::now();
    kept.daemon.says("missing after an outage", PATIENCE);
    let noticed = Instant::now();
    put(&etcd, &["c"]);
    kept.holds(&["a", "b", "c"], AT_ONCE + SLACK);
    put(&etcd, &["b"]);
    // Etcd may have been read a little before its start was over.
    while back.elapsed() < HOLD - SLACK / 2 {
        assert!(kept.content().starts_with("a:4300\n"), "held for {:?} only", back.elapsed());
        sleep(Duration::from_millis(50));
    }
    kept.holds(&["b", "c"], (HOLD + SLACK).saturating_sub(noticed.elapsed()));
}

/// Restored from a backup, with more changes since than the backup had: a watch resumed at the old revision would hear
/// nothing for ever.
#[test]
fn store_that_went_back_in_time_is_listed_again() {
    let mut etcd = Etcd::start();
    put(&etcd, &["a"]);
    let dir = scratch();
    let backup = dir.path().join("backup");
    etcd.kill();
    etcd.back_up(&backup);
    etcd.restart();
    for _ in 0..20 {
        put(&etcd, &["b"]);
    }
    let mut kept = Kept::holding(&etcd, &["a", "b"], &HOLD_ARGS);
    etcd.kill();
    etcd.restore(&backup);
    etcd.restart();
    kept.daemon.says("etcd's store went back in time", PATIENCE);
    put(&etcd, &["c"]);
    kept.holds(&["a", "b", "c"], AT_ONCE + SLACK);
    kept.holds(&["a", "c"], HOLD + SLACK);
}

#[test]
fn who_came_back_after_the_outage_and_leaves_then_goes_at_once() {
    let mut etcd = Etcd::start();
    put(&etcd, &["a", "b"]);
    let mut kept = Kept::holding(&etcd, &["a", "b"], &["--hold", "1h"]);
    etcd.wipe();
    kept.daemon.says("missing after an outage", PATIENCE);
    put(&etcd, &["a"]);
    delete(&etcd, &["a"]);
    kept.holds(&["b"], AT_ONCE + SLACK);
}

/// As when etcd, frozen for longer than a TTL, takes every lease for expired when it goes on: the announcers are about
/// to be back, and nodes that look for peers just then must not find none.
#[test]
fn who_ends_soon_after_an_outage_stays_for_the_hold() {
    let mut etcd = Etcd::start();
    put(&etcd, &["a", "b"]);
    let mut kept = Kept::holding(&etcd, &["a", "b"], &HOLD_ARGS);
    let before = identity(&kept.path);
    etcd.kill();
    kept.daemon.says("the hosts are stale", PATIENCE);
    etcd.restart();
    let back = Instant::now();
    kept.daemon.says("the hosts are live again", PATIENCE);
    delete(&etcd, &["a", "b"]);
    put(&etcd, &["b"]);
    stays("the file", (HOLD - SLACK / 2).saturating_sub(back.elapsed()), &before, || identity(&kept.path));
    kept.holds(&["b"], HOLD + SLACK);
    // Now it is the past.
    delete(&etcd, &["b"]);
    kept.holds(&[], AT_ONCE + SLACK);
}

/// The first list of a process is believed, however long it had to wait for it.
#[test]
fn first_list_removes_at_once() {
    let mut etcd = Etcd::start();
    etcd.kill();
    let mut kept = Kept::start(&etcd, &["--hold", "1h"]);
    kept.daemon.says("no endpoint of etcd answers", PATIENCE);
    std::fs::write(&kept.path, "of-yesterday:4300\n").unwrap();
    etcd.restart();
    kept.holds(&[], PATIENCE);
    put(&etcd, &["a"]);
    kept.holds(&["a"], AT_ONCE + SLACK);
    delete(&etcd, &["a"]);
    kept.holds(&[], AT_ONCE + SLACK);
}
