//! Measures since when all candidates are there and no node is announced. The list is not frozen before that has lasted
//! for the hold.
//!
//! After etcd lost its data, candidates may be back earlier than the sidekicks of a running cluster, which pause for up
//! to 5 s between two rounds of attempts. A list that is frozen in between would elect a second cluster. Without this
//! wait, that was seen in 11 of 12 runs.

use std::time::Duration;

use tokio::time::Instant;

use super::stored::View;
use crate::host::Host;

/// By how much the hold is longer after etcd failed: it may have lost its data then, and attempts at members that do
/// not answer delay the sidekicks longer than one pause does.
const AFTER_A_FAILURE: u32 = 3;

/// Measures how long the same candidates have been there.
#[derive(Clone, Debug)]
pub struct Settling {
    hold: Duration,
    /// The first candidates with their create revisions, and since when they have been seen.
    since: Option<(Vec<(Host, i64)>, Instant)>,
}

impl Settling {
    /// No candidate was seen yet. The candidates must be there for `hold`.
    pub fn new(hold: Duration) -> Self {
        Self { hold, since: None }
    }

    /// Takes in a view that was read at `now`, in which `expect` candidates are wanted. Returns whether the first
    /// `expect` candidates have been seen for long enough: the same ones each time, no node announced, no list, no
    /// mark.
    pub fn take(&mut self, view: &View, expect: u32, now: Instant) -> bool {
        let is_free = view.announced.is_none() && view.list.is_none() && view.formed.is_none();
        let wanted = usize::try_from(expect).unwrap_or(usize::MAX);
        let Some(first) = view.candidates.get(..wanted).filter(|_| is_free) else {
            self.since = None;
            return false;
        };
        let seats: Vec<_> =
            first.iter().map(|one| (one.candidate.name.clone(), one.create_revision)).collect();
        let since = match &self.since {
            Some((seen, since)) if *seen == seats => *since,
            _ => now,
        };
        self.since = Some((seats, since));
        let failed = first.iter().any(|one| one.candidate.said.saw_etcd_fail);
        now.duration_since(since) >= if failed { AFTER_A_FAILURE * self.hold } else { self.hold }
    }

    /// Etcd could not be read. We do not know what happened meanwhile, so the wait starts again.
    pub fn interrupt(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::tests::{registered, view};

    const HOLD: Duration = Duration::from_secs(10);

    #[test]
    fn candidates_have_settled_when_the_same_ones_were_there_for_the_hold() {
        let mut settling = Settling::new(HOLD);
        let began = Instant::now();
        let mut seen = view(&[registered("a", 1, 2, 5)]);
        assert!(!settling.take(&seen, 2, began));
        seen.candidates.push(registered("b", 2, 2, 6));
        let both = began + HOLD;
        assert!(!settling.take(&seen, 2, both), "both have only just come");
        // A third candidate changes nothing.
        seen.candidates.push(registered("c", 3, 2, 7));
        assert!(!settling.take(&seen, 2, both + HOLD - Duration::from_millis(1)));
        assert!(settling.take(&seen, 2, both + HOLD));
    }

    #[test]
    fn wait_begins_anew_when_a_candidate_or_etcd_was_away_or_somebody_announced() {
        let both = view(&[registered("a", 1, 2, 5), registered("b", 2, 2, 6)]);
        let began = Instant::now();
        let settled = |between: &dyn Fn(&mut Settling)| {
            let mut settling = Settling::new(HOLD);
            assert!(!settling.take(&both, 2, began));
            between(&mut settling);
            settling.take(&both, 2, began + HOLD)
        };
        assert!(settled(&|_| {}));
        assert!(!settled(&|settling| settling.interrupt()));
        let mut announced = both.clone();
        announced.announced = Some("/services/crate/x".to_owned());
        let one = view(&[registered("a", 1, 2, 5)]);
        let came_anew = view(&[registered("a", 1, 2, 5), registered("b", 2, 2, 9)]);
        for other in [announced, one, came_anew] {
            assert!(!settled(&|settling| _ = settling.take(&other, 2, began + HOLD / 2)), "{other:?}");
        }
    }

    #[test]
    fn wait_is_three_times_as_long_where_a_candidate_saw_etcd_fail() {
        let mut both = view(&[registered("a", 1, 2, 5), registered("b", 2, 2, 6)]);
        both.candidates[1].candidate.said.saw_etcd_fail = true;
        let mut settling = Settling::new(HOLD);
        let began = Instant::now();
        assert!(!settling.take(&both, 2, began));
        assert!(!settling.take(&both, 2, began + 2 * HOLD));
        assert!(settling.take(&both, 2, began + 3 * HOLD));
    }
}
