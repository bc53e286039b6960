//! Nothing happens, for long: no fault, and not to be taken for one.

use std::time::Duration;

use crate::support::{
    PATIENCE,
    daemon::{Daemon, field},
    etcd::Etcd,
    key_of, stays,
};

/// Longer than a watch goes without a sign of life before it asks for one (10 s), and than it then
/// waits for the answer (less than 1 s at a TTL of 5 s).
const QUIET: Duration = Duration::from_secs(14);

/// Since 3.6 etcd answers no such question while a watch waits for a revision that is not there yet.
#[test]
fn watch_on_a_quiet_etcd_is_not_taken_for_dead() {
    let etcd = Etcd::start();
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    let mut elder = Daemon::announced(&etcd, "h2", &[]);
    let _holder = Daemon::announced(&etcd, "h2", &["--http", "4201"]);
    let said = elder.says("standing by", PATIENCE);
    assert!(field(&said, "holder").is_some(), "{said}");
    let seen = etcd.key(&key_of("h1"));
    stays("the key", QUIET, &seen, || etcd.key(&key_of("h1")));
    for daemon in [&mut daemon, &mut elder] {
        assert_eq!(daemon.lines("endpoint left"), Vec::<String>::new(), "{}", daemon.stderr());
        assert_eq!(daemon.ended(), None);
    }
}
