//! Limits how often something may happen, so that nothing from elsewhere keeps us busy without end.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// A number of uses at once, and one more after each pause.
#[derive(Clone, Debug)]
pub struct Budget {
    most: u32,
    refilled_every: Duration,
    /// When the budget is full again. `None` if it was never used.
    full_at: Option<Instant>,
}

impl Budget {
    /// A full budget: `most` uses at once, and one more every `refilled_every`.
    pub const fn new(most: u32, refilled_every: Duration) -> Self {
        Self { most, refilled_every, full_at: None }
    }

    /// Takes one use. Returns when it may happen: `now`, unless too many were taken before.
    pub fn take(&mut self, now: Instant) -> Instant {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + self.refilled_every;
        self.full_at = Some(full_at);
        full_at.checked_sub(self.most * self.refilled_every).map_or(now, |at| at.max(now))
    }

    /// Takes one use if it may happen now. Returns whether it may.
    pub fn take_now(&mut self, now: Instant) -> bool {
        let before = self.full_at;
        let may = self.take(now) <= now;
        if !may {
            self.full_at = before;
        }
        may
    }
}

/// How many log lines of one kind may come at once.
const MOST_LINES: u32 = 30;
/// After these, one more line may come in this time.
const LINE_EVERY: Duration = Duration::from_secs(6);

/// Limits log lines of one kind that others can cause, for example by a fight for our key: thirty at once, and then ten
/// per minute. Lines that are left out are counted, and the count is logged before the next line.
#[derive(Debug)]
pub struct Lines {
    budget: Budget,
    left_out: u64,
}

impl Default for Lines {
    fn default() -> Self {
        Self { budget: Budget::new(MOST_LINES, LINE_EVERY), left_out: 0 }
    }
}

impl Lines {
    /// Whether a line may be logged now. If not, it counts as left out.
    pub fn may_say(&mut self) -> bool {
        if !self.budget.take_now(Instant::now()) {
            self.left_out += 1;
            return false;
        }
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            warn!(lines = left_out, "left out: too many in a short time");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_are_at_once_and_then_one_a_second() {
        let mut budget = Budget::new(5, SECOND);
        let now = Instant::now();
        for taken in 0..9u32 {
            assert_eq!(budget.take(now), now + SECOND * taken.saturating_sub(4), "{taken}");
        }
        // The budget is full again after a while, and never more than full.
        let later = now + Duration::from_secs(60);
        for taken in 0..6u32 {
            assert_eq!(budget.take(later), later + SECOND * taken.saturating_sub(4));
        }
    }

    #[test]
    fn what_may_not_be_taken_now_is_not_taken() {
        let mut budget = Budget::new(2, SECOND);
        let now = Instant::now();
        assert_eq!([(); 4].map(|()| budget.take_now(now)), [true, true, false, false]);
        assert_eq!([(); 2].map(|()| budget.take_now(now + SECOND)), [true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_left_out_after_thirty_and_said_again_later() {
        let mut lines = Lines::default();
        assert_eq!((0..100).filter(|_| lines.may_say()).count(), 30);
        assert_eq!(lines.left_out, 70);
        tokio::time::advance(LINE_EVERY).await;
        assert_eq!([lines.may_say(), lines.may_say()], [true, false]);
        assert_eq!(lines.left_out, 1);
    }
}
