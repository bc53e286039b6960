//! An etcd that is full, rows 22 and 25: of its quota, or of other people's keys.

use std::time::Instant;

use rustix::process::Signal;

use crate::{
    OUTLIVED, is_back, key,
    support::{
        AT_ONCE, PATIENCE, SLACK, TTL,
        daemon::{Daemon, hosts, run},
        etcd::Etcd,
        eventually, key_of,
        observer::Raw,
        round, stays,
    },
};

/// Row 22.
#[test]
fn full_etcd_keeps_the_key_and_takes_new_claims_when_there_is_space_again() {
    let etcd = Etcd::start_with_flags(&["--quota-backend-bytes=8388608"]);
    let mut old = Daemon::announced(&etcd, "h1", &[]);
    let before = etcd.key(&key()).expect("announced");
    let mut command = etcd.etcdctl_command();
    // One command that fills whatever there is: etcdctl reads the value from stdin.
    command.args(["put", "/fill"]);
    let megabyte = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(megabyte.path(), vec![b'x'; 1_000_000]).unwrap();
    eventually("etcd is full", PATIENCE, || {
        let value = std::fs::File::open(megabyte.path()).unwrap();
        let output = command.stdin(value).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if stderr.contains("database space exceeded") { Ok(()) } else { Err(stderr) }
    });

    let mut new = Daemon::announce(&etcd, "h2", &[]);
    new.says("etcd is out of space", PATIENCE);
    stays("the old key stays", OUTLIVED, &Some(before.clone()), || etcd.key(&key()));
    assert_eq!(etcd.key(&key_of("h2")), None);
    assert_eq!((old.ended(), new.ended()), (None, None));

    etcd.etcdctl(&["del", "/fill"]);
    let revision = etcd.etcdctl(&["get", "/", "--write-out=fields"]);
    let revision = revision.lines().find_map(|l| l.strip_prefix("\"Revision\" : ")).expect("a revision");
    etcd.etcdctl(&["compact", revision]);
    etcd.etcdctl(&["defrag"]);
    etcd.etcdctl(&["alarm", "disarm"]);
    new.says("announced", round(TTL) + SLACK);
    assert_eq!(etcd.key(&key()), Some(before));
}

/// Row 25.
#[test]
fn ten_thousand_other_keys_and_twenty_huge_ones_change_nothing() {
    let etcd = Etcd::start();
    let mut raw = Raw::connect(&etcd);
    raw.put_all((0..10_000).map(|i| (key_of(&format!("junk/{i}")), "\u{1b}junk".to_owned())));
    let huge = vec![b'x'; 1_400_000];
    for i in 0..20 {
        raw.put(key_of(&format!("huge-{i}")).as_bytes(), &huge);
    }
    let started = Instant::now();
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    assert!(started.elapsed() < AT_ONCE + SLACK, "{:?}", started.elapsed());
    assert_eq!(run(hosts(&etcd, &[])).printed(), "h1:4300\n");
    etcd.etcdctl(&["del", &key()]);
    is_back(&etcd, AT_ONCE + SLACK);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&key()), None);
    // It reads its own key only; what lies beside it is no business of an announcer.
    assert!(daemon.stderr().len() < 10_000, "{}", daemon.stderr().len());
}
