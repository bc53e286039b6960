//! Decides which reasons are worth a log line: each new one, but not so many that they fill a disk.

use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Budget;

/// How many lines may come at once.
const BURST: u32 = 10;
/// After these, one line may come in this time.
const EVERY: Duration = Duration::from_secs(10);

/// Remembers the reason that was logged last, and how many lines may still be logged.
#[derive(Debug)]
pub(super) struct News {
    said: Option<String>,
    lines: Budget,
}

impl News {
    pub(super) fn new() -> Self {
        Self { said: None, lines: Budget::new(BURST, EVERY) }
    }

    /// Whether to log `reason` now: it must differ from the last one, and the budget must allow it. A reason that the
    /// budget refused is still new when it is asked about again.
    pub(super) fn is_news(&mut self, reason: &str) -> bool {
        if self.said.as_deref() == Some(reason) || !self.lines.take_now(Instant::now()) {
            return false;
        }
        self.said = Some(reason.to_owned());
        true
    }

    /// Notes that `reason` was logged elsewhere.
    pub(super) fn said(&mut self, reason: &str) {
        self.said = Some(reason.to_owned());
    }

    /// Notes that the last reason is over. The same reason would be new again.
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
