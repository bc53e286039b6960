//! Decides which endpoint has its turn: in a round, each address of each endpoint is tried once.
//!
//! A name may have several addresses, and one of them may never answer. So each address is a target of its own.
//! [`Names`] looks the names up while attempts go on, and keeps the answers: a slow or dead name service delays the
//! first contact by one lookup, and nothing after it.

use std::net::SocketAddr;

use super::endpoint::Endpoint;
use crate::names::{Names, Unknown};

/// The targets of the present round, and which one has its turn.
#[derive(Debug)]
pub(super) struct Round {
    endpoints: Vec<Endpoint>,
    names: Names,
    /// The targets. They are made again at the beginning of each round, and when a new name becomes known.
    targets: Vec<Target>,
    current: usize,
    /// How many targets in a row were left without an answer.
    left: usize,
}

/// One address of an endpoint, or an endpoint whose name has no address yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The endpoint. TLS checks its name, and requests carry it.
    pub endpoint: Endpoint,
    /// The address to connect to, if it is known.
    pub address: Option<SocketAddr>,
}

impl Target {
    /// The URL of the endpoint, and the address if the host is a name.
    pub(super) fn shown(&self) -> String {
        match self.address {
            Some(address) if self.endpoint.host().ip().is_none() => {
                format!("{} ({})", self.endpoint, address.ip())
            }
            _ => self.endpoint.to_string(),
        }
    }
}

impl Round {
    /// A round over these endpoints in a random order, so that many sidekicks spread over the members.
    pub(super) fn new(mut endpoints: Vec<Endpoint>, names: Names) -> Self {
        fastrand::shuffle(&mut endpoints);
        let mut round = Self { endpoints, names, targets: Vec::new(), current: 0, left: 0 };
        round.begin();
        round
    }

    /// How many targets there are. At least 1.
    pub(super) fn len(&self) -> usize {
        self.targets.len().max(1)
    }

    /// The target that has its turn. `None` if there is no endpoint at all.
    pub(super) fn target(&self) -> Option<&Target> {
        self.targets.get(self.current)
    }

    /// Waits for the lookup of a target that has no address. Then the targets are made again, and the one that has its
    /// turn has an address. Safe to drop.
    ///
    /// # Errors
    /// [`Unknown`] if the name has no address after the lookup, either.
    pub(super) async fn look_up(&mut self, endpoint: &Endpoint) -> Result<(), Unknown> {
        self.names.wait(endpoint.host(), endpoint.port()).await?;
        self.begin();
        Ok(())
    }

    /// The target that has its turn gave no answer, so the next one has its turn. Returns whether the round is over,
    /// which means that each target had its turn.
    pub(super) fn leave(&mut self) -> bool {
        if let Some(Target { endpoint, address: Some(_) }) = self.target() {
            // The name may have another address now.
            self.names.doubt(endpoint.host());
        }
        self.left += 1;
        self.current += 1;
        let is_over = self.left >= self.len();
        if is_over {
            self.left = 0;
        }
        if self.current >= self.targets.len() {
            self.begin();
        }
        is_over
    }

    /// The target that has its turn answered.
    pub(super) fn answered(&mut self) {
        self.left = 0;
    }

    /// Makes the targets again: first the first address of each endpoint, then the second ones, and so on. Endpoints
    /// without an address come last, because they need a lookup.
    fn begin(&mut self) {
        let known: Vec<_> = self
            .endpoints
            .iter()
            .map(|endpoint| self.names.get(endpoint.host(), endpoint.port()).unwrap_or_default())
            .collect();
        let most = known.iter().map(Vec::len).max().unwrap_or(0);
        let places = (0..most).flat_map(|place| {
            let at = known.iter().map(move |addresses| addresses.get(place).copied());
            self.endpoints.iter().zip(at).filter(|(_, address)| address.is_some())
        });
        let unknown = self.endpoints.iter().zip(&known).filter(|(_, known)| known.is_empty());
        self.targets = places
            .chain(unknown.map(|(endpoint, _)| (endpoint, None)))
            .map(|(endpoint, address)| Target { endpoint: endpoint.clone(), address })
            .collect();
        self.current = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::parse_endpoints;

    fn round(list: &str) -> Round {
        Round::new(parse_endpoints(list, false).unwrap(), Names::new())
    }

    #[test]
    fn round_is_over_when_each_had_its_turn_and_begins_with_who_answered_last() {
        let mut round = round("127.0.0.1:1,127.0.0.1:2,127.0.0.1:3");
        let first = round.target().cloned().unwrap();
        assert!(!round.leave());
        assert_ne!(round.target(), Some(&first));
        round.answered();
        assert_eq!([round.leave(), round.leave(), round.leave()], [false, false, true]);
        assert_eq!([round.leave(), round.leave(), round.leave()], [false, false, true]);
    }

    /// This spreads a fleet with one list of endpoints over the members.
    #[test]
    fn each_endpoint_is_the_first_one_of_some_process() {
        let mut first: Vec<String> = (0..200)
            .map(|_| round("127.0.0.1:1,127.0.0.1:2,127.0.0.1:3").target().unwrap().shown())
            .collect();
        first.sort();
        first.dedup();
        assert_eq!(first.len(), 3, "{first:?}");
    }

    #[test]
    fn endpoint_that_has_no_address_comes_last_and_is_no_reason_to_wait() {
        for _ in 0..20 {
            let round = round("no-such-name.invalid:1,127.0.0.1:2");
            assert_eq!(round.len(), 2);
            assert_eq!(round.target().unwrap().shown(), "http://127.0.0.1:2");
            assert_eq!(round.targets[1].address, None);
        }
    }

    #[tokio::test]
    async fn name_that_is_known_gives_a_target_for_each_address() {
        let mut round = round("localhost:1");
        let endpoint = round.target().unwrap().endpoint.clone();
        round.look_up(&endpoint).await.unwrap();
        let target = round.target().unwrap();
        assert!(target.address.is_some_and(|address| address.ip().is_loopback() && address.port() == 1));
        assert!(target.shown().starts_with("http://localhost:1 ("), "{}", target.shown());
    }
}
