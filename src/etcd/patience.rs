//! How long one attempt may take: as short as the TTL wants it, and as long as etcd has been seen to need.

use std::time::Duration;

/// What is left of the slowest success after each further one: it is forgotten over some twenty of them.
const FADING: f64 = 0.9;
/// Doubled at most so often in a row; `--request-timeout` ends it long before.
const MOST_DOUBLINGS: u32 = 16;

/// What was seen of etcd's pace.
///
/// An attempt that always begins from nothing would be too short for ever on an etcd that is slow. Doubling it blindly
/// would make a round over three members of which one is dead longer than a short TTL. So it grows only after a round
/// that nobody answered, and with what a success really took.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How often it was doubled since the last success.
    doubled: u32,
    /// The slowest success, fading.
    slowest: Duration,
}

impl Patience {
    /// The time for one attempt: at least `base`, at most `most`.
    pub(super) fn attempt(&self, base: Duration, most: Duration) -> Duration {
        let doubled = base.saturating_mul(1 << self.doubled.min(MOST_DOUBLINGS));
        doubled.max(self.slowest.saturating_mul(2)).min(most)
    }

    /// An attempt, or a part of one, succeeded after this long.
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
        // What `--request-timeout` forbids is not tried.
        patience.succeeded(Duration::from_secs(9));
        assert_eq!(patience.attempt(BASE, MOST), MOST);
        assert_eq!(patience.attempt(Duration::from_secs(8), MOST), MOST);
    }
}
