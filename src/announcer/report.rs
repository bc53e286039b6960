//! What is told about an announcement: a log line for each change that matters, and one line about the present state.

use tracing::{info, warn};

use super::state::{Ending, Event, State, Step};
use crate::{
    budget::Lines,
    etcd::Contact,
    lease::{Content, Sight},
    node::Verdict,
    text::escape,
};

/// What was logged about an announcement.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Limits the log lines: another process that fights for the key, or an etcd that lies, could cause them without an
    /// end.
    lines: Lines,
}

impl Report {
    /// Logs one line for each change that matters. If there are too many of those that another process can cause again
    /// and again, some are left out.
    pub(super) fn report(&mut self, key: &str, before: &State, event: &Event, after: &State) {
        match (before, event, after) {
            (State::Claiming(claim), _, State::Announced { session, sight }) if self.lines.may_say() => {
                if let Step::Put(seen) = &claim.step
                    && seen.is_held_by_another(Some(session.lease))
                {
                    info!(key, holder = %holder_of(seen), value = value(seen), "taken over from");
                }
                info!(key, lease = %session.lease, revision = sight.mod_revision, "announced");
            }
            (State::Announced { session, .. }, Event::LeaseGone, _) if self.lines.may_say() => {
                warn!(key, lease = %session.lease, reason = "the lease is gone", "lost");
            }
            (State::Announced { .. }, Event::Seen(sight), State::Claiming(_)) if self.lines.may_say() => {
                let reason = match sight.content {
                    Content::Absent => "the key was deleted",
                    Content::Ours => "the key was detached from our lease",
                    Content::Other(_) | Content::TooLarge => "the key was overwritten",
                };
                warn!(key, reason, "lost");
            }
            (State::Standby { holder }, Event::Seen(sight), State::Standby { .. })
                if holder.lease == sight.lease => {}
            (_, Event::Seen(sight), State::Standby { .. } | State::Releasing { .. })
                if self.lines.may_say() =>
            {
                warn!(key, holder = %holder_of(sight), value = value(sight), "standing by");
            }
            (State::Standby { .. }, Event::Seen(_), State::Claiming(_)) if self.lines.may_say() => {
                info!(key, "the key is free");
            }
            (State::Withdrawing { .. } | State::Announced { .. }, _, State::Gone(Ending::Clean)) => {
                info!(key, "withdrawn");
            }
            (_, _, State::Gone(Ending::Clean)) => info!(key, "ended with nothing of ours in etcd"),
            (State::Releasing { .. }, _, State::Waiting) => info!("withdrawn while the gate is closed"),
            _ => {}
        }
    }
}

fn holder_of(sight: &Sight) -> String {
    sight.lease.map_or_else(|| "none".to_owned(), |lease| lease.to_string())
}

fn value(sight: &Sight) -> &str {
    match &sight.content {
        Content::Absent => "",
        Content::Ours => "the same as ours",
        Content::Other(value) => value,
        Content::TooLarge => "too large to read",
    }
}

/// One line about the present state, for `systemctl status`.
pub(super) fn status_line(key: &str, state: &State, contact: &Contact, verdict: &Verdict) -> String {
    // A renewal that is newer than the failure shows that the failure is over.
    let failure = contact.failure.as_ref().filter(|f| contact.renewed.is_none_or(|renewed| renewed < f.at));
    let failure = failure.map(|f| format!("etcd {}: {}", address(&f.endpoint), f.reason));
    let because = |text: String| match &failure {
        Some(failure) => format!("{text} \u{b7} {failure}"),
        None => text,
    };
    let line = match state {
        State::Waiting => match verdict {
            Verdict::Closed(Some(reason)) => format!("not announced: waiting for the node: {reason}"),
            _ => "not announced: waiting for the node".to_owned(),
        },
        State::Claiming(_) => match &failure {
            Some(failure) => format!("not announced: {failure}"),
            None => format!("not announced yet: asking etcd {}", address(&contact.endpoint)),
        },
        State::Announced { session, .. } => {
            let renewed = contact.renewed.map(|sent| sent.elapsed().as_secs());
            let announced = format!("announced {key} \u{b7} lease {}", session.lease);
            match (&failure, renewed) {
                (Some(failure), Some(seconds)) => {
                    format!("{announced} \u{b7} not renewed for {seconds} s \u{b7} {failure}")
                }
                (Some(failure), None) => format!("{announced} \u{b7} {failure}"),
                (None, renewed) => {
                    let renewed = renewed.map(|s| format!(" \u{b7} renewed {s} s ago")).unwrap_or_default();
                    format!("{announced} \u{b7} etcd {}{renewed}", address(&contact.endpoint))
                }
            }
        }
        State::Standby { holder } => {
            because(format!("standing by: {key} is held by lease {}", holder_of(holder)))
        }
        State::Releasing { session, .. } | State::Withdrawing { session } => {
            because(format!("withdrawing {key} \u{b7} lease {}", session.lease))
        }
        State::Gone(Ending::Clean) => format!("withdrawn {key}"),
        State::Gone(Ending::Unconfirmed(lease)) => {
            because(format!("not withdrawn {key} \u{b7} lease {lease}"))
        }
    };
    // The line may quote a value from elsewhere; it stays one line all the same.
    escape(line.as_bytes())
}

/// The endpoint without its scheme.
fn address(endpoint: &str) -> &str {
    endpoint.split_once("://").map_or(endpoint, |(_, address)| address)
}
