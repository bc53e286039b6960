//! The announcer as a pure state machine: events go in, one action comes out. It has no I/O and no clock.
//!
//! At any time exactly one [`Action`] has to be done. The loop in [`super`] does it, reports the result as an
//! [`Event`], and asks again. If the action is the same after an event, it goes on; if it is another one, it replaces
//! the old one. While the answer to a grant or a put is still missing, the machine asks for the same action. So a
//! request that changes etcd is never abandoned on its way.
//!
//! A lost lease arrives as [`Event::LeaseGone`], and a key that was deleted or overwritten as [`Event::Seen`].
//!
//! These rules hold in every state, and are tested below: we have at most one lease. Nothing is granted or put once the
//! shutdown has begun. A lease that is being released is never renewed. We revoke only our own lease, which deletes the
//! keys that are attached to it and nothing else.

use crate::lease::{LeaseId, Sight};

/// The state. Each variant carries what is known in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The gate is closed, and nothing of ours is in etcd.
    Waiting,
    /// We are about to get a lease, and to put the key under it.
    Claiming(Claim),
    /// The key is under our lease. We keep the lease alive and watch the key.
    Announced {
        /// Our lease.
        session: Session,
        /// The key as we put it.
        sight: Sight,
    },
    /// Another lease holds the key. We have no lease.
    Standby {
        /// The key as its holder put it.
        holder: Sight,
    },
    /// The gate closed, another lease took the key, or the answer to a grant was lost. Our lease is not kept alive any
    /// more, and we ask etcd to revoke it until etcd answers.
    Releasing {
        /// Our lease, which is being revoked.
        session: Session,
        /// The key as its new holder put it, if that is why we release.
        holder: Option<Sight>,
    },
    /// Shutdown: as in `Releasing`, until the loop says that the time is up.
    Withdrawing {
        /// Our lease, which is being revoked.
        session: Session,
    },
    /// The end.
    Gone(Ending),
}

/// How far we are on the way to the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The present step.
    pub step: Step,
    /// Our lease, once we have asked for one.
    pub session: Option<Session>,
    /// What to do when the result of this step is known.
    then: Then,
}

/// One step of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// We lost the key or the lease. We wait for a moment, so that many sidekicks, or two that fight, do not load etcd.
    Pause,
    /// Read the key. If we have a lease, renew it, and learn whether it still exists.
    Look,
    /// Ask for a lease.
    Grant(Sight),
    /// Put the key under our lease, if the key is still as we saw it.
    Put(Sight),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Then {
    GoOn,
    Release,
    Withdraw,
}

/// One lease of ours: granted, kept alive, then lost or revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// The id. We choose it at random, and never use it again.
    pub lease: LeaseId,
    /// Whether the answer to the grant was lost. Then we do not know whether the lease exists, or will exist.
    pub unsettled: bool,
}

/// How the announcer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Nothing of ours is in etcd.
    Clean,
    /// Etcd did not confirm that this lease is gone.
    Unconfirmed(LeaseId),
}

/// What has to be done now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing.
    Idle,
    /// Wait a moment before the next look.
    Pause,
    /// Read the key and, at the same time, renew this lease.
    Look(Option<LeaseId>),
    /// Ask for a lease with this id.
    Grant(LeaseId),
    /// Put the key under this lease, if its mod revision is still the one that we saw.
    Put(LeaseId, Sight),
    /// Keep this lease alive, and report when the key is no longer as we saw it.
    Hold(LeaseId, Sight),
    /// Report when the key is no longer as we saw it.
    Follow(Sight),
    /// Revoke this lease.
    Revoke(LeaseId),
    /// End the loop.
    Finish(Ending),
}

/// What happened: an event from outside, or the result of the present action.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The node can be joined.
    GateOpened,
    /// The node cannot be joined any more.
    GateClosed,
    /// The process is told to end.
    Shutdown,
    /// The time for the withdrawal is over.
    TimeUp,
    /// The pause is over.
    Paused,
    /// The key was read, or has changed.
    Seen(Sight),
    /// Etcd granted the lease.
    Granted,
    /// The key is under our lease now.
    Put(Sight),
    /// The key was not as we had seen it, so nothing was put.
    Changed,
    /// Etcd says that our lease does not exist.
    LeaseGone,
    /// Etcd says that our lease is gone, after we asked to revoke it.
    Revoked {
        /// Whether it existed until then.
        existed: bool,
    },
    /// There was no answer. We do not know whether etcd acted on the request.
    Unanswered,
    /// Etcd refused the request, and did nothing.
    Refused,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    state: State,
    gate_open: bool,
    /// Whether a claim takes the key from any holder. That is so until the first claim of this process has succeeded:
    /// after a crash and a restart, we do not wait until the lease of our predecessor ends.
    takes_over: bool,
}

impl Machine {
    /// A machine that has announced nothing yet.
    pub fn new(gate_open: bool) -> Self {
        let state = if gate_open { State::claiming(Step::Look, None) } else { State::Waiting };
        Self { state, gate_open, takes_over: true }
    }

    /// The present state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What has to be done now.
    pub fn action(&self) -> Action {
        match &self.state {
            State::Waiting => Action::Idle,
            State::Claiming(claim) => claim.action(),
            State::Announced { session, sight } => Action::Hold(session.lease, sight.clone()),
            State::Standby { holder } => Action::Follow(holder.clone()),
            State::Releasing { session, .. } | State::Withdrawing { session } => {
                Action::Revoke(session.lease)
            }
            State::Gone(ending) => Action::Finish(*ending),
        }
    }

    /// Takes in what happened. `fresh` is a lease id that was never used before. The machine uses it if a new session
    /// begins.
    pub fn on(&mut self, event: Event, fresh: LeaseId) {
        match event {
            Event::GateOpened => self.gate_open = true,
            Event::GateClosed => self.gate_open = false,
            Event::Put(_) => self.takes_over = false,
            _ => {}
        }
        let state = std::mem::replace(&mut self.state, State::Waiting);
        self.state = match state {
            State::Waiting => self.waiting(&event),
            State::Claiming(claim) => self.claiming(claim, event, fresh),
            State::Announced { session, sight } => announced(session, sight, event),
            State::Standby { holder } => standby(holder, event),
            State::Releasing { session, holder } => self.releasing(session, holder, &event),
            State::Withdrawing { session } => withdrawing(session, &event),
            gone @ State::Gone(_) => gone,
        };
        if matches!(self.state, State::Announced { .. }) {
            self.takes_over = false;
        }
    }

    fn waiting(&self, event: &Event) -> State {
        match event {
            Event::GateOpened => State::claiming(Step::Look, None),
            Event::Shutdown => State::Gone(Ending::Clean),
            _ => State::Waiting,
        }
    }

    fn claiming(&self, mut claim: Claim, event: Event, fresh: LeaseId) -> State {
        match event {
            Event::Shutdown => return claim.turn(Then::Withdraw),
            Event::GateClosed if claim.then == Then::GoOn => return claim.turn(Then::Release),
            Event::GateOpened if claim.then == Then::Release => claim.then = Then::GoOn,
            Event::TimeUp => {
                return State::Gone(claim.session.map_or(Ending::Clean, |s| Ending::Unconfirmed(s.lease)));
            }
            _ => {}
        }
        let (step, then) = (claim.step.clone(), claim.then);
        match self.claim_step(claim, event, fresh) {
            state if then == Then::GoOn => state,
            State::Claiming(next) if next.step == step => State::Claiming(next),
            // The result of the step is known now, so we do what had to wait for it.
            State::Claiming(next) => State::leave(next.session, then),
            State::Announced { session, .. } | State::Releasing { session, .. } => {
                State::leave(Some(session), then)
            }
            state => state,
        }
    }

    fn claim_step(&self, mut claim: Claim, event: Event, fresh: LeaseId) -> State {
        match (&claim.step, event) {
            (Step::Pause, Event::Paused) => claim.step = Step::Look,
            (Step::Look, Event::Seen(sight)) => return self.judge(claim.session, sight, fresh),
            (Step::Look, Event::LeaseGone) => claim.session = None,
            (Step::Grant(sight), Event::Granted) => claim.step = Step::Put(sight.clone()),
            (Step::Grant(_), Event::Unanswered) => {
                // We never try again with the same id. The lost grant could arrive after we revoked that lease, and a
                // lost put after the grant. Then a key of nobody would be there.
                if let Some(session) = claim.session {
                    let session = Session { unsettled: true, ..session };
                    return State::Releasing { session, holder: None };
                }
            }
            (Step::Grant(_), Event::Refused) => {
                claim.session = None;
                claim.step = Step::Look;
            }
            (Step::Put(_), Event::Put(sight)) => {
                if let Some(session) = claim.session {
                    return State::Announced { session, sight };
                }
            }
            (Step::Put(_), Event::LeaseGone) => {
                claim.session = None;
                claim.step = Step::Look;
            }
            (Step::Put(_), Event::Changed | Event::Unanswered | Event::Refused) => claim.step = Step::Look,
            _ => {}
        }
        State::Claiming(claim)
    }

    /// Decides what to do about the key as it was just read.
    fn judge(&self, session: Option<Session>, sight: Sight, fresh: LeaseId) -> State {
        match session {
            Some(session) if sight.is_ours(session.lease) => State::Announced { session, sight },
            _ if !self.takes_over && sight.is_held_by_another(session.map(|session| session.lease)) => {
                State::stand_by(session, sight)
            }
            Some(session) => State::claiming(Step::Put(sight), Some(session)),
            None => {
                let session = Session { lease: fresh, unsettled: false };
                State::claiming(Step::Grant(sight), Some(session))
            }
        }
    }

    fn releasing(&self, session: Session, holder: Option<Sight>, event: &Event) -> State {
        match (event, holder) {
            (Event::Shutdown, _) => State::Withdrawing { session },
            (Event::Revoked { .. }, _) if !self.gate_open => State::Waiting,
            (Event::Revoked { .. }, Some(holder)) => State::Standby { holder },
            (Event::Revoked { .. }, None) => State::claiming(Step::Look, None),
            (_, holder) => State::Releasing { session, holder },
        }
    }
}

fn announced(session: Session, sight: Sight, event: Event) -> State {
    match event {
        Event::Seen(seen) if seen.is_ours(session.lease) => State::Announced { session, sight: seen },
        Event::Seen(seen) if seen.is_held_by_another(Some(session.lease)) => {
            State::stand_by(Some(session), seen)
        }
        Event::Seen(_) => State::claiming(Step::Pause, Some(session)),
        Event::LeaseGone => State::claiming(Step::Pause, None),
        Event::GateClosed => State::leave(Some(session), Then::Release),
        Event::Shutdown => State::leave(Some(session), Then::Withdraw),
        _ => State::Announced { session, sight },
    }
}

fn standby(holder: Sight, event: Event) -> State {
    match event {
        Event::Seen(seen) if seen.is_held_by_another(None) => State::Standby { holder: seen },
        Event::Seen(_) => State::claiming(Step::Pause, None),
        Event::GateClosed => State::Waiting,
        Event::Shutdown => State::Gone(Ending::Clean),
        _ => State::Standby { holder },
    }
}

fn withdrawing(session: Session, event: &Event) -> State {
    match event {
        Event::Revoked { existed } if *existed || !session.unsettled => State::Gone(Ending::Clean),
        Event::Revoked { .. } | Event::TimeUp => State::Gone(Ending::Unconfirmed(session.lease)),
        _ => State::Withdrawing { session },
    }
}

impl State {
    /// Whether we have a lease that must be kept alive.
    pub(super) fn renews(&self) -> bool {
        match self {
            Self::Announced { .. } => true,
            Self::Claiming(claim) => claim.session.is_some() && claim.then == Then::GoOn,
            _ => false,
        }
    }

    fn claiming(step: Step, session: Option<Session>) -> Self {
        Self::Claiming(Claim { step, session, then: Then::GoOn })
    }

    fn stand_by(session: Option<Session>, holder: Sight) -> Self {
        match session {
            Some(session) => Self::Releasing { session, holder: Some(holder) },
            None => Self::Standby { holder },
        }
    }

    fn leave(session: Option<Session>, then: Then) -> Self {
        match (session, then) {
            (Some(session), Then::Withdraw) => Self::Withdrawing { session },
            (None, Then::Withdraw) => Self::Gone(Ending::Clean),
            (Some(session), _) => Self::Releasing { session, holder: None },
            (None, _) => Self::Waiting,
        }
    }
}

impl Claim {
    fn action(&self) -> Action {
        match (&self.step, &self.session) {
            (Step::Pause, _) => Action::Pause,
            (Step::Grant(_), Some(session)) => Action::Grant(session.lease),
            (Step::Put(sight), Some(session)) => Action::Put(session.lease, sight.clone()),
            (_, session) => Action::Look(session.map(|session| session.lease)),
        }
    }

    /// Whether a request that changes etcd is on its way.
    fn in_flight(&self) -> bool {
        matches!(self.step, Step::Grant(_) | Step::Put(_))
    }

    /// Leaves the claim: at once, or when the result of a request that is on its way is known.
    fn turn(mut self, then: Then) -> State {
        if self.in_flight() {
            self.then = then;
            State::Claiming(self)
        } else {
            State::leave(self.session, then)
        }
    }
}

#[cfg(test)]
mod tests;
