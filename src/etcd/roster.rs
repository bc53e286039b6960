//! The hosts that are shown: those that are announced, as far as we know, and those that are missing but still held. It
//! has no I/O and no clock.
//!
//! A host may be missing from the first list after an outage because it is gone, or because etcd lost its data and all
//! hosts are about to announce again. The key of a host may end soon after an outage because the host is gone, or
//! because etcd was frozen for longer than a TTL and treats every lease as expired. In both cases the host is held for
//! the time `hold`. That time runs only while etcd can be read, because a host cannot come back while it cannot.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use tokio::time::Instant;

use super::list;
use crate::{
    announcement::Announcement,
    host::Host,
    snapshot::{Node, Snapshot},
};

/// The known hosts.
#[derive(Debug)]
pub(super) struct Roster {
    hold: Duration,
    members: BTreeMap<Host, Member>,
    /// The memory for all of them, in bytes; see [`list::size`].
    size: usize,
    /// At least one list was read.
    listed: bool,
    /// Until this time, the end of a key may be an effect of the last outage.
    aftermath: Option<Instant>,
}

#[derive(Debug)]
struct Member {
    announcement: Announcement,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The host was in the last list.
    Listed,
    /// The host was put since the last outage, so its announcer is alive.
    Put,
    /// The host is missing, and is held until this time.
    Held(Instant),
}

impl Roster {
    /// A roster without hosts.
    pub(super) fn new(hold: Duration) -> Self {
        Self { hold, members: BTreeMap::new(), size: 0, listed: false, aftermath: None }
    }

    /// Takes a whole list, read at `now`. `outage` is the length of the outage before it, if there was one. Returns how
    /// many of the known hosts are missing now, and held.
    pub(super) fn list(
        &mut self,
        nodes: impl IntoIterator<Item = Node>,
        now: Instant,
        outage: Option<Duration>,
    ) -> usize {
        let outage = outage.filter(|_| self.listed);
        self.listed = true;
        if outage.is_some() {
            self.aftermath = Some(now + self.hold);
        }
        let before = std::mem::take(&mut self.members);
        self.size = 0;
        for Node { host, announcement } in nodes {
            let is_kept = outage.is_none() && before.get(&host).is_some_and(|m| m.standing == Standing::Put);
            let standing = if is_kept { Standing::Put } else { Standing::Listed };
            self.size += list::size(&host, &announcement);
            self.members.insert(host, Member { announcement, standing });
        }
        let mut held = 0;
        for (host, Member { announcement, standing }) in before {
            let until = match (standing, outage) {
                (Standing::Held(until), outage) => until + outage.unwrap_or_default(),
                (_, Some(_)) => now + self.hold,
                // Etcd was there all the time. But soon after an outage, a host that was not put since may be missing
                // because of it.
                (Standing::Listed, None) => match self.aftermath.filter(|until| now < *until) {
                    Some(until) => until,
                    None => continue,
                },
                (Standing::Put, None) => continue,
            };
            let size = list::size(&host, &announcement);
            // The size is limited, so that many lists with different hosts are not all kept together.
            if self.size + size <= list::LARGEST
                && let Entry::Vacant(vacant) = self.members.entry(host)
            {
                vacant.insert(Member { announcement, standing: Standing::Held(until) });
                (held, self.size) = (held + 1, self.size + size);
            }
        }
        held
    }

    /// A key was put. Returns whether that changes the snapshot.
    pub(super) fn put(&mut self, Node { host, announcement }: Node) -> bool {
        let changes = self.members.get(&host).is_none_or(|known| known.announcement != announcement);
        self.remove(&host);
        self.size += list::size(&host, &announcement);
        self.members.insert(host, Member { announcement, standing: Standing::Put });
        changes
    }

    /// A key was deleted, or its lease has ended. Returns whether that changes the snapshot.
    pub(super) fn delete(&mut self, host: &Host, now: Instant) -> bool {
        match (self.members.get_mut(host), self.aftermath) {
            (Some(Member { standing: Standing::Held(_), .. }), _) => false,
            (Some(member @ Member { standing: Standing::Listed, .. }), Some(until)) if now < until => {
                member.standing = Standing::Held(until);
                false
            }
            _ => self.remove(host),
        }
    }

    /// A key is no announcement any more. Returns whether that changes the snapshot.
    pub(super) fn remove(&mut self, host: &Host) -> bool {
        let removed = self.members.remove(host);
        self.size -= removed.as_ref().map_or(0, |member| list::size(host, &member.announcement));
        removed.is_some()
    }

    /// The memory for all hosts, in bytes; see [`list::size`].
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// When [`Roster::release`] will have something to do next.
    pub(super) fn release_at(&self) -> Option<Instant> {
        self.members.values().filter_map(Member::held_until).min()
    }

    /// Removes the hosts that were held long enough. Returns how many.
    pub(super) fn release(&mut self, now: Instant) -> usize {
        let before = self.members.len();
        let size = &mut self.size;
        self.members.retain(|host, member| {
            let stays = member.held_until().is_none_or(|until| now < until);
            *size -= if stays { 0 } else { list::size(host, &member.announcement) };
            stays
        });
        before - self.members.len()
    }

    /// A snapshot of all hosts, with `revision` as the revision of the store.
    pub(super) fn snapshot(&self, revision: i64) -> Snapshot {
        let node = |(host, member): (&Host, &Member)| Node {
            host: host.clone(),
            announcement: member.announcement.clone(),
        };
        Snapshot::new(revision, self.members.iter().map(node).collect())
    }
}

impl Member {
    fn held_until(&self) -> Option<Instant> {
        match self.standing {
            Standing::Held(until) => Some(until),
            Standing::Listed | Standing::Put => None,
        }
    }
}

#[cfg(test)]
mod tests;
