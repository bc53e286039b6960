//! What can be known about a key and about the lease that it is attached to. It has no I/O and no clock.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// The id of a lease: 63 random bits, never zero. It is shown in hex without leading zeros, as etcdctl shows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(i64);

impl LeaseId {
    /// An id that was never used before.
    ///
    /// The operating system gives `RandomState` its random keys. A generator that is seeded from the clock could give
    /// the same id to two machines that were cloned or booted together, and one would revoke the lease of the other.
    pub fn random() -> Self {
        let bits = RandomState::new().build_hasher().finish() >> 1;
        Self(i64::try_from(bits).unwrap_or(i64::MAX).max(1))
    }

    /// The id that etcd shows for a key. Zero means that no lease is attached, and gives `None`.
    pub fn from_etcd(id: i64) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }

    /// The id as a number, as etcd stores it.
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
    /// The TTL that etcd granted, in whole seconds. Each renewal sets the time that is left to it.
    pub granted: Duration,
    /// The time that is left until the lease ends, in whole seconds.
    pub left: Duration,
}

/// The key as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    /// The revision of its last change; 0 if the key is absent.
    pub mod_revision: i64,
    /// The lease that it is attached to, if there is one.
    pub lease: Option<LeaseId>,
    /// The value.
    pub content: Content,
}

/// The value of our key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// There is no key.
    Absent,
    /// The value that we put.
    Ours,
    /// Another value, decoded and shortened for the log.
    Other(String),
    /// Another value, which is larger than we accept.
    TooLarge,
}

impl Sight {
    /// Whether the key is under `lease`, with our value.
    pub fn is_ours(&self, lease: LeaseId) -> bool {
        self.lease == Some(lease) && self.content == Content::Ours
    }

    /// Whether the key is under a lease other than `ours`.
    pub fn is_held_by_another(&self, ours: Option<LeaseId>) -> bool {
        self.lease.is_some() && self.lease != ours
    }
}
