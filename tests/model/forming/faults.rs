//! What may go wrong with a host or with etcd, or be done from outside.

use super::{
    changes::{Change, Model, change},
    world::{Etcd, Host, Stored, World},
};

impl Model {
    /// Everything that may go wrong once.
    pub fn what_may_go_wrong(&self, world: &World) -> Vec<Change> {
        let of_hosts = world.places().flat_map(|place| self.harm_host(world, place));
        let worlds = of_hosts.chain(Self::harm_etcd(world));
        // Whatever goes wrong, nobody is owed anything any more.
        let harm = worlds
            .map(|(what, after)| change(what, World { is_owed: false, is_disturbed: true, ..after }, None));
        harm.chain(self.reset(world)).collect()
    }

    fn harm_host(&self, world: &World, place: usize) -> Vec<(&'static str, World)> {
        let host = world.hosts[place];
        let with = |world: World, does: &dyn Fn(&mut Host)| {
            let mut after = world;
            does(&mut after.hosts[place]);
            after
        };
        let wipe = |host: &mut Host| (host.data, host.has_run) = (0, false);
        let forget = |host: &mut Host| (host.note, host.started, host.forgets) = (None, None, true);
        let mut killed = *world;
        killed.leave(place);
        let killed = with(killed, &|host| (host.runs, host.given, host.is_announced) = (false, 0, false));
        let mut harm = Vec::new();
        if host.runs || host.seat != 0 {
            harm.push(("a node is killed, or its candidate", killed));
        }
        if host.has_run {
            let is_early = host.data != 0 && self.can_somebody_elect(world);
            let killed = World { is_excused: world.is_excused || is_early, ..killed };
            harm.push(("a node is killed, and its data wiped", with(killed, &|host| wipe(host))));
            let killed = World { is_excused: killed.is_excused || !world.is_told, ..killed };
            let both = |host: &mut Host| {
                wipe(host);
                forget(host);
            };
            harm.push(("a node is killed, and all of its host wiped", with(killed, &both)));
        }
        if host.note.is_some() || host.started.is_some() {
            let after = World { is_excused: world.is_excused || !world.is_told, ..*world };
            harm.push(("a state directory is lost", with(after, &|host| forget(host))));
        }
        if !host.is_read_only {
            let what = "a state directory cannot be written any more";
            harm.push((what, with(*world, &|host| host.is_read_only = true)));
        }
        if host.runs && !host.is_silent {
            let silence = |host: &mut Host| (host.is_silent, host.is_announced) = (true, false);
            harm.push(("a sidekick is silent", with(*world, &silence)));
        }
        harm
    }

    /// Some host was given the list and has not used it, or can be given it still, although there is a cluster: none of the
    /// protocol's means reach so far, and a node of that cluster must not be wiped in these seconds.
    fn can_somebody_elect(&self, world: &World) -> bool {
        let may_be_given = |place: usize| {
            let note = self.protocol.note(&world.hosts[place]);
            !world.is_told
                && world.stored.list & 1 << place != 0
                && note.is_none_or(|note| note.epoch < world.stored.epoch)
        };
        let has_been_given = |host: &Host| host.runs && host.data == 0 && host.given != 0;
        world.places().any(may_be_given) || world.each().any(has_been_given)
    }

    fn harm_etcd(world: &World) -> Vec<(&'static str, World)> {
        if world.etcd != Etcd::Up {
            return Vec::new();
        }
        let mut lost = *world;
        lost.lose_leases();
        let mut harm = vec![
            ("etcd is away", World { etcd: Etcd::Away, ..*world }),
            ("etcd is gone for good", World { etcd: Etcd::Gone, ..*world }),
            ("etcd loses its data", World { stored: Stored::default(), ..lost }),
        ];
        if let Some(stored) = world.backup {
            let is_told = stored.list == 0 || stored.is_formed;
            let is_excused = world.is_excused || !is_told && world.each().any(|host| host.forgets);
            let after = World { stored, is_told: world.is_told && is_told, is_excused, ..lost };
            harm.push(("etcd is restored from the backup", after));
        }
        harm
    }

    /// What an operator does. A reset is refused while anybody is announced.
    pub fn reset(&self, world: &World) -> Option<Change> {
        if world.etcd != Etcd::Up || world.is_anybody_announced() {
            return None;
        }
        let epoch = self.protocol.reset(world);
        let mut after = *world;
        for host in &mut after.hosts {
            host.seat = 0;
        }
        after.stored = Stored { epoch, ..Stored::default() };
        (after.latest, after.first_epoch) = (after.latest.max(epoch), epoch);
        (after.resets, after.clusters_since) = (world.resets + 1, 0);
        (after.is_excused, after.is_told, after.is_disturbed) = (false, false, true);
        after.is_owed = world.each().all(|host| !host.runs && host.data == 0);
        Some(change("somebody resets", after, Self::broken_by_reset(world, epoch)))
    }
}
