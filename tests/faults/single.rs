//! One etcd, one announcer, one fault: rows 1 to 6, 10, 12, 16 and 17.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    OUTLIVED, is_back, key,
    support::{
        AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK, TTL,
        daemon::Daemon,
        etcd::Etcd,
        eventually,
        observer::{Observer, Raw},
        round,
    },
};

/// Row 1.
#[test]
fn etcd_that_is_down_at_the_start_is_waited_for_and_said_once() {
    let mut etcd = Etcd::start();
    etcd.kill();
    let mut daemon = Daemon::announce(&etcd, "h1", &[]);
    daemon.says("starting", PATIENCE);
    daemon.says("endpoint left", PATIENCE);
    // Several rounds; nothing ever gives up, and nothing is said again.
    sleep(2 * round(TTL));
    assert_eq!(daemon.lines("endpoint left").len(), 1, "{}", daemon.stderr());
    assert_eq!(daemon.ended(), None);
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    assert!(open < 20, "{open} open files after some rounds in vain");

    etcd.restart();
    is_back(&etcd, round(TTL) + SLACK);
    daemon.says("etcd answers again", AT_ONCE);
}

/// So long that no tick comes within any bound here: what is seen within a second, a live watch saw.
const WATCHED: [&str; 2] = ["--ttl", "60s"];

/// Row 2.
#[test]
fn key_that_was_deleted_by_hand_is_back_at_once() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut daemon = Daemon::announced(&etcd, "h1", &WATCHED);
    etcd.etcdctl(&["del", &key()]);
    let deleted = observer.next_delete(&key(), 0, PATIENCE);
    let back = observer.next_put(&key(), deleted.revision, AT_ONCE + SLACK);
    assert_eq!(back.value, DEFAULT_VALUE);
    assert!(back.at - deleted.at < AT_ONCE + SLACK, "{:?}", back.at - deleted.at);
    daemon.says("lost", AT_ONCE);
    // However it came back, one lease holds it and no other is left over.
    eventually("one lease is left", OUTLIVED + SLACK, || {
        let leases = etcd.leases();
        if leases.len() == 1 { Ok(()) } else { Err(format!("{leases:?}")) }
    });
}

/// Row 2.
#[test]
fn key_that_was_overwritten_without_a_lease_is_put_back_under_ours() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let _daemon = Daemon::announced(&etcd, "h1", &WATCHED);
    etcd.etcdctl(&["put", &key(), "by hand"]);
    let by_hand = observer.next(&key(), 0, PATIENCE, |event| event.value == "by hand");
    let back = observer.next_put(&key(), by_hand.revision, AT_ONCE + SLACK);
    assert_eq!(back.value, DEFAULT_VALUE);
    assert_eq!(etcd.leases(), [back.lease]);
    assert!(observer.history(&key()).iter().all(|event| event.put), "it is never missing");
}

/// Row 2: a script with `put --ignore-lease` leaves the lease and takes the value.
#[test]
fn value_that_was_overwritten_under_our_lease_is_restored() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let _daemon = Daemon::announced(&etcd, "h1", &WATCHED);
    etcd.etcdctl(&["put", "--ignore-lease", &key(), "by hand"]);
    let by_hand = observer.next(&key(), 0, PATIENCE, |event| event.value == "by hand");
    let back = observer.next_put(&key(), by_hand.revision, AT_ONCE + SLACK);
    assert_eq!(back.value, DEFAULT_VALUE);
    assert!(observer.history(&key()).iter().all(|event| event.put), "it is never missing");
}

/// Row 2, and `docs/design.md`, "Repair": two programs that both insist must not saturate etcd.
#[test]
fn key_that_is_overwritten_again_and_again_is_put_back_once_a_second_after_the_first_five() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut raw = Raw::connect(&etcd);
    let _daemon = Daemon::announced(&etcd, "h1", &WATCHED);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        raw.put(key().as_bytes(), b"by hand");
        sleep(Duration::from_millis(50));
    }
    let last = raw.put(key().as_bytes(), b"by hand");
    observer.next(&key(), last, AT_ONCE + SLACK, |event| event.value == DEFAULT_VALUE);
    let seconds = start.elapsed().as_secs() as usize;
    let heard = observer.history(&key());
    let answers = heard.iter().skip(1).filter(|event| event.value == DEFAULT_VALUE).count();
    assert!((5..=5 + seconds + 2).contains(&answers), "{answers} answers in {seconds} s");
}

/// Row 3.
#[test]
fn lease_that_was_revoked_by_hand_is_replaced_at_once() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut daemon = Daemon::announced(&etcd, "h1", &WATCHED);
    let first = observer.next_put(&key(), 0, PATIENCE);
    etcd.etcdctl(&["lease", "revoke", &format!("{:x}", first.lease)]);
    let deleted = observer.next_delete(&key(), 0, PATIENCE);
    let back = observer.next_put(&key(), deleted.revision, AT_ONCE + SLACK);
    assert_ne!(back.lease, first.lease, "a lease id is never used again");
    assert_eq!(back.value, DEFAULT_VALUE);
    daemon.says("lost", AT_ONCE);
}

/// Row 35: the first five losses are repaired at once, whatever took the key.
#[test]
fn three_losses_within_a_second_are_each_repaired_at_once() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut raw = Raw::connect(&etcd);
    let _daemon = Daemon::announced(&etcd, "h1", &WATCHED);
    let mut back = observer.next_put(&key(), 0, PATIENCE);
    let (start, mut worst) = (Instant::now(), Duration::ZERO);
    for loss in 0..3 {
        match loss {
            0 => raw.delete(key().as_bytes()),
            1 => _ = etcd.etcdctl(&["lease", "revoke", &format!("{:x}", back.lease)]),
            _ => _ = raw.put(key().as_bytes(), b"by hand"),
        }
        let lost = observer.next(&key(), back.revision, PATIENCE, |event| event.value != DEFAULT_VALUE);
        back = observer.next(&key(), lost.revision, PATIENCE, |event| event.value == DEFAULT_VALUE);
        worst = worst.max(back.at - lost.at);
    }
    let all = start.elapsed();
    println!(
        "three losses were repaired within {} ms, the slowest in {} ms",
        all.as_millis(),
        worst.as_millis()
    );
    // One a second would be two seconds at least.
    assert!(all < Duration::from_millis(1500), "{all:?}, the slowest {worst:?}");
}

/// Row 4.
#[test]
fn key_is_never_missing_across_a_restart_of_etcd() {
    let mut etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let daemon = Daemon::announced(&etcd, "h1", &[]);
    etcd.kill();
    etcd.restart();
    // Were the lease not kept alive again, it would end in here.
    sleep(OUTLIVED);
    let history = observer.history(&key());
    assert_eq!(history.len(), 1, "{history:#?}");
    assert_eq!(daemon.lines("announced").len(), 1, "{}", daemon.stderr());
    // It was over before a TTL was.
    assert!(daemon.lines("no renewal for a TTL").is_empty(), "{}", daemon.stderr());
}

/// Row 5: etcd prolongs its leases when it starts, so the old one is still good.
#[test]
fn key_is_kept_when_etcd_returns_with_its_data_after_more_than_a_ttl() {
    let mut etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let _daemon = Daemon::announced(&etcd, "h1", &[]);
    etcd.kill();
    sleep(TTL + Duration::from_secs(2));
    etcd.restart();
    is_back(&etcd, round(TTL) + SLACK);
    sleep(OUTLIVED);
    let history = observer.history(&key());
    assert_eq!(history.len(), 1, "{history:#?}");
}

/// Row 6.
#[test]
fn key_returns_after_etcd_lost_its_data() {
    let mut etcd = Etcd::start();
    let _daemon = Daemon::announced(&etcd, "h1", &[]);
    let before = etcd.key(&key()).expect("announced").lease;
    etcd.wipe();
    is_back(&etcd, round(TTL) + SLACK);
    assert_ne!(etcd.key(&key()).expect("back").lease, before, "a lease id is never used again");
    // One return, not one after the other.
    sleep(TTL);
    let history = Observer::start(&etcd).history(&key());
    assert_eq!(history.len(), 1, "{history:#?}");
}

/// Row 6, where the new store has already more revisions than the old one had: a watch resumed at
/// the old revision would hear nothing for ever.
#[test]
fn key_that_is_deleted_after_etcd_lost_its_data_returns_again() {
    let mut etcd = Etcd::start();
    Raw::connect(&etcd).put_all((0..2000).map(|i| (format!("/other/{i}"), String::new())));
    let _daemon = Daemon::announced(&etcd, "h1", &[]);
    etcd.wipe();
    is_back(&etcd, round(TTL) + SLACK);
    etcd.etcdctl(&["del", &key()]);
    is_back(&etcd, AT_ONCE + SLACK);
}

/// Row 10, of one member.
#[test]
fn key_returns_after_etcd_was_frozen_for_longer_than_its_ttl() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    etcd.freeze();
    // One attempt to notice, one keep-alive interval at most before it.
    daemon.says("endpoint left", TTL);
    sleep(TTL + Duration::from_secs(2));
    etcd.thaw();
    // The thawed etcd may still end the lease after a keep-alive came in: what counts is where it settles.
    sleep(round(TTL));
    is_back(&etcd, SLACK);
    let settled = observer.history(&key()).len();
    sleep(OUTLIVED);
    let history = observer.history(&key());
    assert_eq!(history.len(), settled, "{history:#?}");
}

/// Row 12.
#[test]
fn key_returns_after_we_were_stopped_for_longer_than_its_ttl() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let daemon = Daemon::announced(&etcd, "h1", &[]);
    daemon.freeze();
    let ended = observer.next_delete(&key(), 0, TTL + AT_ONCE + SLACK);
    let thawed = Instant::now();
    daemon.thaw();
    let back = observer.next_put(&key(), ended.revision, AT_ONCE + SLACK);
    assert!(back.at - thawed < AT_ONCE + SLACK);
    assert_eq!(back.value, DEFAULT_VALUE);
}

/// Row 16.
#[test]
fn key_of_a_killed_announcer_ends_with_its_lease() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    let killed = Instant::now();
    assert_eq!(daemon.end(Signal::KILL, PATIENCE), 137);
    let ended = observer.next_delete(&key(), 0, TTL + AT_ONCE + SLACK);
    assert!(ended.at - killed < TTL + AT_ONCE + SLACK, "{:?}", ended.at - killed);
    assert_eq!(etcd.leases(), Vec::<i64>::new());
}

/// Row 17.
#[test]
fn restart_after_a_kill_is_one_put_and_no_delete() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    daemon.end(Signal::KILL, PATIENCE);
    let restarted = Instant::now();
    let _daemon = Daemon::announced(&etcd, "h1", &[]);
    assert!(restarted.elapsed() < TTL, "it does not wait for the old lease to end");
    // The dead one's lease ends in here, and must not take the key along.
    eventually("the dead one's lease has ended", OUTLIVED + SLACK, || {
        let leases = etcd.leases();
        if leases.len() == 1 { Ok(()) } else { Err(format!("{leases:?}")) }
    });
    let history = observer.history(&key());
    assert_eq!(history.iter().map(|event| event.put).collect::<Vec<_>>(), [true, true], "{history:#?}");
    assert_ne!(history[0].lease, history[1].lease);
}
