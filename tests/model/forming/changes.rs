//! What can happen in a world: by itself, and as a fault.

use crate_discovery::bootstrap::Sighting;

use super::{
    protocol::{Does, Mutation, Protocol},
    world::{Begun, Etcd, Host, World},
};
use crate::search;

pub type Change = search::Change<World>;

/// The hosts, the protocol that they follow, and where all begins.
pub struct Model {
    pub protocol: Protocol,
    pub beginnings: Vec<World>,
}

impl Model {
    pub fn new(mutation: Mutation, beginnings: &[World]) -> Self {
        Self { protocol: Protocol::new(mutation), beginnings: beginnings.to_vec() }
    }

    /// What may happen although nothing goes wrong.
    pub fn what_follows(&self, world: &World) -> Vec<Change> {
        let mut changes = Vec::new();
        for place in world.places() {
            let host = &world.hosts[place];
            if !host.runs {
                self.bootstrap(world, place, &mut changes);
                continue;
            }
            Self::run_node(world, place, &mut changes);
            if world.etcd == Etcd::Up && !host.is_silent && !host.is_announced {
                let mut after = *world;
                after.hosts[place].is_announced = true;
                changes.push(change("a sidekick announces", after, None));
            }
            changes.extend(self.note_and_mark(world, place));
            if host.is_silent {
                let mut after = *world;
                after.hosts[place].is_silent = false;
                changes.push(change("a sidekick reaches etcd again", after, None));
            }
        }
        if world.etcd == Etcd::Away {
            changes.push(change("etcd is back", World { etcd: Etcd::Up, ..*world }, None));
        }
        changes
    }

    /// The hold: whoever can announce has announced.
    fn has_settled(&self, world: &World) -> bool {
        let is_back = |host: &Host| !host.runs || host.is_silent || host.is_announced;
        self.protocol.mutation == Mutation::DoesNotHold || world.each().all(is_back)
    }

    fn bootstrap(&self, world: &World, place: usize, changes: &mut Vec<Change>) {
        let host = &world.hosts[place];
        let does = match world.etcd {
            Etcd::Up => self.protocol.ask(world, place, self.has_settled(world)),
            Etcd::Away | Etcd::Gone => self.protocol.without_etcd(host),
        };
        let broken = self.broken_by_asking(world, host, &does);
        let mut after = *world;
        let what = match does {
            Does::Waits => return,
            Does::Registers => {
                let taken = world.each().map(|host| host.seat).max();
                after.hosts[place].seat = taken.unwrap_or(0) + 1;
                "a candidate registers"
            }
            Does::Freezes { list, epoch, begins_epoch } => {
                after.stored.list = list;
                after.stored.list_epoch = epoch;
                if begins_epoch {
                    after.stored.epoch = epoch;
                    after.latest = after.latest.max(epoch);
                }
                after.listed |= 1 << epoch;
                after.is_excused |= self.may_be_second(world);
                "a list is frozen"
            }
            Does::Starts { given, epoch } => {
                after.leave(place);
                let host = &mut after.hosts[place];
                if !host.is_read_only {
                    host.started = Some(Begun { epoch, elects: given != 0 });
                }
                (host.runs, host.has_run, host.given) = (true, true, given);
                host.after_resets = world.resets;
                if given != 0 { "a node starts with the list" } else { "a node starts without a list" }
            }
        };
        changes.push(change(what, after, broken));
    }

    /// What CrateDB does (`docs/cratedb.md`, "The first election").
    fn run_node(world: &World, place: usize, changes: &mut Vec<Change>) {
        let host = &world.hosts[place];
        if host.data != 0 {
            return;
        }
        for cluster in (1..=world.clusters).filter(|cluster| world.has_master(*cluster)) {
            let mut after = *world;
            after.hosts[place].data = cluster;
            changes.push(change("a node joins", after, None));
        }
        // It elects if it is in its list and sees more than half of it.
        let electors = host.given & world.fresh();
        if electors & 1 << place != 0 && electors.count_ones() as usize >= world.majority() {
            let mut after = *world;
            after.clusters += 1;
            after.clusters_since += 1;
            after.is_owed = false;
            for elector in world.places().filter(|elector| electors & 1 << elector != 0) {
                after.hosts[elector].data = after.clusters;
            }
            changes.push(change("a node elects", after, Self::broken_by_election(world)));
        }
    }

    /// A sidekick writes what it sees on its own disk, and then to etcd.
    fn note_and_mark(&self, world: &World, place: usize) -> Option<Change> {
        let host = &world.hosts[place];
        let seen = match (host.is_hidden, world.has_master(host.data)) {
            (true, _) => Sighting::Hidden,
            (false, true) => Sighting::HasMaster,
            (false, false) => Sighting::Nothing,
        };
        let reaches_etcd = world.etcd == Etcd::Up && !host.is_silent;
        let noted = self.protocol.to_note(host, seen, reaches_etcd.then_some(world.stored.epoch));
        let mut after = *world;
        if let Some(noted) = noted {
            if host.is_read_only {
                after.hosts[place].forgets = true;
            } else {
                after.hosts[place].note = Some(noted);
            }
        }
        let (mut what, mut broken) = ("a sidekick notes", None);
        let known = noted.or(self.protocol.note(host)).filter(|note| note.has_master && reaches_etcd);
        if let Some(note) = known
            && let Some(with_epoch) = self.protocol.to_mark(world, host, note.epoch)
        {
            what = "a sidekick notes, and says that the cluster has formed";
            broken = Self::broken_by_mark(world, host);
            (after.stored.is_formed, after.is_told) = (true, true);
            if with_epoch {
                after.stored.epoch = note.epoch;
            }
            after.formed |= 1 << after.stored.epoch;
        }
        (after != *world).then(|| change(what, after, broken))
    }
}

pub fn change(what: &'static str, after: World, broken: Option<&'static str>) -> Change {
    Change { what, after: after.sorted(), broken }
}
