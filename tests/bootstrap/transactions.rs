//! The conditions of the transactions, as the real etcd takes them: each alone keeps a list from being
//! frozen, and a reset from forgetting. Which ones are needed is shown in the model.

use std::{future::Future, time::Duration};

use crate_discovery::{
    bootstrap::{Candidate, Change, Condition, Epoch, List, Listed, MachineId, Said},
    etcd::{Bootstrap, Options, Registry, TlsFiles, parse_endpoints},
    host::Host,
    lease::LeaseId,
    names::Names,
};

use crate::{
    STORED,
    support::{DEFAULT_VALUE, PREFIX, etcd::Etcd, key_of},
};

fn name() -> Host {
    "a".parse().unwrap()
}

fn machine() -> MachineId {
    MachineId::derive("0123456789abcdef0123456789abcdef").unwrap()
}

fn said() -> Said {
    Said { expect: 1, machine: machine(), boot: None, saw_etcd_fail: false }
}

fn epoch(number: u64) -> Epoch {
    number.try_into().unwrap()
}

fn registry(etcd: &Etcd) -> Bootstrap {
    let options = Options {
        endpoints: parse_endpoints(&etcd.url(), false).unwrap(),
        tls: TlsFiles::default(),
        login: None,
        request_timeout: Duration::from_secs(5),
    };
    Registry::new(options, Names::new(), PREFIX.to_owned()).bootstrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Whether a list is frozen for a registered candidate under these conditions.
fn freezes(etcd: &Etcd, conditions: impl FnOnce(i64, Option<LeaseId>) -> Vec<Condition>) -> bool {
    wait(async {
        let mut stored = registry(etcd);
        let me = Candidate { name: name(), said: said() };
        let absent = [Condition::Candidate(name(), 0, None)];
        assert!(stored.change(&Change::Register, Some(&me), &absent).await.unwrap());
        let seen = stored.look().await.unwrap().candidates.remove(0);
        assert_eq!((&seen.candidate, seen.lease), (&me, stored.session()));
        let nodes = vec![Listed { name: name(), machine: machine() }];
        let list = List { epoch: Some(epoch(7)), nodes };
        let conditions = conditions(seen.mod_revision, seen.lease);
        let frozen = stored
            .change(&Change::Freeze { list, begins_epoch: true }, Some(&me), &conditions)
            .await
            .unwrap();
        stored.leave().await;
        frozen
    })
}

fn frozen(etcd: &Etcd) -> bool {
    etcd.key(&format!("{STORED}list")).is_some_and(|key| key.value.contains("nodes"))
}

#[test]
fn list_is_frozen_when_every_condition_holds_and_not_otherwise() {
    let etcd = Etcd::start();
    let other = LeaseId::random();
    let all = |revision, lease| {
        vec![
            Condition::Candidate(name(), revision, lease),
            Condition::Epoch(0, None),
            Condition::List(0),
            Condition::Formed(0),
            Condition::NobodyAnnounced,
        ]
    };
    for (put, value) in [
        (format!("{STORED}epoch"), "7"),
        (format!("{STORED}list"), "x"),
        (format!("{STORED}formed"), "x"),
        (key_of("h1"), DEFAULT_VALUE),
    ] {
        etcd.etcdctl(&["put", &put, value]);
        assert!(!freezes(&etcd, all), "{put} is there");
        etcd.etcdctl(&["del", &put]);
    }
    assert!(!freezes(&etcd, |revision, lease| all(revision - 1, lease)), "changed since");
    assert!(!freezes(&etcd, |revision, _| all(revision, Some(other))), "under another lease");
    assert!(!frozen(&etcd));
    // What is stored beside the prefix announces nobody, nor do its neighbours.
    etcd.etcdctl(&["put", "/services/crate0", "x"]);
    etcd.etcdctl(&["put", "/services/crate.meta/x", "x"]);
    assert!(freezes(&etcd, all));
    assert!(frozen(&etcd));
    assert_eq!(etcd.key(&format!("{STORED}epoch")).unwrap().value, "7");
}

#[test]
fn reset_forgets_what_was_seen_and_nothing_else() {
    let etcd = Etcd::start();
    let put = |key: &str, value: &str| {
        etcd.etcdctl(&["put", &format!("{STORED}{key}"), value]);
        etcd.key(&format!("{STORED}{key}")).unwrap().mod_revision
    };
    let (list, began) = (put("list", r#"{"nodes":[]}"#), put("epoch", "7"));
    put("other", "of somebody else's");
    let reset = |epoch_seen: Condition, list_at: i64, formed_at: i64| {
        let seen = [epoch_seen, Condition::List(list_at), Condition::Formed(formed_at)];
        let conditions = [&seen[..], &[Condition::NobodyAnnounced]].concat();
        wait(async { registry(&etcd).change(&Change::Reset(epoch(8)), None, &conditions).await.unwrap() })
    };
    let seen = || Condition::Epoch(began, Some(epoch(7)));
    assert!(!reset(seen(), list - 1, 0));
    assert!(!reset(seen(), list, list));
    assert!(!reset(Condition::Epoch(0, None), list, 0));
    assert!(!reset(Condition::Epoch(began - 1, Some(epoch(7))), list, 0));
    assert!(!reset(Condition::Epoch(began, Some(epoch(6))), list, 0), "the same revision of another store");
    etcd.etcdctl(&["put", &key_of("h1"), DEFAULT_VALUE]);
    assert!(!reset(seen(), list, 0));
    assert!(frozen(&etcd));
    etcd.etcdctl(&["del", &key_of("h1")]);
    assert!(reset(seen(), list, 0));
    assert!(!frozen(&etcd));
    assert_eq!(etcd.key(&format!("{STORED}epoch")).unwrap().value, "8");
    assert_eq!(etcd.key(&format!("{STORED}other")).unwrap().value, "of somebody else's");
}
