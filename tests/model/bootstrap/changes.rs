//! What can happen in a world: by itself, and as a fault.

use std::{cell::RefCell, collections::HashMap, fmt::Write as _, hash::Hash, rc::Rc};

use crate_discovery::bootstrap::{
    self, Candidate, Change as Asked, Condition, List, MachineId, Registered, Said, Step, View,
};

use super::world::{Key, Lease, ListNumber, Process, Request, Revision, WishNumber, World, lease_id};

/// Who takes part: name, machine and the number it expects. Three of them with names of their own, two
/// machines with one name, and one that expects another number.
pub const CASTS: [[(&str, u32, u32); 3]; 3] = [
    [("a", 1, 2), ("b", 2, 2), ("c", 3, 2)],
    [("a", 1, 2), ("b", 2, 2), ("a", 3, 2)],
    [("a", 1, 2), ("b", 2, 2), ("c", 3, 3)],
];

/// What is numbered in the order in which it was met.
struct Numbered<T>(RefCell<(Vec<T>, HashMap<T, usize>)>);

impl<T: Clone + Eq + Hash> Numbered<T> {
    fn new() -> Self {
        Self(RefCell::new((Vec::new(), HashMap::new())))
    }

    fn number(&self, item: T) -> usize {
        let (items, numbers) = &mut *self.0.borrow_mut();
        *numbers.entry(item.clone()).or_insert_with(|| {
            items.push(item);
            items.len() - 1
        })
    }

    fn get(&self, number: usize) -> T {
        self.0.borrow().0[number].clone()
    }
}

/// A change, its conditions, and the revisions and leases that they remember.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Wish {
    pub change: Asked,
    pub conditions: Vec<Condition>,
    revisions: u64,
    leases: u32,
}

/// What happens, the world after it, and the rule that it breaks.
pub struct Change {
    pub what: &'static str,
    pub after: World,
    pub broken: Option<&'static str>,
}

/// Who the casts are, and which conditions etcd does not look at.
pub struct Model {
    casts: Vec<Vec<Candidate>>,
    lists: Numbered<List>,
    wishes: Numbered<Rc<Wish>>,
    ignored: fn(&Asked, &Condition) -> bool,
}

impl Model {
    pub fn new(ignored: fn(&Asked, &Condition) -> bool) -> Self {
        let candidate = |(name, on, expect): &(&str, u32, u32)| Candidate {
            name: name.parse().expect("a name"),
            said: Said {
                expect: *expect,
                machine: MachineId::derive(&format!("{on:032}")).expect("32 digits"),
            },
        };
        let casts = CASTS.iter().map(|cast| cast.iter().map(candidate).collect()).collect();
        Self { casts, lists: Numbered::new(), wishes: Numbered::new(), ignored }
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
        View {
            candidates: world.candidates.iter().flatten().enumerate().map(registered).collect(),
            list: world.list.map(|(revision, list)| (revision.into(), Ok(self.lists.get(list.into())))),
            formed: (world.formed != 0).then(|| (world.formed.into(), String::new())),
            announced: world.announced.then(String::new),
        }
    }

    /// What may happen although nothing goes wrong.
    pub fn steps(&self, world: &World) -> Vec<Change> {
        let mut changes = Vec::new();
        for who in 0..world.processes.len() {
            match &world.processes[who] {
                Process::Looking { .. } => changes.extend(self.look(world, who)),
                Process::Asking { .. } => {
                    let (mut after, understood, broken) = self.serve(world, self.request(world, who));
                    after.processes[who] = self.answered(world.processes[who], understood);
                    changes.push(change("it asks and is answered", after, broken));
                }
                Process::Ended | Process::Done => {}
            }
        }
        for late in 0..world.late.len() {
            let mut without = *world;
            let Some(request) = without.late[late].take() else { continue };
            without.late.sort_unstable();
            let (after, _, broken) = self.serve(&without, request);
            changes.push(change("etcd acts on a late request", after, broken));
        }
        let kept = world.kept();
        self.end_leases(world, world.living & !kept, "a lease ends that nobody keeps alive", &mut changes);
        changes
    }

    /// Looks, decides, and gives the answer if there is one. Nothing where nothing comes of it.
    fn look(&self, world: &World, who: usize) -> Option<Change> {
        let Process::Looking { session, granted } = world.processes[who] else { return None };
        // The renewal tells.
        let (session, granted) =
            if granted && !world.lives(session) { (0, false) } else { (session, granted) };
        let me = self.candidate(world, who);
        // A lease that was asked for is one's own before it is known to be granted.
        let step = bootstrap::decide(&self.view(world), me, lease_id(session));
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
        (after != *world).then(|| change("it looks", after, broken))
    }

    pub fn list_number(&self, list: &List) -> ListNumber {
        u8::try_from(self.lists.number(list.clone())).expect("not that many")
    }

    fn wish(&self, change: &Asked, conditions: &[Condition]) -> WishNumber {
        let (mut revisions, mut leases) = (0, 0);
        for condition in conditions {
            if let Condition::Candidate(_, at, _) | Condition::List(at) | Condition::Formed(at) = condition {
                revisions |= 1 << at;
            }
            if let Condition::Candidate(_, _, Some(lease)) = condition {
                let number = (0..25).find(|number| lease_id(*number) == Some(*lease));
                leases |= 1 << number.expect("only leases of the model are used");
            }
        }
        let wish = Wish { change: change.clone(), conditions: conditions.to_vec(), revisions, leases };
        u16::try_from(self.wishes.number(Rc::new(wish))).expect("not that many")
    }

    /// Everything that is still to be asked, or to arrive.
    fn wishes(&self, world: &World) -> impl Iterator<Item = Rc<Wish>> {
        let asking = world.processes.iter().filter_map(|process| match process {
            Process::Asking { wish, .. } => Some(*wish),
            _ => None,
        });
        let late = world.late.iter().flatten().filter_map(|request| match request {
            Request::Change(.., wish) => Some(*wish),
            Request::Grant(_) => None,
        });
        asking.chain(late).map(|wish| self.wishes.get(wish.into()))
    }

    fn request(&self, world: &World, who: usize) -> Request {
        let Process::Asking { session, granted, wish } = world.processes[who] else {
            unreachable!("it asks for nothing")
        };
        if self.wants_lease(granted, wish) {
            return Request::Grant(session);
        }
        Request::Change(u8::try_from(who).expect("a small number"), session, wish)
    }

    fn wants_lease(&self, granted: bool, wish: WishNumber) -> bool {
        !granted && self.wishes.get(wish.into()).change == Asked::Register
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

    /// What etcd makes of a request: the world after it, and whether it says that the lease is there.
    fn serve(&self, world: &World, request: Request) -> (World, bool, Option<&'static str>) {
        let mut after = *world;
        let (who, lease, wish) = match request {
            Request::Grant(lease) => {
                after.living |= 1 << lease;
                return (after, true, None);
            }
            Request::Change(who, lease, wish) => (who, lease, self.wishes.get(wish.into())),
        };
        let Wish { change: asked, conditions, .. } = &*wish;
        let mut looked_at = conditions.iter().filter(|condition| !(self.ignored)(asked, condition));
        if !looked_at.all(|condition| self.holds(world, condition)) {
            return (after, true, None);
        }
        let revision = self.fresh_revision(world);
        let mut broken = None;
        match asked {
            Asked::Register if !world.lives(lease) => return (after, false, None),
            Asked::Register => {
                let key = Key { who, revision, lease };
                let name = &self.candidate(world, who.into()).name;
                let place = after.candidates.iter_mut().find(|place| {
                    place.is_none_or(|old| self.candidate(world, old.who.into()).name == *name)
                });
                *place.expect("as many as processes") = Some(key);
            }
            Asked::Freeze(list) => {
                broken = self.broken_by_freezing(world, list);
                after.list = Some((revision, self.list_number(list)));
            }
            Asked::Reset => {
                if world.list.is_some_and(|(at, _)| !conditions.contains(&Condition::List(at.into()))) {
                    broken = Some("a reset deletes a list that it was not asked to");
                }
                after.candidates = [None; 3];
                (after.list, after.formed, after.handed) = (None, 0, None);
            }
        }
        (after, true, broken)
    }

    fn holds(&self, world: &World, condition: &Condition) -> bool {
        match condition {
            Condition::Candidate(name, revision, lease) => {
                let key = world
                    .candidates
                    .iter()
                    .flatten()
                    .find(|key| self.candidate(world, key.who.into()).name == *name);
                let seen = key.map_or((0, None), |key| (i64::from(key.revision), lease_id(key.lease)));
                seen == (*revision, *lease)
            }
            Condition::List(revision) => world.list.map_or(0, |(at, _)| i64::from(at)) == *revision,
            Condition::Formed(revision) => i64::from(world.formed) == *revision,
            Condition::NobodyAnnounced => !world.announced,
        }
    }

    /// What may go wrong, or be done to the processes and to etcd.
    pub fn faults(&self, world: &World) -> Vec<Change> {
        let mut changes = Vec::new();
        for who in 0..world.processes.len() {
            let mut with = |what, process: Process, world: &World, broken| {
                let mut after = *world;
                after.processes[who] = process;
                changes.push(change(what, after, broken));
            };
            match world.processes[who] {
                Process::Ended | Process::Done => {
                    with("it is started again", Process::Looking { session: 0, granted: false }, world, None);
                }
                Process::Looking { .. } => with("it is killed", Process::Ended, world, None),
                Process::Asking { session, granted, .. } => {
                    let again = Process::Looking { session, granted };
                    let request = self.request(world, who);
                    let (served, _, broken) = self.serve(world, request);
                    with("it asks, and the answer is lost", again, &served, broken);
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
        changes.push(change("somebody is announced, or no longer", after, None));
        if world.formed == 0 {
            let after = World { formed: self.fresh_revision(world), ..*world };
            changes.push(change("a sidekick says that the cluster has formed", after, None));
        }
        let (asked, conditions) = bootstrap::reset(&self.view(world));
        let reset = world.with_late(Request::Change(0, 0, self.wish(&asked, &conditions)));
        if let Some(after) = reset.filter(|_| !world.announced) {
            changes.push(change("somebody asks for a reset", after, None));
        }
        let lost = World { candidates: [None; 3], list: None, formed: 0, living: 0, handed: None, ..*world };
        changes.push(change("etcd loses its data", lost, None));
        changes
    }

    fn end_leases(&self, world: &World, leases: u32, what: &'static str, changes: &mut Vec<Change>) {
        for lease in (0..32).filter(|lease| leases & 1 << lease != 0) {
            let mut after = *world;
            after.end(lease);
            changes.push(change(what, after, None));
        }
    }

    /// The smallest number that nothing remembers, so that worlds which differ in names only are one.
    fn fresh_lease(&self, world: &World, who: usize) -> Lease {
        let used = self.wishes(world).fold(world.living | world.named(), |used, wish| used | wish.leases);
        let first = 1 + 8 * u8::try_from(who).expect("a small number");
        (first..first + 8).find(|lease| used & 1 << lease == 0).expect("eight are enough")
    }

    fn fresh_revision(&self, world: &World) -> Revision {
        let mut used: u64 = 1 | 1 << world.formed;
        used |= world.list.map_or(0, |(revision, _)| 1 << revision);
        used |= world.candidates.iter().flatten().fold(0, |used, key| used | 1 << key.revision);
        used |= self.wishes(world).fold(0, |used, wish| used | wish.revisions);
        u8::try_from(used.trailing_ones()).expect("a small number")
    }

    pub fn describe(&self, world: &World) -> String {
        let mut text = String::new();
        for (who, process) in world.processes.iter().enumerate() {
            write!(text, "{:?} {process:?}; ", CASTS[usize::from(world.cast)][who]).expect("a string");
        }
        for wish in self.wishes(world) {
            write!(text, "asked {:?} if {:?}; ", wish.change, wish.conditions).expect("a string");
        }
        let keys: Vec<Key> = world.candidates.into_iter().flatten().collect();
        let list = world.list.map(|(revision, list)| (revision, self.lists.get(list.into()).to_string()));
        write!(text, "keys {keys:?}; list {list:?}; formed {}; ", world.formed).expect("a string");
        write!(text, "announced {}; late {:?}", world.announced, world.late).expect("a string");
        text
    }
}

fn change(what: &'static str, mut after: World, broken: Option<&'static str>) -> Change {
    // A lease without a key that nobody will mention again may as well have ended.
    let mut known: u32 = after.named();
    known |= after.candidates.iter().flatten().fold(0, |known, key| known | 1 << key.lease);
    after.living &= known & !1;
    Change { what, after, broken }
}
