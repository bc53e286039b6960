//! What a host remembers about its node on its own disk, and when it has to be noted. Pure.

use serde::{Deserialize, Serialize};

use super::{epoch::Epoch, machine::MachineId};
use crate::host::Host;

/// The note of a host that its node is in a cluster, or was given the list of the first masters. From then on the node
/// must not be told to elect again, unless a reset begins a greater epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Note {
    /// The prefix of the cluster in etcd.
    pub prefix: String,
    /// The machine of the node. On another machine, for example on a clone, the note is void.
    pub machine: MachineId,
    /// CrateDB's `node.name`, if it is known. It is only for people who read the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// CrateDB's `cluster.name`, if it is known. It is only for people who read the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The epoch in which the node was started.
    pub epoch: Epoch,
    /// How we know it.
    pub evidence: Evidence,
}

/// How we know that a node is in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The node was given the list, and could be joined after that. More cannot be seen, because it wants a password,
    /// or because there is no `crate://` check.
    GivenTheList,
    /// The node answered that it has a master.
    HasMaster,
}

impl Note {
    /// Whether the note is valid if etcd has the epoch `stored`. Only a greater epoch makes it void. If `stored` is
    /// absent, smaller or the same, it is the note's own epoch, or that of a store that lost its data or was restored.
    pub fn holds(&self, stored: Epoch) -> bool {
        stored <= self.epoch
    }
}

/// What `bootstrap` answered when the node was last started. It is written before the node can act on it, because the
/// node belongs to that epoch, and not to one that is read later.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Started {
    /// The prefix in etcd.
    pub prefix: String,
    /// The machine of the node.
    pub machine: MachineId,
    /// CrateDB's `node.name`.
    pub node: Host,
    /// The epoch at that time. `None` if etcd could not be asked, or has none.
    pub epoch: Option<Epoch>,
    /// Whether the node was given the list.
    pub elects: bool,
}

/// What can be seen of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sighting {
    /// The node has a master.
    HasMaster,
    /// The node can be joined, and nothing else can be seen of it.
    Hidden,
    /// Neither is the case now.
    Nothing,
}

/// The epoch and the evidence of the note that has to be written now. `None` if none has to be written. `stored` is
/// etcd's epoch, or `None` if it is not known. It counts only if nobody wrote down when the node was started, and only
/// until there is a note: a later reset begins an epoch that is not the node's.
pub fn to_note(
    seen: Sighting,
    started: Option<&Started>,
    note: Option<&Note>,
    stored: Option<Epoch>,
) -> Option<(Epoch, Evidence)> {
    let start = started.and_then(|started| started.epoch);
    let noted = note.map(|note| note.epoch).filter(|epoch| *epoch > Epoch::default());
    let (epoch, evidence) = match seen {
        Sighting::HasMaster => (start.or(noted).or(stored).unwrap_or_default(), Evidence::HasMaster),
        Sighting::Hidden if started.is_some_and(|started| started.elects) => (start?, Evidence::GivenTheList),
        Sighting::Hidden | Sighting::Nothing => return None,
    };
    let is_known = note.is_some_and(|note| {
        note.epoch > epoch
            || (note.epoch == epoch && (note.evidence == evidence || note.evidence == Evidence::HasMaster))
    });
    (!is_known).then_some((epoch, evidence))
}

/// What a host that sees a master has to store in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: etcd has this epoch, which is greater than that of the note.
    OlderThan(Epoch),
    /// Nothing: the mark is stored already.
    Known,
    /// The mark "formed" has to be stored.
    Missing {
        /// Whether the epoch of the note has to be stored with it, because etcd has none or a smaller one. That is so
        /// in a store that lost its data or was restored.
        with_epoch: bool,
    },
}

/// What has to be stored for a cluster of the epoch `noted`. `stored` is the epoch in etcd, if there is one;
/// `is_marked` tells whether the mark is there.
pub fn to_mark(noted: Epoch, stored: Option<Epoch>, is_marked: bool) -> Mark {
    if let Some(greater) = stored.filter(|stored| *stored > noted) {
        return Mark::OlderThan(greater);
    }
    let with_epoch = stored.unwrap_or_default() < noted;
    if is_marked && !with_epoch { Mark::Known } else { Mark::Missing { with_epoch } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::tests::machine;

    fn epoch(number: u64) -> Epoch {
        number.try_into().unwrap()
    }

    fn note(number: u64, evidence: Evidence) -> Note {
        let (prefix, machine) = ("/services/crate".to_owned(), machine(1));
        Note { prefix, machine, node: None, cluster: None, epoch: epoch(number), evidence }
    }

    fn started(number: Option<u64>, elects: bool) -> Started {
        let (prefix, machine) = ("/services/crate".to_owned(), machine(1));
        Started { prefix, machine, node: "a".parse().unwrap(), epoch: number.map(epoch), elects }
    }

    #[test]
    fn only_a_greater_epoch_voids_a_note() {
        let note = note(5, Evidence::HasMaster);
        assert!(note.holds(Epoch::default()) && note.holds(epoch(4)) && note.holds(epoch(5)));
        assert!(!note.holds(epoch(6)));
    }

    #[test]
    fn node_that_has_a_master_is_noted_in_the_epoch_that_it_was_started_in() {
        use Evidence::{GivenTheList, HasMaster};
        let master = |started: Option<&Started>, note: Option<&Note>, stored: Option<u64>| {
            to_note(Sighting::HasMaster, started, note, stored.map(epoch))
        };
        let in_5 = started(Some(5), true);
        assert_eq!(master(Some(&in_5), None, Some(9)), Some((epoch(5), HasMaster)));
        assert_eq!(master(Some(&in_5), Some(&note(5, GivenTheList)), None), Some((epoch(5), HasMaster)));
        assert_eq!(master(Some(&in_5), Some(&note(4, HasMaster)), None), Some((epoch(5), HasMaster)));
        assert_eq!(master(Some(&in_5), Some(&note(5, HasMaster)), Some(9)), None);
        // Nobody wrote down when the node was started: another program started it, or there was no disk for notes.
        assert_eq!(master(None, None, Some(7)), Some((epoch(7), HasMaster)));
        assert_eq!(master(None, None, None), Some((Epoch::default(), HasMaster)));
        assert_eq!(master(Some(&started(None, false)), None, Some(7)), Some((epoch(7), HasMaster)));
        assert_eq!(master(None, Some(&note(7, HasMaster)), Some(7)), None);
        assert_eq!(master(None, Some(&note(7, HasMaster)), Some(9)), None, "there was a reset after it");
        assert_eq!(
            master(None, Some(&note(0, HasMaster)), Some(9)),
            Some((epoch(9), HasMaster)),
            "it was unknown"
        );
    }

    #[test]
    fn node_that_cannot_be_seen_is_noted_once_it_was_given_the_list() {
        let hidden = |started: Option<&Started>, note: Option<&Note>| {
            to_note(Sighting::Hidden, started, note, Some(epoch(9)))
        };
        let given = Some((epoch(5), Evidence::GivenTheList));
        assert_eq!(hidden(Some(&started(Some(5), true)), None), given);
        assert_eq!(hidden(Some(&started(Some(5), true)), Some(&note(4, Evidence::HasMaster))), given);
        for known in [Evidence::GivenTheList, Evidence::HasMaster] {
            assert_eq!(hidden(Some(&started(Some(5), true)), Some(&note(5, known))), None);
        }
        assert_eq!(hidden(Some(&started(Some(5), false)), None), None, "it was told to join");
        assert_eq!(hidden(None, None), None);
        assert_eq!(to_note(Sighting::Nothing, Some(&started(Some(5), true)), None, None), None);
    }

    #[test]
    fn mark_is_put_with_the_notes_epoch_unless_etcd_has_a_greater_one() {
        let mark = |stored: Option<u64>, is_marked| to_mark(epoch(5), stored.map(epoch), is_marked);
        assert_eq!(mark(Some(6), false), Mark::OlderThan(epoch(6)));
        assert_eq!(mark(Some(6), true), Mark::OlderThan(epoch(6)));
        assert_eq!(mark(Some(5), true), Mark::Known);
        assert_eq!(mark(Some(5), false), Mark::Missing { with_epoch: false });
        // Etcd lost its data, or was restored from an old backup.
        for stored in [None, Some(4)] {
            assert_eq!(mark(stored, true), Mark::Missing { with_epoch: true });
            assert_eq!(mark(stored, false), Mark::Missing { with_epoch: true });
        }
        assert_eq!(to_mark(epoch(0), None, false), Mark::Missing { with_epoch: false });
    }
}
