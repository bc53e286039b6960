//! Tests of the machine alone: the cases of `docs/design.md`, "Announcer", and random walks that check what must always
//! hold.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::lease::Content;

fn lease(number: i64) -> LeaseId {
    LeaseId::from_etcd(number).unwrap()
}

fn absent() -> Sight {
    Sight { mod_revision: 0, lease: None, content: Content::Absent }
}

fn held(by: i64) -> Sight {
    Sight { mod_revision: 9, lease: Some(lease(by)), content: Content::Other("theirs".to_owned()) }
}

fn ours(number: i64) -> Sight {
    Sight { mod_revision: 8, lease: Some(lease(number)), content: Content::Ours }
}

/// The machine after these events. Each event is offered the next lease id: 1, 2, 3, …
fn after(machine: &Machine, events: impl IntoIterator<Item = Event>) -> Machine {
    let mut machine = machine.clone();
    for (number, event) in (1..).zip(events) {
        machine.on(event, lease(number));
    }
    machine
}

fn announced_under_1() -> Machine {
    let machine = after(&Machine::new(true), [Event::Seen(absent()), Event::Granted, Event::Put(ours(1))]);
    assert_eq!(machine.action(), Action::Hold(lease(1), ours(1)));
    machine
}

#[test]
fn a_claim_reads_grants_and_puts() {
    let machine = Machine::new(true);
    assert_eq!(machine.action(), Action::Look(None));
    let machine = after(&machine, [Event::Seen(absent())]);
    assert_eq!(machine.action(), Action::Grant(lease(1)));
    let machine = after(&machine, [Event::Granted]);
    assert_eq!(machine.action(), Action::Put(lease(1), absent()));
    announced_under_1();
}

#[test]
fn a_closed_gate_asks_for_nothing() {
    let machine = Machine::new(false);
    assert_eq!(machine.action(), Action::Idle);
    assert_eq!(after(&machine, [Event::Shutdown]).action(), Action::Finish(Ending::Clean));
    assert_eq!(after(&machine, [Event::GateOpened]).action(), Action::Look(None));
}

#[test]
fn only_the_first_claim_takes_over() {
    let machine = after(&Machine::new(true), [Event::Seen(held(77)), Event::Granted]);
    assert_eq!(machine.action(), Action::Put(lease(1), held(77)));
    let machine = after(&machine, [Event::Put(ours(1)), Event::Seen(held(78))]);
    assert_eq!(machine.action(), Action::Revoke(lease(1)));
    let machine = after(&machine, [Event::Revoked { existed: true }]);
    assert_eq!(machine.action(), Action::Follow(held(78)));
    let machine = after(&machine, [Event::Seen(absent()), Event::Paused, Event::Seen(held(79))]);
    assert_eq!(machine.action(), Action::Follow(held(79)));
}

#[test]
fn a_lost_answer_is_settled_by_reading() {
    let machine = after(&Machine::new(true), [Event::Seen(absent()), Event::Granted]);
    let machine = after(&machine, [Event::Unanswered]);
    assert_eq!(machine.action(), Action::Look(Some(lease(1))));
    assert_eq!(after(&machine, [Event::Seen(ours(1))]).action(), Action::Hold(lease(1), ours(1)));
    assert_eq!(after(&machine, [Event::Seen(absent())]).action(), Action::Put(lease(1), absent()));
}

#[test]
fn a_lease_whose_grant_was_lost_is_revoked_and_never_used() {
    let machine = after(&Machine::new(true), [Event::Seen(absent()), Event::Unanswered]);
    assert_eq!(machine.action(), Action::Revoke(lease(1)));
    let settled = after(&machine, [Event::Revoked { existed: true }, Event::Seen(absent())]);
    assert_eq!(settled.action(), Action::Grant(lease(2)));
    let stopping = after(&machine, [Event::Shutdown]);
    let gone = after(&stopping, [Event::Revoked { existed: true }]);
    assert_eq!(gone.action(), Action::Finish(Ending::Clean));
    let unknown = after(&stopping, [Event::Revoked { existed: false }]);
    assert_eq!(unknown.action(), Action::Finish(Ending::Unconfirmed(lease(1))));
}

#[test]
fn a_lease_that_is_gone_is_never_used_again() {
    let machine = after(&announced_under_1(), [Event::LeaseGone, Event::Paused]);
    assert_eq!(machine.action(), Action::Look(None));
    let machine = after(&machine, [Event::Unanswered, Event::Seen(absent())]);
    assert_eq!(machine.action(), Action::Grant(lease(2)));
}

#[test]
fn a_deleted_key_is_put_back_under_the_living_lease() {
    let machine = after(&announced_under_1(), [Event::Seen(absent())]);
    assert_eq!(machine.action(), Action::Pause);
    let machine = after(&machine, [Event::Paused, Event::Seen(absent())]);
    assert_eq!(machine.action(), Action::Put(lease(1), absent()));
    // The disk of etcd is full: the put is refused, but the lease is kept alive.
    assert_eq!(after(&machine, [Event::Refused]).action(), Action::Look(Some(lease(1))));
}

#[test]
fn an_outage_changes_nothing() {
    let machine = announced_under_1();
    assert_eq!(after(&machine, [Event::Unanswered, Event::Refused, Event::Unanswered]), machine);
}

#[test]
fn a_gate_that_reopens_waits_for_the_old_lease_to_go() {
    let machine = after(&announced_under_1(), [Event::GateClosed, Event::GateOpened]);
    assert_eq!(machine.action(), Action::Revoke(lease(1)));
    let machine = after(&machine, [Event::Revoked { existed: true }, Event::Seen(absent())]);
    assert_eq!(machine.action(), Action::Grant(lease(2)));
}

#[test]
fn a_request_on_its_way_is_waited_for() {
    let machine = after(&Machine::new(true), [Event::Seen(absent()), Event::Shutdown]);
    assert_eq!(machine.action(), Action::Grant(lease(1)));
    assert_eq!(after(&machine, [Event::Granted]).action(), Action::Revoke(lease(1)));
    assert_eq!(after(&machine, [Event::Refused]).action(), Action::Finish(Ending::Clean));
    assert_eq!(after(&machine, [Event::TimeUp]).action(), Action::Finish(Ending::Unconfirmed(lease(1))));
    let closed = after(&Machine::new(true), [Event::Seen(absent()), Event::GateClosed, Event::GateOpened]);
    assert_eq!(after(&closed, [Event::Granted]).action(), Action::Put(lease(1), absent()));
}

/// An answer that etcd may give to an action, or an event that may follow it. `choice` selects it.
fn answer(action: &Action, choice: u8) -> Event {
    let any_sight = |known: Option<LeaseId>| match (choice / 16, known) {
        (0..=5, _) => absent(),
        (6..=9, Some(known)) => Sight { lease: Some(known), ..ours(1) },
        (10, Some(known)) => Sight { lease: Some(known), ..held(1) },
        (11, _) => Sight { lease: None, ..held(1) },
        _ => held(1_000_000),
    };
    match (action, choice % 16) {
        (Action::Idle | Action::Finish(_), _) => Event::GateOpened,
        (Action::Pause, _) => Event::Paused,
        (_, 0 | 1) => Event::Unanswered,
        (_, 2) => Event::Refused,
        (Action::Look(known), 3 | 4) if known.is_some() => Event::LeaseGone,
        (Action::Look(known), _) => Event::Seen(any_sight(*known)),
        (Action::Grant(_), _) => Event::Granted,
        (Action::Put(..), 3..=5) => Event::Changed,
        (Action::Put(..) | Action::Hold(..), 6 | 7) => Event::LeaseGone,
        (Action::Put(lease, _), _) => Event::Put(Sight { lease: Some(*lease), ..ours(1) }),
        (Action::Hold(lease, _), _) => Event::Seen(any_sight(Some(*lease))),
        (Action::Follow(_), _) => Event::Seen(any_sight(None)),
        (Action::Revoke(_), n) => Event::Revoked { existed: n % 2 == 0 },
    }
}

/// Watches the actions of a machine for what must never happen.
#[derive(Default)]
struct Judge {
    /// The lease that may exist because of us.
    live: Option<LeaseId>,
    granted: HashSet<LeaseId>,
    released: HashSet<LeaseId>,
    stopping: bool,
}

impl Judge {
    fn event(&mut self, action: &Action, event: &Event) {
        match (action, event) {
            (_, Event::LeaseGone | Event::Revoked { .. }) => self.live = None,
            (Action::Grant(_), Event::Refused) => self.live = None,
            _ => {}
        }
    }

    fn action(&mut self, before: &Action, now: &Action) {
        let uses = match now {
            Action::Look(lease) => *lease,
            Action::Grant(lease) | Action::Put(lease, _) | Action::Hold(lease, _) => Some(*lease),
            _ => None,
        };
        if let Some(uses) = uses {
            assert!(!self.released.contains(&uses), "{uses} is being released, and used: {now:?}");
            assert!(self.live.is_none_or(|live| live == uses), "two leases: {:?} and {uses}", self.live);
        }
        if let Action::Grant(lease) = now {
            self.granted.insert(*lease);
            self.live = Some(*lease);
        }
        if let Action::Revoke(lease) = now {
            assert!(self.granted.contains(lease), "{lease} is not ours");
            self.released.insert(*lease);
        }
        if self.stopping && matches!(now, Action::Grant(_) | Action::Put(..)) {
            assert_eq!(before, now, "begun after shutdown");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_must_always_hold_holds(walk in proptest::collection::vec((any::<u8>(), any::<u8>()), 1..200), open: bool) {
        let mut machine = Machine::new(open);
        let mut judge = Judge::default();
        for (number, (kind, choice)) in (1..).zip(walk) {
            let before = machine.action();
            let event = match kind {
                0..=2 => Event::Shutdown,
                3..=12 => Event::GateClosed,
                13..=30 => Event::GateOpened,
                _ => answer(&before, choice),
            };
            if matches!(before, Action::Idle | Action::Finish(_)) && kind > 30 {
                continue;
            }
            judge.stopping |= event == Event::Shutdown;
            machine.on(event.clone(), lease(number));
            judge.event(&before, &event);
            judge.action(&before, &machine.action());
        }

        // From every state, a shutdown and a few answers end the machine. So does the end of its time.
        machine.on(Event::Shutdown, lease(999));
        let mut answered = machine.clone();
        for number in 1000..1004 {
            let (before, event) = match answered.action() {
                Action::Finish(_) => break,
                action => (action.clone(), answer(&action, 15)),
            };
            answered.on(event, lease(number));
            prop_assert!(before == answered.action() || !matches!(answered.action(), Action::Grant(_) | Action::Put(..)));
        }
        prop_assert!(matches!(answered.action(), Action::Finish(_)), "{:?}", answered);
        machine.on(Event::TimeUp, lease(2000));
        prop_assert!(matches!(machine.action(), Action::Finish(_)), "{:?}", machine);
    }
}
