//! What can happen in a world by itself, and what etcd makes of a request.

use std::{fmt::Write as _, ops::Range, rc::Rc};

use crate_discovery::bootstrap::{
    self, Asker, BootId, Candidate, Change as Asked, Condition, Formed, List, MachineId, Registered, Said,
    Step, View,
};

use super::{
    numbers::{Numbered, Wish, epoch, epoch_number},
    world::{Key, Lease, Process, Request, Revision, WishNumber, World, lease_id},
};
use crate::search;

/// Who takes part: name, machine, boot and the number it expects. Three of them with names of their own, two machines with
/// one name, one that expects another number, and a clone: the same machine and name, and another boot.
pub const CASTS: [[(&str, u32, u32, u32); 3]; 4] = [
    [("a", 1, 1, 2), ("b", 2, 2, 2), ("c", 3, 3, 2)],
    [("a", 1, 1, 2), ("b", 2, 2, 2), ("a", 3, 3, 2)],
    [("a", 1, 1, 2), ("b", 2, 2, 2), ("c", 3, 3, 3)],
    [("a", 1, 1, 2), ("b", 2, 2, 2), ("a", 1, 3, 2)],
];

/// What etcd compares for one condition, in two parts where there are two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The mod revision, or that a range is empty.
    Revision,
    /// The lease of a candidate, or the number of an epoch.
    Content,
}

/// Whether etcd does not look at this part of this condition for this change.
pub type Ignored = fn(&Asked, &Condition, Part) -> bool;

/// What happens, the world after it, and the rule that it breaks.
pub type Change = search::Change<World>;

/// What etcd makes of a request: the world after it, whether it says that the lease is there, and the rule that is broken.
type Served = (World, bool, Option<&'static str>);

/// Who the casts are, and which conditions etcd does not look at.
pub struct Model {
    casts: Vec<Vec<Candidate>>,
    /// Which of the casts.
    pub takes_part: Range<usize>,
    pub lists: Numbered<List>,
    pub wishes: Numbered<Rc<Wish>>,
    ignored: Ignored,
}

impl Model {
    pub fn new(ignored: Ignored, takes_part: Range<usize>) -> Self {
        let digits = |number: &u32| format!("{number:032}");
        let candidate = |(name, on, boot, expect): &(&str, u32, u32, u32)| Candidate {
            name: name.parse().expect("a name"),
            said: Said {
                expect: *expect,
                machine: MachineId::derive(&digits(on)).expect("32 digits"),
                boot: BootId::derive(&digits(boot)),
                saw_etcd_fail: false,
            },
        };
        let casts = CASTS.iter().map(|cast| cast.iter().map(candidate).collect()).collect();
        Self { casts, takes_part, lists: Numbered::new(), wishes: Numbered::new(), ignored }
    }

    pub fn candidate(&self, world: &World, who: usize) -> &Candidate {
        &self.casts[usize::from(world.cast)][who]
    }

    /// What a process sees that looks now.
    pub fn view(&self, world: &World) -> View {
        let registered = |(order, key): (usize, &Key)| Registered {
            candidate: self.candidate(world, key.who.into()).clone(),
            create_revision: i64::try_from(order).expect("a small number"),
            mod_revision: key.revision.into(),
            lease: lease_id(key.lease),
        };
        let formed = Formed { by: String::new(), epoch: None };
        View {
            candidates: world.candidates.iter().flatten().enumerate().map(registered).collect(),
            epoch: world.epoch.map(|(revision, number)| (revision.into(), Ok(epoch(number)))),
            list: world.list.map(|(revision, list)| (revision.into(), Ok(self.list(list)))),
            formed: (world.formed != 0).then(|| (world.formed.into(), formed)),
            announced: world.announced.then(String::new),
        }
    }

    pub fn change(&self, what: &'static str, after: World, broken: Option<&'static str>) -> Change {
        Change { what, after: self.forget(after), broken }
    }

    /// What may happen although nothing goes wrong.
    pub fn what_follows(&self, world: &World) -> Vec<Change> {
        let mut changes = Vec::new();
        for who in 0..world.processes.len() {
            match &world.processes[who] {
                Process::Looking { .. } => changes.extend(self.look(world, who)),
                Process::Asking { .. } => {
                    for (mut after, understood, broken) in self.serve(world, self.request(world, who)) {
                        after.processes[who] = self.answered(world.processes[who], understood);
                        changes.push(self.change("it asks and is answered", after, broken));
                    }
                }
                Process::Ended | Process::Done => {}
            }
        }
        for late in 0..world.late.len() {
            let mut without = *world;
            let Some(request) = without.late[late].take() else { continue };
            without.late.sort_unstable();
            for (after, _, broken) in self.serve(&without, request) {
                changes.push(self.change("etcd acts on a late request", after, broken));
            }
        }
        let kept = world.kept();
        self.end_leases(world, world.living & !kept, "a lease ends that nobody keeps alive", &mut changes);
        changes
    }

    /// Looks, decides, and gives the answer if there is one. Nothing where nothing comes of it. The candidates may have
    /// settled at any moment: the hold only narrows what happens. Notes are the other model's.
    fn look(&self, world: &World, who: usize) -> Option<Change> {
        let Process::Looking { session, granted } = world.processes[who] else { return None };
        // The renewal tells.
        let (session, granted) =
            if granted && !world.lives(session) { (0, false) } else { (session, granted) };
        let me = self.candidate(world, who);
        // A lease that was asked for is one's own before it is known to be granted.
        let (session_id, fresh) = (lease_id(session), epoch(self.clock(world)));
        let asker = Asker { me, session: session_id, note: None, settled: true, fresh };
        let step = bootstrap::decide(&self.view(world), asker);
        let mut after = *world;
        let mut broken = None;
        after.processes[who] = match &step {
            Step::Done(answer) => {
                broken = self.broken_by_answer(world, me, answer);
                if let bootstrap::Answer::Elect(list) = answer {
                    after.handed = Some(self.list_number(list));
                }
                Process::Done
            }
            Step::Refuse(_) => Process::Done,
            Step::Wait(_) => Process::Looking { session, granted },
            Step::Change(asked, conditions) => {
                let session = if session == 0 { self.fresh_lease(world, who) } else { session };
                Process::Asking { session, granted, wish: self.wish(asked, conditions) }
            }
        };
        (after != *world).then(|| self.change("it looks", after, broken))
    }

    pub fn request(&self, world: &World, who: usize) -> Request {
        let Process::Asking { session, granted, wish } = world.processes[who] else {
            unreachable!("it asks for nothing")
        };
        if self.wants_lease(granted, wish) {
            return Request::Grant(session);
        }
        Request::Change(u8::try_from(who).expect("a small number"), session, wish)
    }

    fn wants_lease(&self, granted: bool, wish: WishNumber) -> bool {
        !granted && self.wished(wish).change == Asked::Register
    }

    /// What becomes of a process that was answered, and told whether its lease is there.
    fn answered(&self, process: Process, understood: bool) -> Process {
        match process {
            Process::Asking { session, granted, wish } if self.wants_lease(granted, wish) => {
                Process::Asking { session, granted: true, wish }
            }
            Process::Asking { session, granted, .. } if understood => Process::Looking { session, granted },
            _ => Process::Looking { session: 0, granted: false },
        }
    }

    pub fn serve(&self, world: &World, request: Request) -> Vec<Served> {
        let (who, lease, wish) = match request {
            Request::Grant(lease) => {
                return vec![(World { living: world.living | 1 << lease, ..*world }, true, None)];
            }
            Request::Change(who, lease, wish) => (who, lease, self.wished(wish)),
        };
        let Wish { change: asked, conditions, .. } = &*wish;
        if !conditions.iter().all(|condition| self.holds(world, asked, condition)) {
            return vec![(*world, true, None)];
        }
        if *asked == Asked::Register && !world.lives(lease) {
            return vec![(*world, false, None)];
        }
        let broken = match asked {
            Asked::Register => self.broken_by_registering(world, who.into()),
            Asked::Freeze { list, begins_epoch } => self.broken_by_freezing(world, list, *begins_epoch),
            Asked::Reset(wanted) => self.broken_by_reset(world, epoch_number(*wanted), conditions),
        };
        let write = |revision: Revision| {
            let before_loss = world.before_loss & !(1 << revision);
            let mut after = World { before_loss, ..*world };
            match asked {
                Asked::Register => self.register(&mut after, Key { who, revision, lease }),
                Asked::Freeze { list, begins_epoch } => {
                    after.list = Some((revision, self.list_number(list)));
                    let begun = list.epoch.filter(|_| *begins_epoch);
                    after.epoch = begun.map(|epoch| (revision, epoch_number(epoch))).or(after.epoch);
                }
                Asked::Reset(epoch) => {
                    after.candidates = [None; 3];
                    (after.list, after.formed, after.handed) = (None, 0, None);
                    after.epoch = Some((revision, epoch_number(*epoch)));
                }
            }
            (after, true, broken)
        };
        let me = &self.candidate(world, who.into()).name;
        let written = |condition: &Condition| match (asked, condition) {
            (Asked::Register, Condition::Candidate(name, ..)) => name == me,
            (Asked::Freeze { .. }, Condition::List(_)) => true,
            (Asked::Freeze { begins_epoch, .. }, Condition::Epoch(..)) => *begins_epoch,
            (Asked::Reset(_), Condition::Epoch(..)) => true,
            _ => false,
        };
        self.next_revisions(world, written).into_iter().map(write).collect()
    }

    fn register(&self, world: &mut World, key: Key) {
        let name = |key: &Key| &self.candidate(world, key.who.into()).name;
        let same = |place: &Option<Key>| place.is_none_or(|old| name(&old) == name(&key));
        let place = world.candidates.iter().position(same).expect("as many as processes");
        world.candidates[place] = Some(key);
    }

    fn holds(&self, world: &World, asked: &Asked, condition: &Condition) -> bool {
        let looks = |part| !(self.ignored)(asked, condition, part);
        // Of a key, the revision and what else is compared; and whether both are as the condition has them.
        let (same_revision, same_content) = match condition {
            Condition::Candidate(name, revision, lease) => {
                let key = world
                    .candidates
                    .iter()
                    .flatten()
                    .find(|key| self.candidate(world, key.who.into()).name == *name);
                let seen = key.map_or((0, None), |key| (i64::from(key.revision), lease_id(key.lease)));
                (seen.0 == *revision, seen.1 == *lease)
            }
            Condition::List(revision) => (world.list.map_or(0, |(at, _)| i64::from(at)) == *revision, true),
            Condition::Formed(revision) => (i64::from(world.formed) == *revision, true),
            Condition::Epoch(revision, number) => {
                let seen = world.epoch.map_or((0, None), |(at, number)| (i64::from(at), Some(epoch(number))));
                (seen.0 == *revision, number.is_none() || seen.1 == *number)
            }
            Condition::NobodyAnnounced => (!world.announced, true),
        };
        (same_revision || !looks(Part::Revision)) && (same_content || !looks(Part::Content))
    }

    pub fn end_leases(&self, world: &World, leases: u32, what: &'static str, changes: &mut Vec<Change>) {
        for lease in (0..32).filter(|lease: &Lease| leases & 1 << lease != 0) {
            let mut after = *world;
            after.end(lease);
            changes.push(self.change(what, after, None));
        }
    }

    pub fn shown(&self, world: &World) -> String {
        let mut text = String::new();
        for (who, process) in world.processes.iter().enumerate() {
            write!(text, "{:?} {process:?}; ", CASTS[usize::from(world.cast)][who]).expect("a string");
        }
        for wish in self.wishes(world) {
            write!(text, "asked {:?} if {:?}; ", wish.change, wish.conditions).expect("a string");
        }
        let keys: Vec<Key> = world.candidates.into_iter().flatten().collect();
        let list = world.list.map(|(revision, list)| (revision, self.list(list).to_string()));
        write!(text, "keys {keys:?}; epoch {:?}; list {list:?}; ", world.epoch).expect("a string");
        write!(text, "formed {}; announced {}; late {:?}", world.formed, world.announced, world.late)
            .expect("a string");
        text
    }
}
