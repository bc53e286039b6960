//! What can be known of a key and of the lease that it is attached to: no I/O and no clock.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// A lease's id: 63 random bits, never zero. Shown in hex without leading zeros, as etcdctl does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(i64);

impl LeaseId {
    /// An id that was never used before.
    ///
    /// `RandomState` is keyed by the operating system. A generator seeded from the clock would give
    /// two machines that were cloned or booted together one id, and one would revoke the other's.
    pub fn random() -> Self {
        let bits = RandomState::new().build_hasher().finish() >> 1;
        Self(i64::try_from(bits).unwrap_or(i64::MAX).max(1))
    }

    /// The id etcd shows for a key: zero means that no lease is attached.
    pub fn from_etcd(id: i64) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }

    /// The id as etcd counts it.
    pub(crate) fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How long a lease lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// When it is renewed; whole seconds.
    pub granted: Duration,
    /// From now on; whole seconds.
    pub left: Duration,
}

/// The key as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    /// The revision of its last change; 0 when it is absent.
    pub mod_revision: i64,
    /// The lease that it is attached to.
    pub lease: Option<LeaseId>,
    /// What is there.
    pub content: Content,
}

/// What is under our key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Nothing.
    Absent,
    /// The value that we put.
    Ours,
    /// Another value, decoded and cut for logs.
    Other(String),
    /// Another value, larger than we accept.
    TooLarge,
}

impl Sight {
    /// Under `lease`, with our value.
    pub fn is_ours(&self, lease: LeaseId) -> bool {
        self.lease == Some(lease) && self.content == Content::Ours
    }

    /// Under a lease, and not under `ours`.
    pub fn is_held_by_another(&self, ours: Option<LeaseId>) -> bool {
        self.lease.is_some() && self.lease != ours
    }
}
