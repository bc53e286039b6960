//! Whom a node asks for its peers, how patiently, and what it makes of the answers.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    thread::spawn,
    time::{Duration, Instant},
};

use hickory_proto::rr::RecordType;

use crate::{
    answers::is_before_6,
    dns_server::{DnsServer, Zone},
    node::{Node, PATIENCE},
    support::{engine::Network, eventually, free_port},
};

const PROVIDER: &str = "-Cdiscovery.seed_providers=srv";
const QUERY: &str = "-Cdiscovery.srv.query=_crate._tcp.crate.local";

/// A node of this version that asks `resolver` for SRV, and `network`'s gateway for all other names.
fn asking(network: &Network, resolver: &str, version: &str) -> Node {
    let gateway = network.gateway().to_string();
    let resolver = format!("-Cdiscovery.srv.resolver={resolver}");
    Node::start_with(network, "n1", version, &["--dns", &gateway], &[PROVIDER, QUERY, &resolver])
}

/// A name server on the network's gateway.
fn server(network: &Network, port: u16, zone: Zone) -> (DnsServer, SocketAddr) {
    let address = SocketAddr::new(network.gateway().into(), port);
    (DnsServer::start(address, zone), address)
}

/// A place on the gateway where a peer could be: when it was first called at.
struct Place {
    port: u16,
    called: std::sync::mpsc::Receiver<Instant>,
}

impl Place {
    fn open(network: &Network) -> Self {
        let listener = TcpListener::bind((network.gateway(), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, called) = std::sync::mpsc::channel();
        spawn(move || listener.incoming().flatten().all(|_| tell.send(Instant::now()).is_ok()));
        Self { port, called }
    }

    fn target(&self, network: &Network) -> (String, u16) {
        (network.gateway().to_string(), self.port)
    }

    fn is_called(&self, within: Duration) -> Option<Instant> {
        self.called.recv_timeout(within).ok()
    }
}

/// The questions for SRV so far, at least `count` of them.
#[track_caller]
fn rounds(server: &DnsServer, count: usize) -> usize {
    eventually(&format!("it has asked {count} times"), PATIENCE, || {
        let asked = server.asked(RecordType::SRV).len();
        if asked >= count { Ok(asked) } else { Err(asked.to_string()) }
    })
}

#[test]
fn sidekick_is_asked_again_in_every_round() {
    let network = Network::create();
    let place = Place::open(&network);
    let (server, address) = server(&network, free_port(), Zone::default());
    let node = asking(&network, &address.to_string(), "6.4.3");
    // Nobody yet.
    node.has_said("DNS lookup exception");
    assert_eq!(place.is_called(Duration::ZERO), None);
    rounds(&server, 3);
    server.change(|zone| zone.targets = vec![place.target(&network)]);
    assert!(place.is_called(PATIENCE).is_some(), "{}", node.container.logs());
}

#[test]
fn name_of_the_resolver_is_looked_up_once() {
    let network = Network::create();
    let gateway = network.gateway();
    let names = vec![("sidekick.test".to_owned(), IpAddr::from(gateway), Duration::ZERO)];
    let (system, _) = server(&network, 53, Zone { names, ..Zone::default() });
    let (server, address) = server(&network, free_port(), Zone::default());
    let node = asking(&network, &format!("sidekick.test:{}", address.port()), "6.4.3");
    let looked_up = |n: usize| {
        rounds(&server, n);
        let asked = system.asked(RecordType::A);
        asked.iter().filter(|asked| asked.name == "sidekick.test").count()
    };
    let first = looked_up(1);
    assert!(first >= 1, "{}", node.container.logs());
    assert_eq!(looked_up(rounds(&server, 1) + 5), first);
}

#[test]
fn resolver_that_is_unknown_at_the_start_is_forgotten_for_the_systems_own() {
    for resolver in ["sidekick.test:PORT", "[::1]:PORT"] {
        let network = Network::create();
        let (system, _) = server(&network, 53, Zone::default());
        let (sidekick, address) = server(&network, free_port(), Zone::default());
        let node = asking(&network, &resolver.replace("PORT", &address.port().to_string()), "6.4.3");
        rounds(&system, 1);
        // Its name is known from now on, and it is too late.
        let name = ("sidekick.test".to_owned(), IpAddr::from(network.gateway()), Duration::ZERO);
        system.change(|zone| zone.names = vec![name]);
        rounds(&system, system.asked(RecordType::SRV).len() + 5);
        assert_eq!(sidekick.asked(RecordType::SRV).len(), 0, "{resolver}");
        let warnings = node.container.logs().matches("Could not create custom dns resolver").count();
        assert_eq!(warnings, 1, "{}", node.container.logs());
    }
}

#[test]
fn answer_that_takes_longer_than_100_ms_is_none() {
    let network = Network::create();
    let place = Place::open(&network);
    let zone =
        Zone { targets: vec![place.target(&network)], delay: Duration::from_millis(300), ..Zone::default() };
    let (server, address) = server(&network, free_port(), zone);
    let node = asking(&network, &address.to_string(), "6.4.3");
    if is_before_6(&node) {
        // It has the patience of its library, 5 s.
        assert!(place.is_called(PATIENCE).is_some());
        return;
    }
    rounds(&server, 4);
    assert_eq!(place.is_called(Duration::ZERO), None);
    server.change(|zone| zone.delay = Duration::ZERO);
    assert!(place.is_called(PATIENCE).is_some(), "{}", node.container.logs());
}

#[test]
fn answer_that_does_not_fit_is_asked_for_over_tcp_since_6_and_cut_before() {
    for version in ["6.4.3", "5.10.16"] {
        let network = Network::create();
        let places = [Place::open(&network), Place::open(&network)];
        let targets = places.iter().map(|place| place.target(&network)).collect();
        let (server, address) =
            server(&network, free_port(), Zone { targets, fit: Some(1), ..Zone::default() });
        let node = asking(&network, &address.to_string(), version);
        assert!(places[0].is_called(PATIENCE).is_some(), "{}", node.container.logs());
        if is_before_6(&node) {
            rounds(&server, 3);
            assert_eq!(places[1].is_called(Duration::ZERO), None);
            assert!(server.asked(RecordType::SRV).iter().all(|asked| !asked.over_tcp));
        } else {
            assert!(places[1].is_called(PATIENCE).is_some(), "{}", node.container.logs());
            assert!(server.asked(RecordType::SRV).iter().any(|asked| asked.over_tcp));
        }
    }
}

#[test]
fn names_of_peers_are_looked_up_one_after_the_other() {
    const EACH: Duration = Duration::from_secs(1);
    let network = Network::create();
    let place = Place::open(&network);
    let slow = ["slow1.test", "slow2.test"];
    let names = slow.map(|name| (name.to_owned(), IpAddr::from(network.gateway()), EACH)).into();
    server(&network, 53, Zone { names, ..Zone::default() });
    let mut targets: Vec<_> = slow.map(|name| (name.to_owned(), 4300)).into();
    targets.push(place.target(&network));
    let (server, address) = server(&network, free_port(), Zone { targets, ..Zone::default() });
    let node = asking(&network, &address.to_string(), "6.4.3");
    let called = place.is_called(PATIENCE).unwrap_or_else(|| panic!("{}", node.container.logs()));
    let took = called - server.asked(RecordType::SRV)[0].at;
    assert!(took >= 2 * EACH, "{took:?}");
}
