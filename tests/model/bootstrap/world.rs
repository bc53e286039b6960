//! What there is, at one moment. Leases, revisions and what was met are small numbers, so that worlds
//! which differ in names only are one.

use crate_discovery::lease::LeaseId;

/// A lease by number: 0 is none, 1 to 8 are the first one's, 9 to 16 the second's, and so on.
pub type Lease = u8;
/// What etcd numbers a write with; 0 when a key is absent.
pub type Revision = u8;
/// An epoch, as a small number: only which one is greater matters.
pub type EpochNumber = u8;
/// A list by number, in the order in which they were met.
pub type ListNumber = u8;
/// A change and its conditions by number, in the order in which they were met.
pub type WishNumber = u16;

/// One process. Its session is 0 as long as it asked for no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    /// It does not run.
    Ended,
    /// About to look.
    Looking { session: Lease, granted: bool },
    /// About to ask for this.
    Asking { session: Lease, granted: bool, wish: WishNumber },
    /// It has had its answer, or was refused one.
    Done,
}

impl Process {
    pub fn session(self) -> Lease {
        match self {
            Self::Looking { session, .. } | Self::Asking { session, .. } => session,
            Self::Ended | Self::Done => 0,
        }
    }
}

/// A candidate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub who: u8,
    pub revision: Revision,
    pub lease: Lease,
}

/// A request that changes etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    Grant(Lease),
    /// By whom, and under which lease where it registers.
    Change(u8, Lease, WishNumber),
}

/// Everything there is, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub cast: u8,
    pub processes: [Process; 3],
    /// In the order in which their names came; those that are there come first.
    pub candidates: [Option<Key>; 3],
    pub epoch: Option<(Revision, EpochNumber)>,
    pub list: Option<(Revision, ListNumber)>,
    pub formed: Revision,
    pub announced: bool,
    pub living: u32,
    /// Revisions from before a loss of data that a request remembers: a store that counts anew gives each again.
    pub before_loss: u64,
    /// Sent, given up on, and not arrived; sorted, so that worlds coincide.
    pub late: [Option<Request>; 2],
    /// The list that somebody was given since the last reset.
    pub handed: Option<ListNumber>,
}

impl World {
    pub fn beginning(cast: usize) -> Self {
        Self {
            cast: u8::try_from(cast).expect("a small number"),
            processes: [Process::Looking { session: 0, granted: false }; 3],
            candidates: [None; 3],
            epoch: None,
            list: None,
            formed: 0,
            announced: false,
            living: 0,
            before_loss: 0,
            late: [None; 2],
            handed: None,
        }
    }

    pub fn lives(&self, lease: Lease) -> bool {
        self.living & 1 << lease != 0
    }

    pub fn end(&mut self, lease: Lease) {
        self.living &= !(1 << lease);
        let mut left = self.candidates.into_iter().flatten().filter(|key| key.lease != lease);
        self.candidates = std::array::from_fn(|_| left.next());
    }

    /// With one more request on its way, if there is room.
    pub fn with_late(mut self, request: Request) -> Option<Self> {
        *self.late.iter_mut().find(|late| late.is_none())? = Some(request);
        self.late.sort_unstable();
        Some(self)
    }

    /// The leases that somebody keeps alive.
    pub fn kept(&self) -> u32 {
        let sessions = self.processes.iter().map(|process| match process {
            Process::Looking { session, granted: true } | Process::Asking { session, granted: true, .. } => {
                1 << session
            }
            _ => 0,
        });
        sessions.fold(0, |kept, session: u32| kept | session) & !1
    }

    /// The leases that processes and requests remember, but for those in conditions.
    pub fn named(&self) -> u32 {
        let sessions = self.processes.iter().map(|process| process.session());
        let late = self.late.iter().flatten().map(|request| match request {
            Request::Grant(lease) | Request::Change(_, lease, _) => *lease,
        });
        sessions.chain(late).fold(0, |named, lease| named | 1 << lease) & !1
    }
}

pub fn lease_id(lease: Lease) -> Option<LeaseId> {
    LeaseId::from_etcd(lease.into())
}
