//! Which flags CrateDB takes, and what they mean (`EnvironmentAwareCommand`, `AbstractScopedSettings`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, ToSocketAddrs},
};

use crate::{EVERYWHERE, log::fail};

/// Those of CrateDB's settings that our units, our compose file and our tests may name.
const KNOWN: [&str; 18] = [
    "auth.host_based.enabled",
    "cluster.initial_master_nodes",
    "cluster.name",
    "discovery.seed_hosts",
    "discovery.seed_providers",
    "discovery.srv.query",
    "discovery.srv.resolver",
    "gateway.expected_data_nodes",
    "gateway.recover_after_data_nodes",
    "http.port",
    "network.bind_host",
    "network.host",
    "network.publish_host",
    "node.name",
    "path.conf",
    "path.data",
    "psql.port",
    "transport.tcp.port",
];

/// What a line of `auth.host_based.config.<number>` may have.
const KNOWN_OF_A_LINE: [&str; 4] = ["address", "method", "protocol", "user"];

/// `ExitCodes.USAGE`.
const USAGE: i32 = 64;

/// What was set, each key once.
#[derive(Clone)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Takes the arguments as CrateDB does, or ends as CrateDB does: with 64 for an argument that is no
    /// setting, an empty value and a key given twice, with 1 for an unknown key, a value that cannot be
    /// right and a `${NAME}` of which the variable is not set.
    pub fn parse(arguments: &[String]) -> Self {
        let mut settings = BTreeMap::new();
        for argument in arguments {
            let Some((key, value)) = argument.strip_prefix("-C").and_then(|setting| setting.split_once('='))
            else {
                fail(USAGE, &format!("{argument} is not a recognized option"));
            };
            if value.is_empty() {
                fail(USAGE, &format!("no value provided for setting [{key}]"));
            }
            let value = substituted(value);
            if let Some(before) = settings.insert(key.to_owned(), value.clone()) {
                fail(USAGE, &format!("setting [{key}] already set, saw [{before}] and [{value}]"));
            }
        }
        let settings = Self(settings);
        for key in settings.0.keys() {
            if !is_known(key) {
                fail(1, &format!("unknown setting [{key}]"));
            }
        }
        settings.validate();
        settings
    }

    fn validate(&self) {
        let masters = self.list("cluster.initial_master_nodes");
        let mut once = masters.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != masters.len() {
            fail(1, "setting [cluster.initial_master_nodes] contains duplicates");
        }
        let unknown: Vec<_> =
            self.list("discovery.seed_providers").into_iter().filter(|provider| provider != "srv").collect();
        if !unknown.is_empty() {
            fail(1, &format!("Unknown seed providers {unknown:?}"));
        }
    }

    /// The value of `key`, if it was set.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The parts of a value that commas separate; none if it was not set.
    pub fn list(&self, key: &str) -> Vec<String> {
        self.get(key).map(|value| value.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    /// The number that `key` has, if it was set.
    pub fn number(&self, key: &str) -> Option<usize> {
        let value = self.get(key)?;
        Some(value.parse().unwrap_or_else(|_| fail(1, &format!("[{key}] is no number: {value}"))))
    }

    /// `auth.host_based.config`, one map a line, in the order of their numbers.
    pub fn host_based_lines(&self) -> Vec<BTreeMap<&str, &str>> {
        let mut lines: BTreeMap<u32, BTreeMap<&str, &str>> = BTreeMap::new();
        for (key, value) in &self.0 {
            if let Some((number, part)) = line_of(key) {
                lines.entry(number).or_default().insert(part, value);
            }
        }
        lines.into_values().collect()
    }

    /// Where to listen. The official image binds `_local_` and `_site_`, which is everywhere here.
    pub fn bind_address(&self) -> IpAddr {
        let host = self.get("network.bind_host").or_else(|| self.get("network.host"));
        host.map_or(EVERYWHERE, |host| self.literal_or_site(host, EVERYWHERE))
    }

    /// What the others are told, looked up once, as CrateDB does it.
    pub fn publish_address(&self) -> IpAddr {
        let host = self.get("network.publish_host").or_else(|| self.get("network.host"));
        host.map_or_else(own_address, |host| self.literal_or_site(host, own_address()))
    }

    fn literal_or_site(&self, host: &str, site: IpAddr) -> IpAddr {
        if host == "_site_" || host == "_local_,_site_" {
            return site;
        }
        let mut found = (host, 0).to_socket_addrs().into_iter().flatten().map(|address| address.ip());
        found.next().unwrap_or_else(|| {
            fail(1, &format!("BindTransportException: Failed to resolve publish address: {host}"))
        })
    }
}

/// The number and the rest of a key under `auth.host_based.config`.
fn line_of(key: &str) -> Option<(u32, &str)> {
    let (number, part) = key.strip_prefix("auth.host_based.config.")?.split_once('.')?;
    Some((number.parse().ok()?, part))
}

fn is_known(key: &str) -> bool {
    KNOWN.contains(&key) || line_of(key).is_some_and(|(_, part)| KNOWN_OF_A_LINE.contains(&part))
}

/// What this host's own name means, or else loopback.
fn own_address() -> IpAddr {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut found = (name.as_str(), 0).to_socket_addrs().into_iter().flatten().map(|address| address.ip());
    found.next().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// What `PropertyPlaceholder` makes of a value that begins with a placeholder, which is all we use.
fn substituted(value: &str) -> String {
    match value.strip_prefix("${").and_then(|rest| rest.split_once('}')) {
        Some((name, rest)) => match std::env::var(name) {
            Ok(set) => set + rest,
            Err(_) => fail(1, &format!("could not resolve placeholder '{name}'")),
        },
        None => value.to_owned(),
    }
}
