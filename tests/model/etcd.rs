//! The key, the leases and the requests of a world. Leases and revisions are small numbers, the
//! smallest that nothing remembers, so that worlds which differ in names only are one.

use crate_discovery::lease::{Content, LeaseId, Sight};

/// A lease by number: 0 is none, 1 to 8 are A's, 9 to 16 B's, 17 to 24 a third party's.
pub type Lease = u8;
/// What etcd numbers a write with; 0 when the key is absent.
pub type Revision = u8;
/// Leases or revisions, a bit each.
pub type Set = u32;

pub const THIRD_PARTY: usize = 2;

pub fn has(set: Set, number: u8) -> bool {
    set & 1 << number != 0
}

/// The members of a set, by rising number.
pub fn members(mut set: Set) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let first = smallest(set)?;
        set &= set - 1;
        Some(first)
    })
}

pub fn smallest(set: Set) -> Option<u8> {
    (set != 0).then(|| set.trailing_zeros() as u8)
}

/// All leases that can be somebody's.
pub fn leases_of(owner: usize) -> Set {
    0xff << (1 + 8 * owner)
}

pub fn owner(lease: Lease) -> usize {
    usize::from(lease - 1) / 8
}

/// Shown as a1, a2, … b1, … c1, …
pub fn lease_id(lease: Lease) -> Option<LeaseId> {
    let number = i64::from(lease);
    LeaseId::from_etcd(if number == 0 { 0 } else { 0xa1 + (number - 1) / 8 * 0x10 + (number - 1) % 8 })
}

pub fn lease_number(id: Option<LeaseId>) -> Lease {
    (0..=24).find(|lease| lease_id(*lease) == id).expect("only leases of the model are used")
}

/// Both announcers would put the same value; by hand comes another.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Key {
    pub revision: Revision,
    pub lease: Lease,
    pub ours: bool,
}

impl Key {
    pub fn sight(self) -> Sight {
        let content = match self {
            Self { revision: 0, .. } => Content::Absent,
            Self { ours: true, .. } => Content::Ours,
            Self { .. } => Content::Other(String::new()),
        };
        Sight { mod_revision: self.revision.into(), lease: lease_id(self.lease), content }
    }
}

/// A request that changes etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    Grant(Lease),
    /// Under this lease, if the key's revision still is this one.
    Put(Lease, Revision, Lease),
    Revoke(Lease),
}

/// Everything there is, at one moment.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct World {
    /// Each process as an index into [`Model::known`](crate::changes::Model); none when it does not run.
    pub announcers: [Option<u32>; 2],
    pub key: Key,
    pub living: Set,
    /// Sent, given up on, and not arrived; sorted, so that worlds coincide.
    pub late: [Option<Request>; 4],
    /// Revisions given before etcd lost its data: it may give each once more.
    pub before_loss: Set,
    /// Leases under which the key has been put.
    pub put_under: Set,
    /// Leases that their process is done with: forgotten, and not named when it ended.
    pub done_with: Set,
}

impl World {
    pub fn end(&mut self, lease: Lease) {
        self.living &= !(1 << lease);
        if self.key.lease == lease {
            self.key = Key::default();
        }
    }

    /// With one more request on its way, if there is room.
    pub fn with_late(mut self, request: Request) -> Option<Self> {
        let room = self.late.iter_mut().find(|late| late.is_none())?;
        *room = Some(request);
        self.late.sort_unstable();
        Some(self)
    }

    pub fn without_late(mut self, request: Request) -> Self {
        if let Some(late) = self.late.iter_mut().find(|late| **late == Some(request)) {
            *late = None;
        }
        self.late.sort_unstable();
        self
    }
}
