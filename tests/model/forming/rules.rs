//! What must always hold. Each rule is a sentence that says how it was broken.

use super::{
    changes::Model,
    protocol::Does,
    world::{Epoch, Etcd, Host, World},
};

impl Model {
    /// What no host may do that has just asked.
    pub fn broken_by_asking(&self, world: &World, host: &Host, does: &Does) -> Option<&'static str> {
        let of_this_host = host.note.filter(|note| !note.is_foreign);
        let (gives, epoch) = match does {
            Does::Starts { given, .. } => (*given != 0, world.stored.list_epoch),
            Does::Freezes { epoch, .. } => {
                if world.listed & 1 << epoch != 0 {
                    return Some("two lists are frozen in one epoch");
                }
                if world.formed & 1 << epoch != 0 {
                    return Some("a list is frozen in an epoch whose cluster has formed");
                }
                (false, *epoch)
            }
            Does::Registers => (false, world.stored.epoch),
            Does::Waits => return None,
        };
        let note = of_this_host?;
        if gives && note.epoch >= world.latest {
            return Some("a list is handed out while a note holds, and no reset came since");
        }
        let is_void = gives || !matches!(does, Does::Starts { .. });
        (is_void && epoch.max(world.stored.epoch) <= note.epoch)
            .then_some("a note is void in no greater epoch")
    }

    /// Whether a list that is frozen now may elect a second cluster whatever the protocol does: all that know of the first one,
    /// or of the list before, have been silent for longer than the hold.
    pub fn may_be_second(&self, world: &World) -> bool {
        let is_heard = |host: &Host| host.runs && !host.is_silent && self.protocol.note(host).is_some();
        let elects_unheard = |host: &Host| host.runs && host.is_silent && host.data == 0 && host.given != 0;
        world.clusters_since != 0 && !world.each().any(is_heard) || world.each().any(elects_unheard)
    }

    /// What no election may be.
    pub fn broken_by_election(world: &World) -> Option<&'static str> {
        let is_second = world.clusters_since != 0 && !world.is_excused;
        is_second.then_some("two clusters are elected without a reset between them")
    }

    /// No host may say so now that its cluster has formed.
    pub fn broken_by_mark(world: &World, host: &Host) -> Option<&'static str> {
        let is_reset_stored = world.stored.epoch >= world.first_epoch;
        let is_known = host.started.is_some_and(|begun| begun.epoch.is_some())
            || host.note.is_some_and(|note| !note.is_foreign && note.epoch != 0);
        let is_older = host.after_resets < world.resets && is_reset_stored && is_known;
        is_older.then_some("a node that was started before the reset says that the cluster has formed")
    }

    /// What no reset may be.
    pub fn broken_by_reset(world: &World, epoch: Epoch) -> Option<&'static str> {
        let holds = |host: &Host| host.note.is_some_and(|note| note.epoch >= epoch);
        world.each().any(holds).then_some("a note holds after a reset")
    }

    /// Its node has long been in the one cluster since the last reset, and everything could be seen and written. A host that was
    /// started with an old note while etcd was away is noted anew at its next start only: what its node joined cannot be seen.
    fn is_badly_noted(&self, world: &World, host: &Host) -> bool {
        let is_in_the_one = world.clusters_since == 1 && host.data == world.clusters && !world.is_excused;
        let is_seen = world.has_master(host.data) && !host.is_hidden && !host.is_read_only;
        let holds = self.protocol.note(host).is_some_and(|note| note.epoch != 0 || world.stored.epoch == 0);
        is_in_the_one && is_seen && host.after_resets == world.resets && !holds
    }

    /// What no world may be like in which nothing happens any more.
    pub fn settles_badly(&self, world: &World) -> Option<&'static str> {
        let waits = |host: &&Host| !host.runs;
        if world.etcd == Etcd::Gone {
            let is_known = |host: &Host| host.has_run || host.note.is_some_and(|note| !note.is_foreign);
            let stuck = world.each().filter(waits).any(is_known);
            return stuck.then_some("a host with a note or with data waits for etcd for ever");
        }
        if world.each().filter(waits).count() >= world.expect.into() {
            return Some("enough hosts wait for ever");
        }
        if world.is_owed {
            return Some("nobody elects after a reset");
        }
        if world.etcd == Etcd::Up && world.each().any(|host| self.is_badly_noted(world, host)) {
            return Some("a node is in the cluster, and its host has no note that holds");
        }
        let is_formed = |host: &Host| host.data == 1 && (host.is_hidden || world.stored.is_formed);
        if !world.is_disturbed && !world.each().all(is_formed) {
            return Some("hosts form no cluster although nothing went wrong");
        }
        None
    }
}
