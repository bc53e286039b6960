//! Does what the state machine asks for, one action at a time, and not faster than is good for etcd.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::state::{Action, Event};
use crate::{
    budget::{Budget, Lines},
    etcd::{Claimed, Error, OwnKey},
    lease::{LeaseId, Sight},
};

/// A loss discovered after an outage is claimed within this long, so that a fleet does not return
/// in one instant.
const SPREAD: Duration = Duration::from_millis(500);
/// So many losses in a row are repaired at once, and one more a second after that: whoever keeps taking the key away is
/// met by one put a second and not by a fight.
const REPAIRS: Budget = Budget::new(5, Duration::from_secs(1));
/// So many steps are made in a row, and ten a second after that. A repair takes five at most, so that nobody needs more
/// but an etcd whose answers cannot all be true, and that one would keep us busy without end.
const STEPS: Budget = Budget::new(50, Duration::from_millis(100));

/// Works on our key, one action at a time.
#[derive(Debug)]
pub(super) struct Worker {
    own_key: OwnKey,
    pace: Pace,
    /// How often it may be said that we are still announced.
    still: Lines,
}

impl Worker {
    pub(super) fn new(own_key: OwnKey) -> Self {
        Self { own_key, pace: Pace::default(), still: Lines::default() }
    }

    /// The TTL that etcd granted, or the one asked for as long as none was granted.
    pub(super) fn ttl(&self) -> Duration {
        self.own_key.ttl()
    }

    /// From now on everything has to be done within `limit`.
    pub(super) fn hurry(&mut self, limit: Duration) {
        self.own_key.hurry(limit);
    }

    /// Does what the machine asks for, once, and tells what came of it. Never ends where there is nothing to do. When
    /// dropped, whether etcd acted on it is unknown.
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
            // Each of these is an answer, or was found out before anything was sent.
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

/// How soon a loss is claimed again, and how fast anything is done.
#[derive(Debug)]
struct Pace {
    /// How often the key may be put back at once.
    repairs: Budget,
    /// How often anything may be done at once.
    steps: Budget,
    /// When the pause that goes on is over: it may be begun more than once.
    resume_at: Option<Instant>,
    /// The last change was seen on a live watch, not discovered after an outage.
    seen_live: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { repairs: REPAIRS, steps: STEPS, resume_at: None, seen_live: false }
    }
}

impl Pace {
    /// When the pause is over that begins now, or began before.
    fn resume_at(&mut self) -> Instant {
        let resume_at = match self.resume_at {
            Some(resume_at) => resume_at,
            None => self.repairs.take(Instant::now()) + self.spread(),
        };
        *self.resume_at.insert(resume_at)
    }

    /// A loss that was discovered after an outage is claimed a moment later than one that was seen to happen.
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
