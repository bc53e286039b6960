//! The numbers of a world: what a request remembers, and the smallest numbers that nothing remembers, so that worlds which
//! differ in names only are one.

use std::{cell::RefCell, collections::HashMap, hash::Hash, rc::Rc};

use crate_discovery::bootstrap::{Change as Asked, Condition, Epoch, List};

use super::{
    changes::Model,
    world::{EpochNumber, Lease, ListNumber, Process, Request, Revision, WishNumber, World, lease_id},
};

/// The smallest epoch that is one.
const FIRST: EpochNumber = 1;

/// What is numbered in the order in which it was met.
pub struct Numbered<T>(RefCell<(Vec<T>, HashMap<T, usize>)>);

impl<T: Clone + Eq + Hash> Numbered<T> {
    pub fn new() -> Self {
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

/// A change, its conditions, and the revisions, leases and epochs that they remember.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Wish {
    pub change: Asked,
    pub conditions: Vec<Condition>,
    revisions: u64,
    leases: u32,
    epoch: EpochNumber,
}

pub fn epoch(number: EpochNumber) -> Epoch {
    u64::from(number).try_into().expect("a small number is an epoch")
}

pub fn epoch_number(epoch: Epoch) -> EpochNumber {
    u8::try_from(u64::from(epoch)).expect("only small numbers are used")
}

/// The revision that a condition compares a key with, as a set.
fn compared(condition: &Condition) -> u64 {
    match condition {
        Condition::Candidate(_, at, _)
        | Condition::List(at)
        | Condition::Formed(at)
        | Condition::Epoch(at, _) => 1 << at,
        Condition::NobodyAnnounced => 0,
    }
}

impl Model {
    pub fn list_number(&self, list: &List) -> ListNumber {
        u8::try_from(self.lists.number(list.clone())).expect("not that many")
    }

    pub fn list(&self, number: ListNumber) -> List {
        self.lists.get(number.into())
    }

    pub fn wish(&self, change: &Asked, conditions: &[Condition]) -> WishNumber {
        let (mut revisions, mut leases) = (0, 0);
        // Several may want to begin an epoch at the same time: one of them will.
        let mut greatest = if let Asked::Reset(epoch) = change { Some(*epoch) } else { None };
        for condition in conditions {
            revisions |= compared(condition);
            match condition {
                Condition::Candidate(_, _, lease) => {
                    let number = (0..25).find(|number| lease_id(*number) == *lease);
                    leases |= 1 << number.expect("only leases of the model are used");
                }
                Condition::Epoch(_, epoch) => greatest = greatest.max(*epoch),
                _ => {}
            }
        }
        let epoch = epoch_number(greatest.unwrap_or_default());
        let wish = Wish { change: change.clone(), conditions: conditions.to_vec(), revisions, leases, epoch };
        u16::try_from(self.wishes.number(Rc::new(wish))).expect("not that many")
    }

    pub fn wished(&self, number: WishNumber) -> Rc<Wish> {
        self.wishes.get(number.into())
    }

    /// Everything that is still to be asked, or to arrive.
    pub fn wishes(&self, world: &World) -> impl Iterator<Item = Rc<Wish>> {
        let asking = world.processes.iter().filter_map(|process| match process {
            Process::Asking { wish, .. } => Some(*wish),
            _ => None,
        });
        let late = world.late.iter().flatten().filter_map(|request| match request {
            Request::Change(.., wish) => Some(*wish),
            Request::Grant(_) => None,
        });
        asking.chain(late).map(|wish| self.wished(wish))
    }

    pub fn fresh_lease(&self, world: &World, who: usize) -> Lease {
        let used = self.wishes(world).fold(world.living | world.named(), |used, wish| used | wish.leases);
        let first = 1 + 8 * u8::try_from(who).expect("a small number");
        (first..first + 8).find(|lease| used & 1 << lease == 0).expect("eight are enough")
    }

    /// What the clock says: later than every epoch that was seen.
    pub fn clock(&self, world: &World) -> EpochNumber {
        let stored = world.epoch.map_or(0, |(_, epoch)| epoch);
        1 + self.wishes(world).fold(stored, |latest, wish| latest.max(wish.epoch))
    }

    /// The revisions that the next write may have: a fresh one, and after a loss of data each that was given before and
    /// that a request compares a key with which is `written`. Any other is as good as a fresh one.
    pub fn next_revisions(&self, world: &World, written: impl Fn(&Condition) -> bool) -> Vec<Revision> {
        let mut used: u64 = 1 | 1 << world.formed;
        used |= world.list.map_or(0, |(revision, _)| 1 << revision);
        used |= world.epoch.map_or(0, |(revision, _)| 1 << revision);
        used |= world.candidates.iter().flatten().fold(0, |used, key| used | 1 << key.revision);
        used |= self.wishes(world).fold(0, |used, wish| used | wish.revisions);
        let mut possible = 1 << used.trailing_ones();
        if world.before_loss != 0 {
            for wish in self.wishes(world) {
                for condition in wish.conditions.iter().filter(|condition| written(condition)) {
                    possible |= world.before_loss & compared(condition);
                }
            }
        }
        (1..64).filter(|revision| possible & 1 << revision != 0).collect()
    }

    /// All revisions that a request remembers.
    pub fn remembered(&self, world: &World) -> u64 {
        self.wishes(world).fold(0, |known, wish| known | wish.revisions) & !1
    }

    /// Without what nothing remembers: a lease without a key that nobody will mention again may as well have ended, and an
    /// epoch is as good as the first one.
    pub fn forget(&self, mut world: World) -> World {
        let mut known: u32 = world.named();
        known |= world.candidates.iter().flatten().fold(0, |known, key| known | 1 << key.lease);
        world.living &= known & !1;
        if world.before_loss != 0 {
            world.before_loss &= self.remembered(&world);
        }
        if let Some((revision, number)) = world.epoch
            && number > FIRST
            && self.wishes(&world).all(|wish| wish.change == Asked::Register)
        {
            let first = |list| self.list_number(&List { epoch: Some(epoch(FIRST)), ..self.list(list) });
            world.epoch = Some((revision, FIRST));
            world.list = world.list.map(|(revision, list)| (revision, first(list)));
            world.handed = world.handed.map(first);
        }
        world
    }
}
