//! What a host remembers of its node on its own disk, and what is to be noted when: pure.

use serde::{Deserialize, Serialize};

use super::{epoch::Epoch, machine::MachineId};
use crate::host::Host;

/// A host's note that its node is in a cluster, or has been given the list of the first masters: from then on nobody may
/// tell it to elect again, unless a reset begins a greater epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Note {
    /// The prefix in etcd that the cluster is announced under.
    pub prefix: String,
    /// Where the node runs. On another machine, as on a clone's disk, the note is void.
    pub machine: MachineId,
    /// CrateDB's `node.name`, as far as it is known. For the reader alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// CrateDB's `cluster.name`, as far as it is known. For the reader alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The epoch that the node was started in.
    pub epoch: Epoch,
    /// How it is known.
    pub evidence: Evidence,
}

/// How it is known that a node is in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// It was given the list, and could be joined after that. More cannot be seen of it: it wants a password, or there
    /// is no `crate://` check.
    GivenTheList,
    /// It answered that it has a master.
    HasMaster,
}

impl Note {
    /// Whether the note counts where etcd has this epoch. Only a greater one voids it: an epoch that is absent, smaller
    /// or the same is that of a store which lost its data, or was restored, or is the note's own.
    pub fn holds(&self, stored: Epoch) -> bool {
        stored <= self.epoch
    }
}

/// What `bootstrap` answered when the node was last started: written down before the node can act on it, because the node
/// belongs to that epoch, and not to one that is read later.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Started {
    /// The prefix in etcd.
    pub prefix: String,
    /// Where.
    pub machine: MachineId,
    /// CrateDB's `node.name`.
    pub node: Host,
    /// The epoch at that time. None where etcd could not be asked.
    pub epoch: Option<Epoch>,
    /// Whether it was given the list.
    pub elects: bool,
}

/// What can be seen of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sighting {
    /// It has a master.
    HasMaster,
    /// It can be joined, and nothing else can be seen of it.
    Hidden,
    /// None of that now.
    Nothing,
}

/// The epoch and the evidence of the note that has to be written now, if one has to. `stored` is etcd's epoch, or none
/// where it is not known; it counts only for a node of which nobody wrote down when it was started.
pub fn to_note(
    seen: Sighting,
    started: Option<&Started>,
    note: Option<&Note>,
    stored: Option<Epoch>,
) -> Option<(Epoch, Evidence)> {
    let start = started.and_then(|started| started.epoch);
    let (epoch, evidence) = match seen {
        Sighting::HasMaster => (start.or(stored).unwrap_or_default(), Evidence::HasMaster),
        Sighting::Hidden if started.is_some_and(|started| started.elects) => (start?, Evidence::GivenTheList),
        Sighting::Hidden | Sighting::Nothing => return None,
    };
    let is_known = note.is_some_and(|note| {
        note.epoch > epoch
            || (note.epoch == epoch && (note.evidence == evidence || note.evidence == Evidence::HasMaster))
    });
    (!is_known).then_some((epoch, evidence))
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
        // Nobody wrote down when it was started: it was another program, or no disk was there.
        assert_eq!(master(None, None, Some(7)), Some((epoch(7), HasMaster)));
        assert_eq!(master(None, None, None), Some((Epoch::default(), HasMaster)));
        assert_eq!(master(Some(&started(None, false)), None, Some(7)), Some((epoch(7), HasMaster)));
        assert_eq!(master(None, Some(&note(7, HasMaster)), Some(7)), None);
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
}
