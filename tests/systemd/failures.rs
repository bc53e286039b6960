//! What dies or hangs, and that it returns without a hand.

use std::time::Duration;

use crate::{
    NODE, SIDEKICK, endpoints,
    host::{Host, UNIT_PATIENCE},
    key,
    support::{AT_ONCE, SLACK, engine::Network, etcd::Etcd, eventually, observer::Observer, stays},
};

/// A host with an announced node.
struct Announced {
    observer: Observer,
    host: Host,
    revision: i64,
    etcd: Etcd,
    _network: Network,
}

impl Announced {
    fn start(settings: &[&str]) -> Self {
        let network = Network::create();
        let (etcd, url) = network.etcd();
        let observer = Observer::start(&etcd);
        let host = Host::boot(&network, "h1", &[&[endpoints(&url).as_str()], settings].concat());
        host.systemctl(&["start", NODE]);
        let revision = observer.next_put(&key(), 0, UNIT_PATIENCE).revision;
        Self { observer, host, revision, etcd, _network: network }
    }

    /// The key goes and comes back.
    #[track_caller]
    fn goes_and_returns(&mut self) {
        let gone = self.observer.next_delete(&key(), self.revision, UNIT_PATIENCE);
        self.revision = self.observer.next_put(&key(), gone.revision, UNIT_PATIENCE).revision;
    }

    /// Kills the node's own process, as a crash would end it.
    #[track_caller]
    fn kill_node(&self) {
        eventually("the node runs and is killed", UNIT_PATIENCE, || {
            self.host.try_exec(&["docker.real", "kill", "--signal", "KILL", "crate-1"])
        });
    }
}

#[test]
fn node_that_dies_is_withdrawn_and_both_return_without_a_hand() {
    let mut announced = Announced::start(&[]);
    announced.kill_node();
    announced.goes_and_returns();
    assert_eq!(announced.host.property(NODE, "NRestarts"), "1");

    // A loop of crashes. Nothing counts them and gives up.
    for crash in 2..=8 {
        announced.kill_node();
        eventually("systemd starts it again", UNIT_PATIENCE, || {
            let restarts = announced.host.property(NODE, "NRestarts");
            if restarts == crash.to_string() { Ok(()) } else { Err(restarts) }
        });
    }
    announced.host.becomes(NODE, "ActiveState", "active");
    announced.host.becomes(SIDEKICK, "ActiveState", "active");
    eventually("the key is back", UNIT_PATIENCE, || {
        announced.etcd.key(&key()).ok_or_else(|| "no key".to_owned())
    });
    assert_eq!(announced.host.containers(), "crate-1");
}

#[test]
fn database_whose_docker_client_died_gets_its_time_and_starts_anew() {
    let mut announced = Announced::start(&[]);
    let host = &announced.host;
    host.steer("stop-after=2000");
    host.signal(NODE, "KILL");
    announced.goes_and_returns();
    let host = &announced.host;
    assert_eq!(host.node_said("listening").len(), 2, "{}", host.journal(NODE));
    assert_eq!(host.containers(), "crate-1", "one database, not two");
    // Its client was dead, so what it said last is known to docker alone; it was stopped, not killed.
    let stops: Vec<_> = host.docker_calls().into_iter().filter(|call| call.contains("stop")).collect();
    assert!(stops.iter().all(|call| call == "stop -t 120 crate-1"), "{stops:?}");
}

#[test]
fn decommissioned_node_stays_down_and_is_withdrawn() {
    let announced = Announced::start(&[]);
    let host = &announced.host;
    host.steer("exit=0");
    announced.observer.next_delete(&key(), announced.revision, UNIT_PATIENCE);
    for unit in [NODE, SIDEKICK] {
        host.becomes(unit, "ActiveState", "inactive");
        host.ended_well(unit);
    }
    // Longer than any restart waits.
    stays("the node is down", Duration::from_secs(5), &"inactive".to_owned(), || {
        host.property(NODE, "ActiveState")
    });
    assert_eq!(announced.etcd.key(&key()), None);
    assert_eq!(host.containers(), "");
}

#[test]
fn node_that_hangs_is_withdrawn_and_returns_with_its_answers() {
    let mut announced = Announced::start(&[]);
    let sidekick = announced.host.main_pid(SIDEKICK);
    announced.host.steer("hang");
    announced.observer.next_delete(&key(), announced.revision, UNIT_PATIENCE);
    announced.host.becomes(
        SIDEKICK,
        "StatusText",
        "not announced: waiting for the node: crate://127.0.0.1:4200: no answer in time",
    );
    announced.host.steer("");
    announced.goes_and_returns();
    assert_eq!(announced.host.main_pid(SIDEKICK), sidekick, "the sidekick was there all the time");
    assert_eq!(announced.host.property(NODE, "NRestarts"), "0");
}

#[test]
fn sidekick_that_is_killed_is_replaced_and_nobody_sees_the_key_go() {
    let announced = Announced::start(&[]);
    let before = announced.host.main_pid(SIDEKICK);
    announced.host.signal(SIDEKICK, "KILL");
    announced.observer.next_put(&key(), announced.revision, UNIT_PATIENCE);
    let after: Vec<_> = announced.observer.history(&key()).into_iter().skip(1).collect();
    assert_eq!(after.iter().map(|event| event.put).collect::<Vec<_>>(), [true], "{after:#?}");
    assert_ne!(announced.host.main_pid(SIDEKICK), before);
}

#[test]
fn sidekick_that_stands_still_is_replaced_by_the_watchdog() {
    let announced = Announced::start(&[]);
    let host = &announced.host;
    assert_eq!(host.property(SIDEKICK, "WatchdogUSec"), "30s");
    // Sooner, by a drop-in: a test cannot wait for 30 s.
    host.write("/etc/systemd/system/crate-discovery@.service.d/watchdog.conf", "[Service]\nWatchdogSec=3\n");
    host.systemctl(&["daemon-reload"]);
    host.systemctl(&["restart", SIDEKICK]);
    let again = announced.observer.next_put(&key(), announced.revision, UNIT_PATIENCE);
    // It goes on for longer than the watchdog's limit while it turns.
    let pid = host.main_pid(SIDEKICK);
    stays("the sidekick runs", Duration::from_secs(7), &pid, || host.main_pid(SIDEKICK));

    host.signal(SIDEKICK, "STOP");
    announced.observer.next_put(&key(), again.revision, UNIT_PATIENCE);
    let after: Vec<_> = announced
        .observer
        .history(&key())
        .into_iter()
        .filter(|event| event.revision > again.revision)
        .collect();
    assert_eq!(after.iter().map(|event| event.put).collect::<Vec<_>>(), [true], "{after:#?}");
    assert_ne!(host.main_pid(SIDEKICK), pid);
    assert!(host.journal(SIDEKICK).contains("Watchdog timeout"), "{}", host.journal(SIDEKICK));
}

#[test]
fn deliberate_stop_of_the_sidekick_withdraws_and_leaves_the_node_alone() {
    let announced = Announced::start(&[]);
    let host = &announced.host;
    host.systemctl(&["stop", SIDEKICK]);
    announced.observer.next_delete(&key(), announced.revision, AT_ONCE + SLACK);
    stays("the sidekick is down", Duration::from_secs(4), &"inactive".to_owned(), || {
        host.property(SIDEKICK, "ActiveState")
    });
    assert_eq!(host.property(NODE, "ActiveState"), "active");
}
