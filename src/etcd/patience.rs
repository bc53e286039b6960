//! How long one attempt may take: as short as the TTL requires, and as long as etcd was seen to need.

use std::time::Duration;

/// The factor for the slowest success after each further one. After some twenty successes it is forgotten.
const FADING: f64 = 0.9;
/// The most doublings in a row. `--request-timeout` limits the time long before that.
const MOST_DOUBLINGS: u32 = 16;

/// What is known about the pace of etcd.
///
/// If every attempt had the same short time, it would always be too short for a slow etcd. If each failure doubled the
/// time, a round over three members, one of them dead, would soon be longer than a short TTL. So the time grows only
/// after a round that nobody answered, and with the time that a success really took.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How often the time was doubled since the last success.
    doubled: u32,
    /// The time of the slowest success. It shrinks with each faster one.
    slowest: Duration,
}

impl Patience {
    /// The time for one attempt: at least `base`, but never more than `most`.
    pub(super) fn attempt(&self, base: Duration, most: Duration) -> Duration {
        let doubled = base.saturating_mul(1 << self.doubled.min(MOST_DOUBLINGS));
        doubled.max(self.slowest.saturating_mul(2)).min(most)
    }

    /// An attempt, or a part of one, succeeded after this time.
    pub(super) fn succeeded(&mut self, took: Duration) {
        self.doubled = 0;
        self.slowest = took.max(self.slowest.mul_f64(FADING));
    }

    /// Nobody answered in a whole round.
    pub(super) fn nobody_answered(&mut self) {
        self.doubled = (self.doubled + 1).min(MOST_DOUBLINGS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(800);
    const MOST: Duration = Duration::from_secs(5);

    #[test]
    fn attempt_doubles_after_a_round_without_an_answer_up_to_the_most() {
        let mut patience = Patience::default();
        let attempts = [(); 5].map(|()| {
            let attempt = patience.attempt(BASE, MOST);
            patience.nobody_answered();
            attempt.as_millis()
        });
        assert_eq!(attempts, [800, 1600, 3200, 5000, 5000]);
        for _ in 0..100 {
            patience.nobody_answered();
        }
        assert_eq!(patience.attempt(BASE, MOST), MOST);
    }

    #[test]
    fn attempt_is_twice_the_slowest_success_until_that_is_long_ago() {
        let mut patience = Patience::default();
        patience.nobody_answered();
        patience.succeeded(Duration::from_secs(2));
        assert_eq!(patience.attempt(BASE, MOST), Duration::from_secs(4));
        patience.succeeded(Duration::from_millis(1));
        assert_eq!(patience.attempt(BASE, MOST), Duration::from_millis(3600));
        for _ in 0..30 {
            patience.succeeded(Duration::from_millis(1));
        }
        assert_eq!(patience.attempt(BASE, MOST), BASE);
        // `--request-timeout` is the limit, whatever was seen.
        patience.succeeded(Duration::from_secs(9));
        assert_eq!(patience.attempt(BASE, MOST), MOST);
        assert_eq!(patience.attempt(Duration::from_secs(8), MOST), MOST);
    }
}
