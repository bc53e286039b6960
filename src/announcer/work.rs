//! Does what the state machine asks for, one action at a time, at a pace that does not overload etcd.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::state::{Action, Event};
use crate::{
    budget::{Budget, Lines},
    etcd::{Claimed, Error, OwnKey},
    lease::{LeaseId, Sight},
};

/// After an outage, a key that was lost is claimed again within this time. The moment is random, so that a fleet does
/// not come back all at once.
const SPREAD: Duration = Duration::from_millis(500);
/// Five losses in a row are repaired at once, and after that one per second. So a process that keeps taking the key
/// away causes one put per second, and no fight.
const REPAIRS: Budget = Budget::new(5, Duration::from_secs(1));
/// Fifty steps in a row are made at once, and after that ten per second. A repair takes five steps at most. Only an
/// etcd whose answers contradict each other needs more, and it would keep us busy without end.
const STEPS: Budget = Budget::new(50, Duration::from_millis(100));

/// Works on our key, one action at a time.
#[derive(Debug)]
pub(super) struct Worker {
    own_key: OwnKey,
    pace: Pace,
    /// Limits how often "still announced" is logged.
    still: Lines,
}

impl Worker {
    pub(super) fn new(own_key: OwnKey) -> Self {
        Self { own_key, pace: Pace::default(), still: Lines::default() }
    }

    /// The TTL that etcd granted. Until a lease is granted, the TTL that we ask for.
    pub(super) fn ttl(&self) -> Duration {
        self.own_key.ttl()
    }

    /// From now on every request must be done within `limit`.
    pub(super) fn hurry(&mut self, limit: Duration) {
        self.own_key.hurry(limit);
    }

    /// Does one action and returns the result. It does not return if there is nothing to do. If it is dropped, we do
    /// not know whether etcd acted on the request.
    pub(super) async fn perform(&mut self, action: &Action) -> Event {
        if *action != Action::Pause {
            self.pace.resume_at = None;
        }
        if !matches!(action, Action::Idle | Action::Pause | Action::Finish(_)) {
            sleep_until(self.pace.steps.take(Instant::now())).await;
        }
        let own_key = &mut self.own_key;
        let done = match action {
            Action::Idle | Action::Finish(_) => pending().await,
            Action::Pause => {
                sleep_until(self.pace.resume_at()).await;
                Ok(Event::Paused)
            }
            Action::Look(lease) => own_key.look(*lease).await.map(Event::Seen),
            Action::Grant(lease) => own_key.grant(*lease).await.map(|()| Event::Granted),
            Action::Put(lease, sight) => own_key.put(*lease, sight).await.map(|claimed| match claimed {
                Claimed::Put(sight) => Event::Put(sight),
                Claimed::Changed => Event::Changed,
            }),
            Action::Hold(lease, sight) => self.hold(Some(*lease), sight).await.map(Event::Seen),
            Action::Follow(sight) => self.hold(None, sight).await.map(Event::Seen),
            Action::Revoke(lease) => own_key.revoke(*lease).await.map(|existed| Event::Revoked { existed }),
        };
        done.unwrap_or_else(|error| match error {
            Error::LeaseNotFound => Event::LeaseGone,
            Error::Unavailable(_) => Event::Unanswered,
            // All other errors are an answer of etcd, or were found before anything was sent.
            _ => Event::Refused,
        })
    }

    async fn hold(&mut self, lease: Option<LeaseId>, sight: &Sight) -> Result<Sight, Error> {
        self.pace.seen_live = false;
        let established = |was_silent| {
            self.pace.seen_live = true;
            if let (true, Some(lease)) = (was_silent, lease)
                && self.still.may_say()
            {
                info!(%lease, "still announced");
            }
        };
        self.own_key.hold(lease, sight, established).await
    }
}

/// The pace: how soon a loss is repaired, and how often anything is done.
#[derive(Debug)]
struct Pace {
    /// How many times the key may be put back at once.
    repairs: Budget,
    /// How many steps may be made at once.
    steps: Budget,
    /// When the present pause is over. A pause may be started more than once, and keeps its end.
    resume_at: Option<Instant>,
    /// Whether the last change was seen on a live watch, and not found after an outage.
    seen_live: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { repairs: REPAIRS, steps: STEPS, resume_at: None, seen_live: false }
    }
}

impl Pace {
    /// When the present pause is over; starts one if there is none.
    fn resume_at(&mut self) -> Instant {
        let resume_at = match self.resume_at {
            Some(resume_at) => resume_at,
            None => self.repairs.take(Instant::now()) + self.spread(),
        };
        *self.resume_at.insert(resume_at)
    }

    /// An extra wait for a loss that was found after an outage. There is none for a loss that was seen when it
    /// happened.
    fn spread(&self) -> Duration {
        if self.seen_live { Duration::ZERO } else { SPREAD.mul_f64(fastrand::f64()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_after_an_outage_is_claimed_within_half_a_second_and_not_by_all_at_once() {
        let seen_live = Pace { seen_live: true, ..Pace::default() };
        assert_eq!(seen_live.spread(), Duration::ZERO);
        let spreads: Vec<_> = (0..200).map(|_| Pace::default().spread()).collect();
        assert!(spreads.iter().all(|spread| *spread <= SPREAD), "{spreads:?}");
        let of = |range: std::ops::Range<f64>| {
            spreads.iter().filter(|spread| range.contains(&spread.div_duration_f64(SPREAD))).count()
        };
        assert!(of(0.0..0.25) > 10 && of(0.75..1.0) > 10, "{spreads:?}");
    }
}
