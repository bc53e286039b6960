//! The waiting times, as functions of the TTL: `docs/design.md`, "Connection and timing".

use std::time::Duration;

/// The longest pause between rounds over all endpoints while nobody answers.
const LONGEST_ROUND_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause after a refusal (login, permission).
const LONGEST_REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// The values from which the waiting times are derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The TTL of our lease: the granted one, or until then the one that we ask for. `None` if there is no lease, as in
    /// `hosts`.
    pub ttl: Option<Duration>,
    /// How many endpoints there are. Each address of a name counts as one. At least 1.
    pub endpoints: u32,
    /// `--request-timeout`.
    pub request_timeout: Duration,
}

impl Timing {
    /// The time for one attempt at one endpoint: connect, TLS, login and answer together. `patience.rs` makes it longer
    /// if etcd is slow. A round over all endpoints fits into half a TTL.
    pub fn attempt(&self) -> Duration {
        match self.ttl {
            Some(ttl) => self.request_timeout.min(ttl / (2 * self.endpoints.max(3))),
            None => self.request_timeout,
        }
    }

    /// The time from one tick to the next: a third of the TTL and at most 20 s, varied at random by up to 10 %.
    /// Keep-alive, read and request for progress are sent together, so that an idle process wakes up once.
    pub fn renew_every(&self) -> Duration {
        let third = self.ttl.unwrap_or(Duration::MAX) / 3;
        third.min(Duration::from_secs(20)).mul_f64(0.9 + 0.2 * fastrand::f64())
    }

    /// The longest pause of the backoff between rounds.
    pub fn round_cap(&self) -> Duration {
        self.ttl.map_or(LONGEST_ROUND_PAUSE, |ttl| LONGEST_ROUND_PAUSE.min(ttl / 6))
    }

    /// The longest pause of the backoff after a refusal. With a lease to keep we cannot wait for a minute: after a
    /// password was changed, we must try again well before the lease ends.
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
