//! A backoff that needs no settings except its cap: the pause starts at 100 ms, doubles, and never exceeds the cap. It
//! is random between zero and that value, so that a fleet does not try again all at once.

use std::time::Duration;

/// The longest pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);

/// The state of a backoff: how long to wait before the next try.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A random pause between zero and 100 ms, doubled for each failure since the last success, but at most `cap`.
    pub fn pause(&mut self, cap: Duration) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.failures.min(20)).min(cap);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(fastrand::f64())
    }

    /// Starts again at 100 ms, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pause_never_exceeds_cap_nor_the_doubling(cap_ms in 0u64..100_000, failures in 0u32..200) {
            let cap = Duration::from_millis(cap_ms);
            let mut backoff = Backoff::default();
            for n in 0..failures {
                let pause = backoff.pause(cap);
                prop_assert!(pause <= cap);
                prop_assert!(pause <= FIRST.saturating_mul(1 << n.min(20)));
            }
            backoff.reset();
            prop_assert!(backoff.pause(cap) <= FIRST);
        }
    }

    #[test]
    fn pauses_are_spread_and_grow() {
        let cap = Duration::from_secs(5);
        let longest = |skip: u32| {
            (0..200)
                .map(|_| {
                    let mut backoff = Backoff::default();
                    (0..skip).for_each(|_| _ = backoff.pause(cap));
                    backoff.pause(cap)
                })
                .max()
                .unwrap()
        };
        assert!(longest(0) > FIRST / 2);
        assert!(longest(10) > cap / 2);
    }
}
