//! What can happen in a world: by itself, and as a fault.

use crate_discovery::{
    announcer::state::{Action, Event, State},
    lease::{LeaseId, Sight},
};

use super::{
    announcer::{Announcer, Known},
    etcd::{Key, Lease, Request, Set, THIRD_PARTY, World, has, lease_number, leases_of, members, smallest},
    quick::QuickMap,
};

pub const NAMES: [&str; 2] = ["A", "B"];

/// To whom something happens, what, and the world after it.
pub struct Change {
    pub who: &'static str,
    pub what: &'static str,
    pub after: World,
}

/// All announcers that were met. The rules that a change alone can break are checked on the way.
#[derive(Default)]
pub struct Model {
    pub known: Vec<Known>,
    numbers: QuickMap<Announcer, u32>,
    /// What one of the changes just made breaks.
    pub broken: Option<&'static str>,
    /// Late grants of leases that their process was done with.
    pub strays: u64,
}

impl Model {
    pub fn know(&mut self, announcer: Announcer) -> u32 {
        if let Some(number) = self.numbers.get(&announcer) {
            return *number;
        }
        let number = u32::try_from(self.known.len()).expect("not that many");
        self.known.push(Known::new(announcer.clone()));
        self.numbers.insert(announcer, number);
        number
    }

    pub fn process(&self, world: &World, who: usize) -> Option<&Known> {
        world.announcers[who].map(|number| &self.known[number as usize])
    }

    pub fn running<'a>(&'a self, world: &'a World) -> impl Iterator<Item = &'a Known> {
        (0..2).filter_map(|who| self.process(world, who))
    }

    pub fn is_kept(&self, world: &World, lease: Lease) -> bool {
        self.running(world).any(|known| known.keeps && known.session == lease)
    }

    /// The leases and revisions that anything remembers.
    fn remembered(&self, world: &World) -> (Set, Set) {
        let (mut leases, mut revisions) = (1 | 1 << world.key.lease, 1 | 1 << world.key.revision);
        for known in self.running(world) {
            leases |= known.leases;
            revisions |= known.revisions;
        }
        for request in &world.late {
            let Some(request) = request else { continue };
            let (Request::Grant(lease) | Request::Put(lease, ..) | Request::Revoke(lease)) = request;
            leases |= 1 << lease;
            if let Request::Put(_, revision, holder) = request {
                leases |= 1 << holder;
                revisions |= 1 << revision;
            }
        }
        (leases, revisions)
    }

    fn fresh_lease(&self, world: &World, of: usize) -> Lease {
        let (used, _) = self.remembered(world);
        smallest(leases_of(of) & !used).expect("eight are enough")
    }

    /// Forgets what nothing remembers: a lease without a key that nobody will mention again may as
    /// well have expired.
    fn change(&self, who: &'static str, what: &'static str, mut after: World) -> Change {
        let (leases, revisions) = self.remembered(&after);
        after.living &= leases;
        after.put_under &= leases;
        after.done_with &= leases;
        after.before_loss &= revisions;
        Change { who, what, after }
    }

    /// The worlds after a write: under a fresh revision, or one from before the loss.
    fn write(&self, world: &World, lease: Lease, ours: bool) -> Vec<World> {
        let (_, used) = self.remembered(world);
        let fresh = smallest(!used).expect("31 are enough");
        let given = members(world.before_loss | 1 << fresh);
        let write = |revision| World {
            key: Key { revision, lease, ours },
            before_loss: world.before_loss & !(1 << revision),
            put_under: world.put_under | 1 << lease,
            ..*world
        };
        given.map(write).collect()
    }

    /// What etcd makes of a request, and answers.
    fn serve(&self, world: &World, request: Request) -> Vec<(World, Event)> {
        let mut after = *world;
        let event = match request {
            // "Already exists", which is no answer that anybody expects.
            Request::Grant(lease) if has(world.living, lease) => Event::Unanswered,
            Request::Grant(lease) => {
                after.living |= 1 << lease;
                Event::Granted
            }
            Request::Put(_, seen, holder) if (seen, holder) != (world.key.revision, world.key.lease) => {
                Event::Changed
            }
            Request::Put(lease, ..) if !has(world.living, lease) => Event::LeaseGone,
            Request::Put(lease, ..) => {
                let written = self.write(world, lease, true);
                return written.into_iter().map(|after| (after, Event::Put(after.key.sight()))).collect();
            }
            Request::Revoke(lease) => {
                after.end(lease);
                Event::Revoked { existed: has(world.living, lease) }
            }
        };
        vec![(after, event)]
    }

    /// Lets a process know.
    fn tell(&mut self, world: World, who: usize, what: &'static str, event: &Event) -> Change {
        let (mut after, before) = (world, self.process(&world, who).expect("it runs"));
        let mut announcer = before.announcer.clone();
        announcer.on(event, self.fresh_lease(&world, who));
        let session = before.session;
        self.broken = self.broken_by(&world, before, &announcer).or(self.broken);
        if session != 0 && !announcer.names(session) {
            after.done_with |= 1 << session;
        }
        let gone = matches!(announcer.machine.state(), State::Gone(_));
        after.announcers[who] = (!gone).then(|| self.know(announcer));
        self.change(NAMES[who], what, after)
    }

    /// What may happen although nothing goes wrong.
    pub fn steps(&mut self, world: &World) -> Vec<Change> {
        let mut changes = Vec::new();
        for who in 0..2 {
            let Some(known) = self.process(world, who) else { continue };
            let (stopping, request) = (known.announcer.stopping, known.request);
            for event in hears(world, &known.action) {
                changes.push(self.tell(*world, who, "does and hears", &event));
            }
            for (after, event) in request.map_or_else(Vec::new, |request| self.serve(world, request)) {
                self.broken = self.broken_by_put(world, who, &event).or(self.broken);
                changes.push(self.tell(after, who, "asks and is answered", &event));
            }
            if stopping {
                changes.push(self.tell(*world, who, "has no time left", &Event::TimeUp));
            }
        }
        for request in world.late.into_iter().flatten() {
            match request {
                Request::Grant(lease) => self.strays += u64::from(has(world.done_with, lease)),
                Request::Revoke(lease) if self.is_kept(world, lease) => {
                    self.broken = Some("a late revoke ends a lease that is in use");
                }
                _ => {}
            }
            for (after, _) in self.serve(&world.without_late(request), request) {
                changes.push(self.change("etcd", "acts on a late request", after));
            }
        }
        self.end_leases(world, false, "ends a lease that nobody keeps alive", &mut changes);
        changes
    }

    /// What may go wrong, or be done to the processes and to etcd.
    pub fn faults(&mut self, world: &World) -> Vec<Change> {
        let mut changes = Vec::new();
        for (who, name) in NAMES.into_iter().enumerate() {
            match self.process(world, who) {
                Some(known) => {
                    let (announcer, request) = (known.announcer.clone(), known.request);
                    if let Some(request) = request {
                        self.fail(world, who, request, &mut changes);
                    }
                    let gate = if announcer.gate_open { Event::GateClosed } else { Event::GateOpened };
                    self.interrupt(world, who, "has its gate moved", &gate, &mut changes);
                    if announcer.stopping {
                        self.interrupt(world, who, "has no time left", &Event::TimeUp, &mut changes);
                    } else {
                        self.interrupt(world, who, "is stopped", &Event::Shutdown, &mut changes);
                    }
                    let mut after = *world;
                    after.announcers[who] = None;
                    changes.push(self.change(name, "is killed", after));
                    after.announcers[who] = Some(self.know(Announcer::new(announcer.gate_open)));
                    changes.push(self.change(name, "is killed and started again", after));
                }
                None => {
                    let mut after = *world;
                    after.announcers[who] = Some(self.know(Announcer::new(true)));
                    changes.push(self.change(name, "is started again", after));
                }
            }
        }

        self.end_leases(world, true, "ends a lease that is kept alive", &mut changes);
        let (_, given) = self.remembered(world);
        let lost = World { key: Key::default(), living: 0, before_loss: given & !1, ..*world };
        changes.push(self.change("etcd", "loses its data", lost));

        let mut by_hand = |what, worlds: Vec<World>| {
            changes.extend(worlds.into_iter().map(|after| self.change("somebody", what, after)));
        };
        by_hand("deletes the key", vec![World { key: Key::default(), ..*world }]);
        by_hand("overwrites the key, without a lease", self.write(world, 0, false));
        let lease = self.fresh_lease(world, THIRD_PARTY);
        let leased = World { living: world.living | 1 << lease, ..*world };
        by_hand("overwrites the key, under a lease of theirs", self.write(&leased, lease, false));
        if world.key.lease != 0 {
            by_hand("overwrites the value alone", self.write(world, world.key.lease, false));
        }
        changes
    }

    /// A request, or its answer, does not arrive, or not in time.
    fn fail(&mut self, world: &World, who: usize, request: Request, changes: &mut Vec<Change>) {
        for (after, _) in self.serve(world, request) {
            changes.push(self.tell(after, who, "asks, and the answer is lost", &Event::Unanswered));
        }
        changes.push(self.tell(*world, who, "asks, and the request is lost", &Event::Unanswered));
        changes.push(self.tell(*world, who, "asks, and is refused", &Event::Refused));
        if let Some(late) = world.with_late(request) {
            changes.push(self.tell(late, who, "asks, and the request is late", &Event::Unanswered));
        }
    }

    /// Something comes in between. If what was asked is not asked for any more, it may arrive late.
    fn interrupt(
        &mut self,
        world: &World,
        who: usize,
        what: &'static str,
        event: &Event,
        changes: &mut Vec<Change>,
    ) {
        let asked = self.process(world, who).and_then(|known| known.request);
        let change = self.tell(*world, who, what, event);
        let asks = self.process(&change.after, who).and_then(|known| known.request);
        if let Some(late) = asked.filter(|_| asked != asks).and_then(|request| world.with_late(request)) {
            changes.push(self.tell(late, who, what, event));
        }
        changes.push(change);
    }

    fn end_leases(&self, world: &World, kept: bool, what: &'static str, changes: &mut Vec<Change>) {
        for lease in members(world.living).filter(|lease| self.is_kept(world, *lease) == kept) {
            let mut after = *world;
            after.end(lease);
            changes.push(self.change("etcd", what, after));
        }
    }
}

/// What somebody may hear who only looks or waits.
fn hears(world: &World, action: &Action) -> Vec<Event> {
    let reads = |lease: Option<LeaseId>, known: Option<&Sight>| {
        let sight = world.key.sight();
        let seen = (known != Some(&sight)).then_some(Event::Seen(sight));
        // Lease and key are asked for side by side: either may be what is noticed first. (And etcd
        // before 3.4.38, 3.5.23 and 3.6.5 may report that it renewed a lease which is revoked.)
        let lost = lease.is_some() && !has(world.living, lease_number(lease));
        seen.into_iter().chain(lost.then_some(Event::LeaseGone)).collect()
    };
    match action {
        Action::Pause => vec![Event::Paused],
        Action::Look(lease) => reads(*lease, None),
        Action::Hold(lease, known) => reads(Some(*lease), Some(known)),
        Action::Follow(known) => reads(None, Some(known)),
        Action::Idle | Action::Grant(_) | Action::Put(..) | Action::Revoke(_) | Action::Finish(_) => {
            Vec::new()
        }
    }
}
