//! What may go wrong in a world, or be done to it from outside.

use std::time::{Duration, UNIX_EPOCH};

use crate_discovery::bootstrap::{self, Condition};

use super::{
    changes::{Change, Model},
    world::{Process, Request, World},
};

impl Model {
    /// What may go wrong, or be done to the processes and to etcd.
    pub fn what_may_go_wrong(&self, world: &World) -> Vec<Change> {
        let mut changes = Vec::new();
        for who in 0..world.processes.len() {
            let mut with = |what, process: Process, world: &World, broken| {
                let mut after = *world;
                after.processes[who] = process;
                changes.push(self.change(what, after, broken));
            };
            match world.processes[who] {
                Process::Ended | Process::Done => {
                    with("it is started again", Process::Looking { session: 0, granted: false }, world, None);
                }
                Process::Looking { .. } => with("it is killed", Process::Ended, world, None),
                Process::Asking { session, granted, .. } => {
                    let again = Process::Looking { session, granted };
                    let request = self.request(world, who);
                    for (served, _, broken) in self.serve(world, request) {
                        with("it asks, and the answer is lost", again, &served, broken);
                    }
                    with("it asks, and the request is lost", again, world, None);
                    if let Some(late) = world.with_late(request) {
                        with("it asks, and the request is late", again, &late, None);
                        with("it asks, and is killed", Process::Ended, &late, None);
                    }
                    with("it is killed", Process::Ended, world, None);
                }
            }
        }
        self.end_leases(world, world.kept() & world.living, "a lease ends that is kept alive", &mut changes);
        let after = World { announced: !world.announced, ..*world };
        changes.push(self.change("somebody is announced, or no longer", after, None));
        let written =
            |condition: &Condition| matches!(condition, Condition::Formed(_) | Condition::Epoch(..));
        let formed = if world.formed == 0 { self.next_revisions(world, written) } else { Vec::new() };
        for revision in formed {
            // Its host remembers the epoch that a store has lost.
            let epoch = world.epoch.or(Some((revision, self.clock(world))));
            let before_loss = world.before_loss & !(1 << revision);
            let after = World { formed: revision, epoch, before_loss, ..*world };
            changes.push(self.change("a sidekick says that the cluster has formed", after, None));
        }
        let view = self.view(world);
        let now = UNIX_EPOCH + Duration::from_millis(self.clock(world).into());
        let (asked, conditions) = bootstrap::reset(&view, view.epoch().unwrap_or_default().next(now));
        let reset = world.with_late(Request::Change(0, 0, self.wish(&asked, &conditions)));
        if let Some(after) = reset.filter(|_| !world.announced) {
            changes.push(self.change("somebody asks for a reset", after, None));
        }
        let lost = World {
            candidates: [None; 3],
            epoch: None,
            list: None,
            formed: 0,
            living: 0,
            handed: None,
            before_loss: self.remembered(world),
            ..*world
        };
        changes.push(self.change("etcd loses its data", lost, None));
        changes
    }
}
