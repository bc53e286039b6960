//! The conditions of the transactions, as the real etcd takes them: each alone keeps a list from being
//! frozen, and a reset from forgetting. Which ones are needed is shown in the model.

use std::{future::Future, time::Duration};

use crate_discovery::{
    bootstrap::{Candidate, Change, Condition, List, Listed, MachineId, Said},
    etcd::{Bootstrap, LeaseId, Options, Registry, credentials::TlsFiles},
    host::Host,
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

fn registry(etcd: &Etcd) -> Bootstrap {
    let options = Options {
        endpoints: vec![etcd.url()],
        tls: TlsFiles::default(),
        login: None,
        request_timeout: Duration::from_secs(5),
    };
    Registry::new(options, PREFIX.to_owned()).unwrap().bootstrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Whether a list is frozen for a registered candidate under these conditions.
fn freezes(etcd: &Etcd, conditions: impl FnOnce(i64, Option<LeaseId>) -> Vec<Condition>) -> bool {
    wait(async {
        let mut stored = registry(etcd);
        let me = Candidate { name: name(), said: Said { expect: 1, machine: machine() } };
        let absent = [Condition::Candidate(name(), 0, None)];
        assert!(stored.change(&Change::Register, Some(&me), &absent).await.unwrap());
        let seen = stored.look().await.unwrap().candidates.remove(0);
        assert_eq!((&seen.candidate, seen.lease), (&me, stored.session()));
        let list = List { nodes: vec![Listed { name: name(), machine: machine() }] };
        let conditions = conditions(seen.mod_revision, seen.lease);
        let frozen = stored.change(&Change::Freeze(list), Some(&me), &conditions).await.unwrap();
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
            Condition::List(0),
            Condition::Formed(0),
            Condition::NobodyAnnounced,
        ]
    };
    for (put, value) in
        [(format!("{STORED}list"), "x"), (format!("{STORED}formed"), "x"), (key_of("h1"), DEFAULT_VALUE)]
    {
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
}

#[test]
fn reset_forgets_what_was_seen_and_nothing_else() {
    let etcd = Etcd::start();
    etcd.etcdctl(&["put", &format!("{STORED}list"), r#"{"nodes":[]}"#]);
    let at = etcd.key(&format!("{STORED}list")).unwrap().mod_revision;
    let reset = |conditions: &[Condition]| {
        wait(async { registry(&etcd).change(&Change::Reset, None, conditions).await.unwrap() })
    };
    assert!(!reset(&[Condition::List(at - 1), Condition::Formed(0), Condition::NobodyAnnounced]));
    assert!(!reset(&[Condition::List(at), Condition::Formed(at), Condition::NobodyAnnounced]));
    etcd.etcdctl(&["put", &key_of("h1"), DEFAULT_VALUE]);
    assert!(!reset(&[Condition::List(at), Condition::Formed(0), Condition::NobodyAnnounced]));
    assert!(frozen(&etcd));
    etcd.etcdctl(&["del", &key_of("h1")]);
    assert!(reset(&[Condition::List(at), Condition::Formed(0), Condition::NobodyAnnounced]));
    assert!(!frozen(&etcd));
}
