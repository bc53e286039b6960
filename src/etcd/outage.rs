//! What is known of an outage, and is said once in the log.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::error::Error;
use crate::budget::Lines;

/// A refusal that goes on is logged again after this long, so that it stays visible.
const REPEAT_REFUSAL: Duration = Duration::from_secs(600);

/// So many endpoints are said to be left in one outage.
const MOST_SAID: usize = 50;

/// The outage that is going on, if one is.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Endpoints left since the last answer, and whether for a certificate; each is said once.
    left: Vec<(String, bool)>,
    /// It was said that nobody answers.
    nobody: bool,
    /// It was said, once for all time, that a round takes too long for the TTL.
    long: bool,
    /// The refusal that was said, and when.
    refused: Option<(String, Instant)>,
    /// An etcd that answers and then fails, or now this and now that, would have us say it without end.
    lines: Lines,
    /// Nothing is said.
    silent: bool,
}

impl Outage {
    /// Says nothing from now on.
    pub(super) fn silence(&mut self) {
        self.silent = true;
    }

    /// An answer came: an outage, if there was one, is over.
    pub(super) fn answered(&mut self, endpoint: &str) {
        self.nobody = false;
        if !std::mem::take(&mut self.left).is_empty() && self.may_say() {
            info!(endpoint, "etcd answers again");
        }
    }

    /// Etcd did what it may have refused before.
    pub(super) fn accepted(&mut self, endpoint: &str) {
        if self.refused.take().is_some() && self.may_say() {
            info!(endpoint, "etcd accepts again");
        }
    }

    /// `endpoint` did not answer.
    pub(super) fn left(&mut self, endpoint: &str, reason: &str) {
        // A certificate is the operator's to replace: said even where the outage began otherwise.
        let certificate = reason.contains("certificate");
        let said = self.left.iter().any(|(left, said)| left == endpoint && (*said || !certificate));
        if !said && !self.silent && self.left.len() < MOST_SAID {
            self.left.push((endpoint.to_owned(), certificate));
            if self.may_say() {
                warn!(endpoint, reason, "endpoint left");
            }
        }
    }

    /// A round is over, and none of so many addresses answered.
    pub(super) fn nobody_answers(&mut self, endpoints: usize) {
        if !self.silent && !std::mem::replace(&mut self.nobody, true) && self.may_say() {
            warn!(endpoints, "no endpoint of etcd answers");
        }
    }

    /// A round may take so long from now on.
    pub(super) fn round_is_long(&mut self, round: Duration, ttl: Duration) {
        if !self.silent && round > ttl / 2 && !std::mem::replace(&mut self.long, true) {
            warn!(
                round = %humantime::format_duration(round),
                ttl = %humantime::format_duration(ttl),
                "a round over all endpoints may take longer than half of the TTL: with a longer \"--ttl\" the key outlives it"
            );
        }
    }

    /// Etcd answered no, or a file that is needed to ask it cannot be used.
    pub(super) fn refused(&mut self, endpoint: &str, user: &str, error: &Error) {
        if self.silent {
            return;
        }
        let (now, reason) = (Instant::now(), error.to_string());
        if let Some((said, at)) = &self.refused
            && *said == reason
            && now - *at < REPEAT_REFUSAL
        {
            return;
        }
        self.refused = Some((reason.clone(), now));
        if !self.may_say() {
            return;
        }
        match error {
            Error::NoSpace => warn!(endpoint, reason, "etcd is out of space"),
            Error::Unusable(_) => warn!(reason, "unusable file"),
            _ => warn!(endpoint, user, reason, "etcd refuses"),
        }
    }

    fn may_say(&mut self) -> bool {
        !self.silent && self.lines.may_say()
    }
}
