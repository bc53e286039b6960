//! What is known about an outage, so that each fact is logged once.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::error::Error;
use crate::budget::Lines;

/// A refusal that goes on is logged again after this time, so that it stays visible.
const REPEAT_REFUSAL: Duration = Duration::from_secs(600);

/// The most endpoints that are logged as left in one outage.
const MOST_SAID: usize = 50;

/// The present outage, if there is one.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// The endpoints that were left since the last answer, and whether because of a certificate. Each is logged once.
    left: Vec<(String, bool)>,
    /// It was logged that no endpoint answers.
    nobody: bool,
    /// It was logged that a round takes too long for the TTL. That is logged once in a process.
    long: bool,
    /// The refusal that was logged, and when.
    refused: Option<(String, Instant)>,
    /// Limits the log lines: an etcd that answers and fails by turns could cause them without an end.
    lines: Lines,
    /// Nothing is logged.
    silent: bool,
}

impl Outage {
    /// Logs nothing from now on.
    pub(super) fn silence(&mut self) {
        self.silent = true;
    }

    /// An answer came, so an outage, if there was one, is over.
    pub(super) fn answered(&mut self, endpoint: &str) {
        self.nobody = false;
        if !std::mem::take(&mut self.left).is_empty() && self.may_say() {
            info!(endpoint, "etcd answers again");
        }
    }

    /// Etcd did what it was asked, which it may have refused before.
    pub(super) fn accepted(&mut self, endpoint: &str) {
        if self.refused.take().is_some() && self.may_say() {
            info!(endpoint, "etcd accepts again");
        }
    }

    /// `endpoint` did not answer.
    pub(super) fn left(&mut self, endpoint: &str, reason: &str) {
        // An operator must replace a bad certificate. So it is logged even if the outage began for another reason.
        let certificate = reason.contains("certificate");
        let said = self.left.iter().any(|(left, said)| left == endpoint && (*said || !certificate));
        if !said && !self.silent && self.left.len() < MOST_SAID {
            self.left.push((endpoint.to_owned(), certificate));
            if self.may_say() {
                warn!(endpoint, reason, "endpoint left");
            }
        }
    }

    /// A round is over, and none of the `endpoints` addresses answered.
    pub(super) fn nobody_answers(&mut self, endpoints: usize) {
        if !self.silent && !std::mem::replace(&mut self.nobody, true) && self.may_say() {
            warn!(endpoints, "no endpoint of etcd answers");
        }
    }

    /// A round may take this long from now on.
    pub(super) fn round_is_long(&mut self, round: Duration, ttl: Duration) {
        if !self.silent && round > ttl / 2 && !std::mem::replace(&mut self.long, true) {
            warn!(
                round = %humantime::format_duration(round),
                ttl = %humantime::format_duration(ttl),
                "a round over all endpoints may take longer than half of the TTL: with a longer \"--ttl\" the key outlives it"
            );
        }
    }

    /// Etcd refused, or a file that is needed to ask etcd cannot be used.
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
