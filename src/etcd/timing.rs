//! How long to wait for what, as functions of the TTL: `docs/design.md`, "Connection and timing".

use std::time::Duration;

/// Longest pause between rounds over all endpoints while nobody answers.
const LONGEST_ROUND_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause after a refusal (login, permission).
const LONGEST_REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// What the waiting times are derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The TTL of our lease: granted, or asked for as long as none is granted. `None` where there
    /// is no lease at stake (one-shot verbs).
    pub ttl: Option<Duration>,
    /// How many endpoints there are, each address of a name counted; at least 1.
    pub endpoints: u32,
    /// `--request-timeout`.
    pub request_timeout: Duration,
}

impl Timing {
    /// One attempt at one endpoint, as long as etcd was not seen to need more: connect, TLS, login and answer together.
    /// A full round over the endpoints fits into half a TTL.
    pub fn attempt(&self) -> Duration {
        match self.ttl {
            Some(ttl) => self.request_timeout.min(ttl / (2 * self.endpoints.max(3))),
            None => self.request_timeout,
        }
    }

    /// From one tick to the next, jittered by 10 %. Keep-alive, linearizable look and request for progress go out
    /// together, so that a process that is idle wakes once.
    pub fn renew_every(&self) -> Duration {
        let third = self.ttl.unwrap_or(Duration::MAX) / 3;
        third.min(Duration::from_secs(20)).mul_f64(0.9 + 0.2 * fastrand::f64())
    }

    /// The cap of the back-off between rounds.
    pub fn round_cap(&self) -> Duration {
        self.ttl.map_or(LONGEST_ROUND_PAUSE, |ttl| LONGEST_ROUND_PAUSE.min(ttl / 6))
    }

    /// The cap of the back-off after a refusal. A lease at stake cannot wait a minute: a password
    /// that was rotated has to be tried again well before the lease ends.
    pub fn refusal_cap(&self, holds_lease: bool) -> Duration {
        match self.ttl {
            Some(ttl) if holds_lease => LONGEST_REFUSAL_PAUSE.min(ttl / 6),
            _ => LONGEST_REFUSAL_PAUSE,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_round_fits_into_half_a_ttl(ttl in 5u64..86_400, endpoints in 1u32..10, timeout_ms in 1u64..60_000) {
            let ttl = Duration::from_secs(ttl);
            let timing = Timing { ttl: Some(ttl), endpoints, request_timeout: Duration::from_millis(timeout_ms) };
            prop_assert!(timing.attempt() * endpoints <= ttl / 2);
            prop_assert!(timing.renew_every() <= (ttl / 3).mul_f64(1.11));
            prop_assert!(timing.renew_every() <= Duration::from_secs(22));
            prop_assert!(timing.round_cap() <= ttl / 6);
            prop_assert!(timing.refusal_cap(true) <= ttl / 6);
        }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let timing = Timing {
            ttl: Some(Duration::from_secs(60)),
            endpoints: 1,
            request_timeout: Duration::from_secs(5),
        };
        assert_eq!(timing.attempt(), Duration::from_secs(5));
        assert_eq!(timing.round_cap(), Duration::from_secs(5));
        assert_eq!(timing.refusal_cap(false), Duration::from_secs(60));
    }
}
