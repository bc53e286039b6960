//! One process: the machine, and what the explorer asks of it over and over.

use crate_discovery::{
    announcer::state::{Action, Event, Machine, State, Step},
    lease::Sight,
};

use super::etcd::{Lease, Request, Set, lease_number};

/// A machine, and what it was told.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Announcer {
    pub machine: Machine,
    pub gate_open: bool,
    pub stopping: bool,
    /// Has announced before: must not take over any more.
    pub veteran: bool,
}

impl Announcer {
    pub fn new(gate_open: bool) -> Self {
        Self { machine: Machine::new(gate_open), gate_open, stopping: false, veteran: false }
    }

    pub fn on(&mut self, event: &Event, fresh: Lease) {
        self.machine.on(event.clone(), super::etcd::lease_id(fresh).expect("not lease 0"));
        match event {
            Event::GateOpened => self.gate_open = true,
            Event::GateClosed => self.gate_open = false,
            Event::Shutdown => self.stopping = true,
            _ => {}
        }
        self.veteran |= matches!(event, Event::Put(_)) || self.announced();
    }

    pub fn announced(&self) -> bool {
        matches!(self.machine.state(), State::Announced { .. })
    }

    /// Its lease, or 0.
    pub fn session(&self) -> Lease {
        let session = match self.machine.state() {
            State::Claiming(claim) => claim.session,
            State::Announced { session, .. }
            | State::Releasing { session, .. }
            | State::Withdrawing { session } => Some(*session),
            State::Waiting | State::Standby { .. } | State::Gone(_) => None,
        };
        lease_number(session.map(|session| session.lease))
    }

    /// The key as it remembers it.
    pub fn sight(&self) -> Option<&Sight> {
        match self.machine.state() {
            State::Claiming(claim) => match &claim.step {
                Step::Grant(sight) | Step::Put(sight) => Some(sight),
                Step::Pause | Step::Look => None,
            },
            State::Announced { sight, .. } => Some(sight),
            State::Standby { holder } => Some(holder),
            State::Releasing { holder, .. } => holder.as_ref(),
            State::Waiting | State::Withdrawing { .. } | State::Gone(_) => None,
        }
    }
}

/// An announcer, and what follows from it.
pub struct Known {
    pub announcer: Announcer,
    pub action: Action,
    /// The action, where it is one that changes etcd.
    pub request: Option<Request>,
    pub session: Lease,
    /// It keeps its lease alive, or is about to.
    pub keeps: bool,
    /// What it remembers.
    pub leases: Set,
    pub revisions: Set,
}

impl Known {
    pub fn new(announcer: Announcer) -> Self {
        let action = announcer.machine.action();
        let number = |lease| lease_number(Some(lease));
        let request = match &action {
            Action::Grant(lease) => Some(Request::Grant(number(*lease))),
            Action::Put(lease, seen) => {
                let revision = u8::try_from(seen.mod_revision).expect("a small number");
                Some(Request::Put(number(*lease), revision, lease_number(seen.lease)))
            }
            Action::Revoke(lease) => Some(Request::Revoke(number(*lease))),
            _ => None,
        };
        let (session, sight) = (announcer.session(), announcer.sight());
        let holder = lease_number(sight.and_then(|sight| sight.lease));
        Self {
            request,
            session,
            keeps: matches!(announcer.machine.state(), State::Claiming(_) | State::Announced { .. }),
            leases: 1 << session | 1 << holder,
            revisions: sight.map_or(0, |sight| 1 << sight.mod_revision),
            action,
            announcer,
        }
    }
}
