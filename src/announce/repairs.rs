//! How soon a lost key is put back: at once, out of a budget, so that whoever keeps taking it away is met by one put a
//! second and not by a fight.

use std::time::Duration;

use tokio::time::Instant;

/// So many losses in a row are repaired at once.
const MOST: u32 = 5;
/// One more may be repaired at once after each of these.
const REFILLED_EVERY: Duration = Duration::from_secs(1);

/// The repairs that may be made now.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When it is full again; nothing where it was never used.
    full_at: Option<Instant>,
}

impl Budget {
    /// Takes one repair. Gives when it may be made: `now`, unless too many were made before.
    pub(super) fn take(&mut self, now: Instant) -> Instant {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + REFILLED_EVERY;
        self.full_at = Some(full_at);
        full_at.checked_sub(MOST * REFILLED_EVERY).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_repairs_are_at_once_and_then_one_a_second() {
        let mut budget = Budget::default();
        let now = Instant::now();
        for repair in 0..9u32 {
            let at = budget.take(now);
            assert_eq!(at, now + REFILLED_EVERY * repair.saturating_sub(MOST - 1), "repair {repair}");
        }
        // Full again after a while, and never more than full.
        let later = now + Duration::from_secs(60);
        for repair in 0..6u32 {
            assert_eq!(budget.take(later), later + REFILLED_EVERY * repair.saturating_sub(MOST - 1));
        }
    }
}
