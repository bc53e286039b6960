//! What was logged about the answers, so that each fact is logged once, and at most one line of each kind per minute.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::host::Host;

/// The time between two lines of one kind. Others can cause these lines: those who write to etcd, and those who send
/// queries.
const PAUSE: Duration = Duration::from_secs(60);

/// What was logged.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The hosts that cannot be in an answer, and were logged.
    unfit: BTreeSet<Host>,
    /// The hosts that cannot be in an answer, and were not logged yet.
    untold: BTreeSet<Host>,
    unfit_at: Option<Instant>,
    /// Whether it was logged that not all nodes fit into an answer.
    is_full: bool,
    limited_at: Option<Instant>,
}

impl Told {
    /// From now on exactly these hosts cannot be in an answer.
    pub fn judged(&mut self, unfit: &[Host]) {
        self.untold = unfit.iter().cloned().collect();
        self.unfit.retain(|host| self.untold.remove(host));
    }

    /// A host to log that cannot be in an answer, and how many more there are. `None` if all were logged, or if it is
    /// too early for a line. After this call all of them count as logged.
    pub fn unfit(&mut self, now: Instant) -> Option<(Host, usize)> {
        let first = self.untold.first()?.clone();
        is_due(&mut self.unfit_at, now).then(|| {
            let more = self.untold.len() - 1;
            self.unfit.append(&mut self.untold);
            (first, more)
        })
    }

    /// Whether hosts are left out for the first time.
    pub fn is_first_full(&mut self, left_out: usize) -> bool {
        left_out > 0 && !std::mem::replace(&mut self.is_full, true)
    }

    /// Whether it is time for a line about senders above the limit.
    pub fn is_limited_due(&mut self, now: Instant) -> bool {
        is_due(&mut self.limited_at, now)
    }
}

/// Whether the last time is long enough ago. If so, the last time is set to now.
fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
    if is_due {
        *last = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_once_of_each_host_that_is_left_out_in_a_line_a_minute() {
        let start = Instant::now();
        let mut told = Told::default();
        let mut hears = |seconds: u64, hosts: Option<&[&str]>| {
            if let Some(hosts) = hosts {
                told.judged(&hosts.iter().map(|host| host.parse().unwrap()).collect::<Vec<Host>>());
            }
            told.unfit(start + Duration::from_secs(seconds)).map(|(host, more)| (host.to_string(), more))
        };
        assert_eq!(hears(0, Some(&["b..c"])), Some(("b..c".to_owned(), 0)));
        assert_eq!(hears(0, Some(&["b..c"])), None);
        // Two more within the minute have to wait for its end.
        assert_eq!(hears(59, Some(&["b..c", "d..e", "f..g"])), None);
        assert_eq!(hears(60, None), Some(("d..e".to_owned(), 1)));
        assert_eq!(hears(200, Some(&["b..c", "d..e", "f..g"])), None);
        // A host that was gone and is back is logged again.
        assert_eq!(hears(300, Some(&[])), None);
        assert_eq!(hears(400, Some(&["b..c"])), Some(("b..c".to_owned(), 0)));
    }

    #[test]
    fn the_log_is_told_once_that_answers_are_full() {
        let mut told = Told::default();
        assert_eq!(
            [0, 5, 6, 0, 7].map(|left_out| told.is_first_full(left_out)),
            [false, true, false, false, false]
        );
    }

    #[test]
    fn the_log_is_told_of_askers_beyond_the_limit_once_a_minute() {
        let start = Instant::now();
        let mut told = Told::default();
        let due = [0, 1, 59, 60, 61, 120].map(|n| told.is_limited_due(start + Duration::from_secs(n)));
        assert_eq!(due, [true, false, false, true, false, true]);
    }
}
