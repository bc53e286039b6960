//! Whom a node without a master asks: the providers of `discovery.seed_providers`, once in each round.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    sync::Mutex,
    time::Duration,
};

use crate::{
    dns,
    log::{fail, say},
    settings::Settings,
    steering::is_before_6,
};

/// The one name that our units and our compose file ask for.
const QUERY: &str = "_crate._tcp.crate.local";

/// How long an SRV query waits for its answer, and asks nobody else after that.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where seeds come from.
pub struct Seeds {
    settings: Vec<String>,
    resolver: Option<SocketAddr>,
    /// The targets of the last SRV answer, to be told when they change.
    known: Mutex<Vec<String>>,
}

impl Seeds {
    /// Looks the resolver's name up, once for the whole life of the node, as `SrvUnicastHostsProvider`
    /// does. Where it cannot be looked up, or is an IPv6 address, the system's own DNS is asked instead.
    pub fn prepare(settings: &Settings) -> Self {
        let with_srv = settings.list("discovery.seed_providers").iter().any(|provider| provider == "srv");
        if with_srv && settings.get("discovery.srv.query") != Some(QUERY) {
            fail(1, &format!("DNS query must be {QUERY} for the stand-in"));
        }
        let resolver = with_srv.then(|| {
            settings.get("discovery.srv.resolver").map_or_else(systems_own, |resolver| {
                looked_up(resolver).unwrap_or_else(|| {
                    say("WARN: Could not create custom dns resolver. Using default resolver.");
                    systems_own()
                })
            })
        });
        Self { settings: settings.list("discovery.seed_hosts"), resolver, known: Mutex::default() }
    }

    /// Addresses to ask in this round. Names are looked up one after the other, and each takes its time.
    pub fn round(&self) -> Vec<SocketAddr> {
        let mut seeds = self.settings.clone();
        if let Some(resolver) = self.resolver {
            match dns::ask(resolver, PATIENCE, !is_before_6()) {
                Ok(targets) => {
                    let mut known = self.known.lock().expect("no thread panics");
                    if *known != targets {
                        say(&format!("knows {}", targets.join(",")));
                        known.clone_from(&targets);
                    }
                    seeds.extend(targets);
                }
                Err(error) => say(&format!("ERROR: DNS lookup exception: {error}")),
            }
        }
        seeds.iter().flat_map(|seed| addresses(seed)).collect()
    }
}

/// `host` or `host:port`, an IPv6 address in brackets. CrateDB asks each address that a name has.
fn addresses(seed: &str) -> Vec<SocketAddr> {
    let with_port = |seed: &str| seed.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let seed = if with_port(seed) { seed.to_owned() } else { format!("{seed}:4300") };
    match seed.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            say(&format!("WARN: failed to resolve host [{seed}]: {error}"));
            Vec::new()
        }
    }
}

/// The address in `host` or `host:port`. It is cut at its colons, so that no IPv6 address is understood.
fn looked_up(resolver: &str) -> Option<SocketAddr> {
    let mut parts = resolver.split(':');
    let host = parts.next()?;
    let port = parts.next().map_or(53, |port| port.parse().unwrap_or(53));
    (host, port).to_socket_addrs().ok()?.next()
}

/// The first name server of `/etc/resolv.conf`.
fn systems_own() -> SocketAddr {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = text.lines().find_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok());
    SocketAddr::new(server.unwrap_or_else(|| fail(1, "no name server in /etc/resolv.conf")), 53)
}
