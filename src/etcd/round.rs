//! Whose turn it is: each address of each endpoint is tried once in a round.
//!
//! A name is not an address. A name may have several, and one of them may be silent for ever, so that each is a target of
//! its own. Names are looked up beside the attempts, by [`Names`], and an answer is kept: a name service that is slow or
//! dead delays the first contact by one lookup, and nothing after it.

use std::net::SocketAddr;

use super::endpoint::Endpoint;
use crate::names::{Names, Unknown};

/// The targets of the round that is going on, and whose turn it is.
#[derive(Debug)]
pub(super) struct Round {
    endpoints: Vec<Endpoint>,
    names: Names,
    /// Made anew at the beginning of each round, and as soon as a name is known that was not.
    targets: Vec<Target>,
    current: usize,
    /// Targets that were left in a row without an answer in between.
    left: usize,
}

/// One address of an endpoint, or an endpoint whose name has no address yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// What has to be reached: TLS checks its name, and the request names it.
    pub endpoint: Endpoint,
    /// Where to connect.
    pub address: Option<SocketAddr>,
}

impl Target {
    /// The endpoint's URL, and the address where its host is a name.
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
    /// Over these endpoints, in an order of its own, so that a fleet spreads over the members.
    pub(super) fn new(mut endpoints: Vec<Endpoint>, names: Names) -> Self {
        fastrand::shuffle(&mut endpoints);
        let mut round = Self { endpoints, names, targets: Vec::new(), current: 0, left: 0 };
        round.begin();
        round
    }

    /// How many targets there are; at least 1.
    pub(super) fn len(&self) -> usize {
        self.targets.len().max(1)
    }

    /// Whose turn it is. None where there is no endpoint at all.
    pub(super) fn target(&self) -> Option<&Target> {
        self.targets.get(self.current)
    }

    /// The name service's word on a target that has no address: it waits for the lookup that goes on to end. Safe to
    /// drop.
    ///
    /// # Errors
    /// [`Unknown`], where the name has no address after it, either. Otherwise the targets were made anew, and whoever
    /// has its turn has an address.
    pub(super) async fn look_up(&mut self, endpoint: &Endpoint) -> Result<(), Unknown> {
        self.names.wait(endpoint.host(), endpoint.port()).await?;
        self.begin();
        Ok(())
    }

    /// The target that has its turn gave no answer: the next one has it. Gives whether the round is over, that is,
    /// whether each has had its turn.
    pub(super) fn leave(&mut self) -> bool {
        if let Some(Target { endpoint, address: Some(_) }) = self.target() {
            // The name may have moved.
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

    /// Makes the targets anew: first the first addresses of all endpoints, then their second ones, and so on; those that
    /// have none yet come last, since their turn takes a lookup.
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

    /// So that a fleet with one list spreads over the members.
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
