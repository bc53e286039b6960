//! Who is announced, as far as is known, and who is kept although they are missing: no I/O, no clock.
//!
//! A host that is missing from the first list after an outage may be gone, or etcd may have lost its data and everybody
//! be about to announce again. A host whose key ends soon after an outage may be gone, or etcd, frozen for longer than a
//! TTL, may take every lease for expired. In both cases the host stays for the hold. That runs only while etcd can be
//! read: nobody can come back while it cannot.

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
    /// What all of them cost, in bytes; see [`list::size`].
    size: usize,
    /// There was a list.
    listed: bool,
    /// Until then, an end may be an aftermath of the last outage.
    aftermath: Option<Instant>,
}

#[derive(Debug)]
struct Member {
    announcement: Announcement,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// In the last list.
    Listed,
    /// Put since the last outage: somebody keeps it.
    Put,
    /// Not there any more, and kept until then.
    Held(Instant),
}

impl Roster {
    /// Nobody is known yet.
    pub(super) fn new(hold: Duration) -> Self {
        Self { hold, members: BTreeMap::new(), size: 0, listed: false, aftermath: None }
    }

    /// Takes a whole list, read at `now`, after an `outage` of this length if there was one.
    /// Gives how many of the hosts that were there are missing now, and held.
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
                // Etcd was there all the time. Whoever was not seen to end may still be an aftermath's.
                (Standing::Listed, None) => match self.aftermath.filter(|until| now < *until) {
                    Some(until) => until,
                    None => continue,
                },
                (Standing::Put, None) => continue,
            };
            let size = list::size(&host, &announcement);
            // Lists that have nothing in common, one after the other, are not kept all together.
            if self.size + size <= list::LARGEST
                && let Entry::Vacant(vacant) = self.members.entry(host)
            {
                vacant.insert(Member { announcement, standing: Standing::Held(until) });
                (held, self.size) = (held + 1, self.size + size);
            }
        }
        held
    }

    /// A key was put. Gives whether that changes the snapshot.
    pub(super) fn put(&mut self, Node { host, announcement }: Node) -> bool {
        let changes = self.members.get(&host).is_none_or(|known| known.announcement != announcement);
        self.remove(&host);
        self.size += list::size(&host, &announcement);
        self.members.insert(host, Member { announcement, standing: Standing::Put });
        changes
    }

    /// A key was deleted, or its lease has ended. Gives whether that changes the snapshot.
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

    /// A key is no announcement any more. Gives whether that changes the snapshot.
    pub(super) fn remove(&mut self, host: &Host) -> bool {
        let removed = self.members.remove(host);
        self.size -= removed.as_ref().map_or(0, |member| list::size(host, &member.announcement));
        removed.is_some()
    }

    /// What all of them cost, in bytes; see [`list::size`].
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// When [`Roster::release`] has something to do next.
    pub(super) fn release_at(&self) -> Option<Instant> {
        self.members.values().filter_map(Member::held_until).min()
    }

    /// Lets go of those who have been held long enough. Gives how many.
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

    /// Everybody, with the revision that is known of the store.
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
