//! The announcer as a pure state machine: events in, one action out; no I/O and no clock.
//!
//! At any time there is exactly one [`Action`] to be doing. The shell in [`super`] does it, reports
//! what came of it as an [`Event`], and asks again. An action that is still the same after an event
//! is carried on; a different one replaces it. That is why a grant or a put that is on its way is
//! never abandoned with its outcome unknown: while it is, the machine keeps asking for it.
//!
//! What holds in every state, and is tested below: at most one lease is ours; nothing is put or
//! granted once shutdown began; a lease that is being released is never renewed; only our own lease
//! is ever revoked, which deletes what is attached to it and nothing else.

use crate::lease::{LeaseId, Sight};

/// What is going on. Each state carries what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The gate is closed; nothing of ours is in etcd.
    Waiting,
    /// Getting a lease, and the key under it.
    Claiming(Claim),
    /// The key is under our lease; we keep it alive and watch the key.
    Announced {
        /// Our lease.
        session: Session,
        /// The key as we put it.
        sight: Sight,
    },
    /// Another lease holds the key; ours is revoked.
    Standby {
        /// The key as its holder put it.
        holder: Sight,
    },
    /// The gate closed, the key is another's, or the answer to a grant was lost: our lease is not
    /// kept alive any more and is revoked until etcd answers.
    Releasing {
        /// Our lease, on its way out.
        session: Session,
        /// Who holds the key instead, if that is why.
        holder: Option<Sight>,
    },
    /// Shutdown: as releasing, until the shell says that time is up.
    Withdrawing {
        /// Our lease, on its way out.
        session: Session,
    },
    /// The end.
    Gone(Ending),
}

/// The steps to the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Where we are.
    pub step: Step,
    /// Our lease, once one was asked for.
    pub session: Option<Session>,
    /// What to do instead as soon as the outcome of this step is known.
    then: Then,
}

/// One step of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Something was lost: wait a moment, so that neither a fleet nor a fight runs hot.
    Pause,
    /// Read the key; keep our lease alive, if there is one, and learn whether it lives.
    Look,
    /// Ask for a lease.
    Grant(Sight),
    /// Put the key under our lease, if it still is as it was seen.
    Put(Sight),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Then {
    GoOn,
    Release,
    Withdraw,
}

/// One lease: granted, kept alive, lost or revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Chosen by us, at random, never used again.
    pub lease: LeaseId,
    /// The answer to the grant was lost: whether the lease is there, or will be, is unknown.
    pub unsettled: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Nothing of ours is in etcd.
    Clean,
    /// Etcd did not confirm that this lease is gone.
    Unconfirmed(LeaseId),
}

/// What must be going on now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing.
    Idle,
    /// Wait a moment before the next look.
    Pause,
    /// Read the key and, side by side, renew this lease.
    Look(Option<LeaseId>),
    /// Ask for a lease under this id.
    Grant(LeaseId),
    /// Put the key under this lease if its mod revision still is the one seen.
    Put(LeaseId, Sight),
    /// Keep this lease alive and report when the key is no longer as seen.
    Hold(LeaseId, Sight),
    /// Report when the key is no longer as seen.
    Follow(Sight),
    /// Revoke this lease.
    Revoke(LeaseId),
    /// End.
    Finish(Ending),
}

/// What happened: to us, or to the action that is going on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The node can be joined.
    GateOpened,
    /// The node cannot be joined any more.
    GateClosed,
    /// We are told to end.
    Shutdown,
    /// The time for ending is up.
    TimeUp,
    /// The pause is over.
    Paused,
    /// The key is like this.
    Seen(Sight),
    /// The lease is there.
    Granted,
    /// The key is under our lease now.
    Put(Sight),
    /// The key was no longer as it was seen; nothing was put.
    Changed,
    /// Etcd says that our lease is not there.
    LeaseGone,
    /// Etcd says that our lease is not there any more.
    Revoked {
        /// It was there until then.
        existed: bool,
    },
    /// No answer: whether etcd acted on it is unknown.
    Unanswered,
    /// Etcd answered no; it did nothing.
    Refused,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    state: State,
    gate_open: bool,
    /// Until this process's first claim has succeeded it takes the key over whoever holds it, so
    /// that a restart after a crash does not wait for the lease of its predecessor to end.
    takes_over: bool,
}

impl Machine {
    /// A machine that has announced nothing yet.
    pub fn new(gate_open: bool) -> Self {
        let state = if gate_open { State::claiming(Step::Look, None) } else { State::Waiting };
        Self { state, gate_open, takes_over: true }
    }

    /// What is going on.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What must be going on now.
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

    /// Takes in what happened. `fresh` is a lease id that was never used before; it is taken when
    /// a new session begins.
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
            // The outcome of the step is known now: do what waited for it.
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
                // Not again under the same id: the lost request could be delivered after that
                // lease was revoked, and a lost put after it, and the key would be an orphan's.
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

    /// What to do about the key as it was just read.
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
    /// Whether there is a lease of ours that is to be kept alive.
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

    /// Leaves the claim: at once, or as soon as the outcome of a request on its way is known.
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
