//! What there is, at one moment: hosts, what etcd stores, and what really happened. Everything is a small number.

use std::fmt;

/// The most hosts of a world.
pub const MOST: usize = 4;
/// An epoch; 0 where there is none.
pub type Epoch = u8;
/// Hosts, by place.
pub type Hosts = u8;
/// A cluster, counted from 1; 0 where there is none.
pub type Cluster = u8;

/// A note on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Noted {
    pub epoch: Epoch,
    /// It says that the node has a master, and not only that it was given the list.
    pub has_master: bool,
    /// Another machine wrote it: the disk is a copy.
    pub is_foreign: bool,
}

/// What a disk says of the last start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Begun {
    pub epoch: Option<Epoch>,
    pub elects: bool,
}

/// One host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    /// The cluster that its node belongs to for ever.
    pub data: Cluster,
    /// Its node left something on the disk, even where it was in no cluster yet.
    pub has_run: bool,
    /// Its node runs. If not, its `bootstrap` does, at one moment or another.
    pub runs: bool,
    /// The list that its node was given.
    pub given: Hosts,
    /// Of its node nothing can be seen but that it can be joined.
    pub is_hidden: bool,
    pub note: Option<Noted>,
    pub started: Option<Begun>,
    /// Nothing can be written on its state directory.
    pub is_read_only: bool,
    /// Its sidekick does not reach etcd, for longer than the hold.
    pub is_silent: bool,
    pub is_announced: bool,
    /// Its place among the candidates, from 1; 0 where it is none.
    pub seat: u8,
    /// Its notes were lost, or could not be written.
    pub forgets: bool,
    /// How many resets there had been when its node was started.
    pub after_resets: u8,
}

/// What etcd stores for the first election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stored {
    pub epoch: Epoch,
    /// Empty where there is none.
    pub list: Hosts,
    /// 0 where an older program froze it.
    pub list_epoch: Epoch,
    pub is_formed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Etcd {
    #[default]
    Up,
    Away,
    /// For ever.
    Gone,
}

/// Everything there is, at one moment, and what is to be remembered of how it came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    pub hosts: [Host; MOST],
    /// So many of them there are.
    pub count: u8,
    /// Names of a list.
    pub expect: u8,
    pub etcd: Etcd,
    pub stored: Stored,
    /// An old one.
    pub backup: Option<Stored>,
    /// The greatest epoch that has begun: later ones are greater, as the clock is.
    pub latest: Epoch,
    /// The epochs that a list was frozen in, and those of clusters that have formed.
    pub listed: u16,
    pub formed: u16,
    pub resets: u8,
    /// The epoch that the last reset began.
    pub first_epoch: Epoch,
    /// Clusters that were elected, and those since the last reset.
    pub clusters: u8,
    pub clusters_since: u8,
    /// Etcd was told, since the last reset, that the cluster has formed, and was not set back to when there was a list
    /// and no such word.
    pub is_told: bool,
    /// Something went wrong.
    pub is_disturbed: bool,
    /// Nothing can prevent another cluster any more: N hosts without notes have frozen a list while all noted ones were
    /// silent; or a host lost what it knew while etcd was not told; or a node of the cluster was wiped while another one
    /// could still elect.
    pub is_excused: bool,
    /// No node ran and no data was left when it was reset: a cluster has to come of it.
    pub is_owed: bool,
}

impl World {
    pub fn places(&self) -> std::ops::Range<usize> {
        0..usize::from(self.count)
    }

    pub fn each(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().take(self.count.into())
    }

    pub fn is_anybody_announced(&self) -> bool {
        self.each().any(|host| host.is_announced)
    }

    /// More than half of the names of a list.
    pub fn majority(&self) -> usize {
        usize::from(self.expect) / 2 + 1
    }

    /// Whether a cluster has a master: enough of its nodes run.
    pub fn has_master(&self, cluster: Cluster) -> bool {
        cluster != 0
            && self.each().filter(|host| host.runs && host.data == cluster).count() >= self.majority()
    }

    /// Those whose nodes run and are in no cluster.
    pub fn fresh(&self) -> Hosts {
        let fresh = |place: &usize| self.hosts[*place].runs && self.hosts[*place].data == 0;
        self.places().filter(fresh).fold(0, |fresh, place| fresh | 1 << place)
    }

    /// Leaves the candidates.
    pub fn leave(&mut self, place: usize) {
        let seat = std::mem::take(&mut self.hosts[place].seat);
        if seat != 0 {
            for other in &mut self.hosts {
                other.seat -= u8::from(other.seat > seat);
            }
        }
    }

    /// What was attached to a lease is gone.
    pub fn lose_leases(&mut self) {
        for host in &mut self.hosts {
            (host.is_announced, host.seat) = (false, 0);
        }
    }

    /// The same with the hosts in order: worlds that differ in who is who are one.
    pub fn sorted(mut self) -> Self {
        let count = usize::from(self.count);
        // Without lists a host looks the same under any name.
        let seen_as = |world: &Self, place: usize| {
            let is_in = |list: Hosts| list & 1 << place != 0;
            let in_backup = world.backup.is_some_and(|backup| is_in(backup.list));
            let host = world.hosts[place];
            (Host { given: u8::from(is_in(host.given)), ..host }, is_in(world.stored.list), in_backup)
        };
        for end in (1..count).rev() {
            for place in 0..end {
                if seen_as(&self, place) > seen_as(&self, place + 1) {
                    self.swap(place);
                }
            }
        }
        self
    }

    /// The host at this place and the next one change names.
    fn swap(&mut self, place: usize) {
        let swapped = |list: Hosts| {
            let (one, other) = (list >> place & 1, list >> (place + 1) & 1);
            list & !(0b11 << place) | other << place | one << (place + 1)
        };
        self.hosts.swap(place, place + 1);
        for host in &mut self.hosts {
            host.given = swapped(host.given);
        }
        self.stored.list = swapped(self.stored.list);
        if let Some(backup) = &mut self.backup {
            backup.list = swapped(backup.list);
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{:?} {:?}", self.etcd, self.stored);
        for place in self.places() {
            let host = &self.hosts[place];
            let node = if host.runs { "runs" } else { "is down" };
            text +=
                &format!("; h{place} {node}, data {}, given {:b}, seat {}", host.data, host.given, host.seat);
            if let Some(note) = host.note {
                text += &format!(", {note:?}");
            }
            if let Some(begun) = host.started {
                text += &format!(", {begun:?}");
            }
            for (is, what) in [
                (host.is_announced, "announced"),
                (host.is_silent, "silent"),
                (host.is_hidden, "hidden"),
                (host.is_read_only, "read-only"),
                (host.forgets, "forgets"),
            ] {
                if is {
                    text = text + ", " + what;
                }
            }
        }
        f.write_str(&text)
    }
}
