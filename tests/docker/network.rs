//! Names and networks: etcd under a name whose address changes, and a sidekick that is cut off.

use crate::{
    sidekick::{sidekick, tool},
    support::{
        AT_ONCE, PATIENCE, SLACK, TTL,
        engine::{Container, Network, etcd_image, run_docker},
        eventually, key_of,
        observer::Observer,
        round,
    },
};

/// Etcd in a container, under the name `etcd`.
struct NamedEtcd(Container);

impl NamedEtcd {
    fn start(network: &Network) -> Self {
        let listen = ["--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://etcd:2379"];
        let args = ["--network", network.name(), "--network-alias", "etcd", etcd_image()];
        let command = ["/usr/local/bin/etcd", "--data-dir=/data", "--logger=zap"];
        let container = Container::create(&[&args[..], &command, &listen].concat());
        container.start();
        let etcd = Self(container);
        eventually("etcd is healthy", PATIENCE, || etcd.etcdctl(&["endpoint", "health"]));
        etcd
    }

    fn etcdctl(&self, args: &[&str]) -> Result<String, String> {
        self.0.try_exec(&[&["/usr/local/bin/etcdctl"], args].concat())
    }

    fn has_key(&self, key: &str) -> Result<(), String> {
        match self.etcdctl(&["get", "--keys-only", key]) {
            Ok(keys) if keys.trim() == key => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

#[test]
fn etcd_that_got_another_address_under_its_name_is_found_again() {
    let network = Network::create();
    let etcd = NamedEtcd::start(&network);
    let before = network.address_of(&etcd.0);
    let sidekick = sidekick(&network, "h1", "http://etcd:2379", &[]);
    sidekick.start();
    eventually("announced", PATIENCE, || etcd.has_key(&key_of("h1")));

    drop(etcd);
    // Whoever comes first gets the address that was given back.
    let occupant = tool(&network, "http://etcd:2379", &[], &["announce", "--host", "occupant"]);
    occupant.start();
    let etcd = NamedEtcd::start(&network);
    let now = network.address_of(&etcd.0);
    assert_ne!(now, before, "the occupant has {}", network.address_of(&occupant));
    eventually("announced at the new one", round(TTL) + PATIENCE, || etcd.has_key(&key_of("h1")));
    assert_eq!(sidekick.inspect("{{.RestartCount}} {{.State.Running}}"), "0 true");
}

#[test]
fn sidekick_cut_off_for_longer_than_the_ttl_returns_and_the_others_never_move() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let observer = Observer::start(&etcd);
    let others = ["h2", "h3"].map(|host| sidekick(&network, host, &url, &[]));
    let cut_off = sidekick(&network, "h1", &url, &[]);
    others.iter().chain([&cut_off]).for_each(Container::start);
    let put = observer.next_put(&key_of("h1"), 0, PATIENCE);
    for host in ["h2", "h3"] {
        observer.next_put(&key_of(host), 0, PATIENCE);
    }
    run_docker(&["network", "disconnect", network.name(), cut_off.name()]);
    let delete = observer.next_delete(&key_of("h1"), put.revision, TTL + AT_ONCE + SLACK);
    run_docker(&["network", "connect", network.name(), cut_off.name()]);
    observer.next_put(&key_of("h1"), delete.revision, round(TTL) + SLACK);
    for host in ["h2", "h3"] {
        let history = observer.history(&key_of(host));
        assert_eq!(history.len(), 1, "{history:#?}");
    }
}
