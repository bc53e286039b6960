//! What must always hold. Each rule is a sentence that says how it was broken.

use crate_discovery::announcer::state::{Action, Ending, Event, State};

use super::{
    announcer::{Announcer, Known},
    changes::Model,
    etcd::{Lease, Request, World, has, lease_number, owner},
};

impl Announcer {
    /// Whether the lease is its own, or the one that it ended without being sure of.
    pub fn names(&self, lease: Lease) -> bool {
        match self.machine.state() {
            State::Gone(Ending::Unconfirmed(named)) => lease_number(Some(*named)) == lease,
            _ => self.session() == lease,
        }
    }
}

impl Model {
    /// What no process may come to, told something in this world.
    pub fn broken_by(&self, world: &World, before: &Known, after: &Announcer) -> Option<&'static str> {
        let lease = before.session;
        if lease != 0 && !after.names(lease) {
            if has(world.living, lease) {
                return Some("a lease is forgotten, and lives");
            }
            if *after.machine.state() == State::Gone(Ending::Clean)
                && world.late.contains(&Some(Request::Grant(lease)))
            {
                return Some("a clean end, and a grant of the last lease is on its way");
            }
        }
        let action = after.machine.action();
        let begins = action != before.action && matches!(action, Action::Grant(_) | Action::Put(..));
        (begins && before.announcer.stopping).then_some("a grant or a put is begun after shutdown")
    }

    /// What no put may do that etcd has just acted on.
    pub fn broken_by_put(&self, world: &World, who: usize, event: &Event) -> Option<&'static str> {
        let known = self.process(world, who)?;
        let from_another = world.key.lease != 0 && world.key.lease != known.session;
        (matches!(event, Event::Put(_)) && known.announcer.veteran && from_another)
            .then_some("takes the key from its holder, and not for the first time")
    }

    /// What no world may be like.
    pub fn broken_in(&self, world: &World) -> Option<&'static str> {
        if has(world.done_with, world.key.lease) {
            return Some("the key is under a lease that its process is done with");
        }
        let (held, sight) = (world.key.lease, world.key.sight());
        // Those to whom nothing is to be told: the others are about to learn better.
        let staying = |known: &&Known| known.announcer.announced() && known.announcer.sight() == Some(&sight);
        if self.running(world).filter(staying).count() > 1 {
            return Some("two stay announced");
        }
        for (who, known) in (0..2).filter_map(|who| Some((who, self.process(world, who)?))) {
            if known.announcer.announced() && !has(world.put_under, known.session) {
                return Some("announced, and never put");
            }
            if staying(&known) && known.session != held {
                return Some("stays announced, and another holds the key");
            }
            if matches!(known.request, Some(Request::Revoke(lease)) if owner(lease) != who) {
                return Some("revokes another's lease");
            }
        }
        None
    }

    /// What no world may be like in which nothing happens any more.
    pub fn settled_badly(&self, world: &World) -> Option<&'static str> {
        let healthy = |known: &&Known| known.announcer.gate_open && !known.announcer.stopping;
        let holding = |known: &&Known| known.announcer.announced() && known.session == world.key.lease;
        let (wanted, there) = (
            self.running(world).filter(healthy).count().min(1),
            self.running(world).filter(healthy).filter(holding).count(),
        );
        if there < wanted {
            return Some("somebody is healthy, and nobody healthy holds the key");
        }
        let announced = self.running(world).filter(|known| known.announcer.announced()).count();
        if announced > wanted || (wanted == 0 && world.key.lease != 0) {
            return Some("somebody is announced who should not be");
        }
        None
    }
}
