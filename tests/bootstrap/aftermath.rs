//! New hosts that wait to elect while a cluster runs, and etcd loses its data under both: its sidekicks come back, and no
//! second list is frozen.

use std::{
    env,
    time::{Duration, Instant},
};

use crate::{
    Asking, STORED, ask,
    support::{PATIENCE, daemon::Daemon, etcd::Etcd, eventually},
};

/// How many trials, unless `CRATE_DISCOVERY_AFTERMATH_TRIALS` says otherwise; each takes some seconds.
const TRIALS: usize = 3;

/// Once a candidate saw etcd fail the hold is waited three times, 30 s; the sidekicks are back within 5 s. That much less
/// would do is what the shorter trials cannot show, so they keep the default.
#[test]
fn no_second_list_is_frozen_when_etcd_loses_its_data_under_a_cluster_and_new_hosts_that_wait() {
    let asked = env::var("CRATE_DISCOVERY_AFTERMATH_TRIALS").ok();
    let trials = asked.map_or(TRIALS, |trials| trials.parse().expect("a number of trials"));
    let mut slowest = Duration::ZERO;
    for trial in 0..trials {
        let mut etcd = Etcd::start();
        // The default, 60 s, with the longest pauses between two rounds.
        let announced = ["h1", "h2", "h3"].map(|host| Daemon::announced(&etcd, host, &["--ttl", "60s"]));
        etcd.etcdctl(&["put", &format!("{STORED}formed"), "h1"]);
        etcd.kill();
        // They would be told to join at once as long as a mark or a sidekick is seen.
        let waits =
            ["n1", "n2", "n3"].map(|name| Asking::start(ask(&etcd, name, 3, &["--wait", "--hold", "10s"])));
        // Long enough for the sidekicks' pauses to have grown.
        std::thread::sleep(Duration::from_millis(fastrand::u64(5000..9000)));
        etcd.forget();
        etcd.restart();
        let began = Instant::now();
        for asking in waits {
            let answer = asking.finish(Duration::from_secs(90));
            assert_eq!((answer.code, answer.stdout.as_str()), (0, ""), "trial {trial}: {}", answer.stderr);
            assert!(answer.stderr.contains("a cluster exists"), "trial {trial}: {}", answer.stderr);
        }
        slowest = slowest.max(began.elapsed());
        assert_eq!(etcd.key(&format!("{STORED}list")), None, "trial {trial}");
        eventually("all are announced again", PATIENCE, || match etcd.announced().len() {
            3 => Ok(()),
            some => Err(format!("{some}")),
        });
        drop(announced);
    }
    println!("{trials} trials; the slowest answer came {slowest:.1?} after etcd served again");
}

#[test]
fn list_is_frozen_after_the_hold_and_not_before() {
    let etcd = Etcd::start();
    let began = Instant::now();
    let frozen = Asking::start(ask(&etcd, "a", 1, &["--hold", "3s"])).finish(PATIENCE);
    assert_eq!(frozen.printed(), "a\n");
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
}
