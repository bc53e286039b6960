//! Which reasons are worth a log line: each new one, but never so many that they fill a disk.

use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Budget;

/// So many lines may come in a burst.
const BURST: u32 = 10;
/// After a burst, a line may come this often.
const EVERY: Duration = Duration::from_secs(10);

/// Remembers the reason that was said last, and how much may still be said.
#[derive(Debug)]
pub(super) struct News {
    said: Option<String>,
    lines: Budget,
}

impl News {
    pub(super) fn new() -> Self {
        Self { said: None, lines: Budget::new(BURST, EVERY) }
    }

    /// Whether `reason` is to be said now: when it is another one than was said last, within the
    /// budget. What the budget holds back is news still when it is asked about again.
    pub(super) fn is_news(&mut self, reason: &str) -> bool {
        if self.said.as_deref() == Some(reason) || !self.lines.take_now(Instant::now()) {
            return false;
        }
        self.said = Some(reason.to_owned());
        true
    }

    /// Takes in that `reason` was said for another cause.
    pub(super) fn said(&mut self, reason: &str) {
        self.said = Some(reason.to_owned());
    }

    /// Takes in that what was said is over: the same would be news again.
    pub(super) fn over(&mut self) {
        self.said = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_new_reason_is_said_once() {
        let mut news = News::new();
        let said: Vec<bool> = ["a", "a", "b", "b", "a", "c", "c"].map(|reason| news.is_news(reason)).into();
        assert_eq!(said, [true, false, true, false, true, true, false]);
        news.said("d");
        assert!(!news.is_news("d"));
        news.over();
        assert!(news.is_news("d"));
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_that_flap_fill_no_log_and_the_one_that_stays_is_said() {
        let mut news = News::new();
        let mut lines = 0;
        for probe in 0..36_000 {
            lines += usize::from(news.is_news(if probe % 2 == 0 { "a" } else { "b" }));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert!((300..=370).contains(&lines), "{lines} lines in an hour");
        let said = (0..200).filter(|_| news.is_news("c")).count();
        assert!(said <= 1);
        tokio::time::advance(EVERY).await;
        assert!(said == 1 || news.is_news("c"));
        assert!(!news.is_news("c"));
    }
}
