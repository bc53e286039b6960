//! The protocol as a host asks it: the real functions, and what may be wrong with them on purpose.

use std::time::{Duration, UNIX_EPOCH};

use crate_discovery::{
    bootstrap::{
        self, Answer, Asker, BootId, Candidate, Change, Cluster, Epoch as RealEpoch, Evidence, Formed, List,
        Listed, MachineId, Mark, Note, Registered, Said, Sighting, Started, Step, View, started_in, to_mark,
        to_note,
    },
    lease::LeaseId,
};

use super::world::{Begun, Epoch, Host, Hosts, MOST, Noted, World};

/// What is wrong with the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    Nothing,
    /// A note is believed without asking.
    AnswersWithoutAsking,
    /// A note is void where etcd has any other epoch.
    VoidsOnOther,
    /// The epoch is a mere count.
    CountsEpochs,
    /// A note of any machine counts.
    TakesAnyMachinesNote,
    /// The mark is put whatever epoch is stored.
    MarksWhateverTheEpoch,
    /// A list is frozen as soon as there are enough candidates.
    DoesNotHold,
    /// A process takes the clock once, when it starts, for all its tries to freeze.
    KeepsItsFirstClock,
}

/// What a host does after it asked.
pub enum Does {
    /// Starts its node with this list, or with none, and writes down this epoch.
    Starts {
        given: Hosts,
        epoch: Option<Epoch>,
    },
    Waits,
    Registers,
    Freezes {
        list: Hosts,
        epoch: Epoch,
        begins_epoch: bool,
    },
}

pub struct Protocol {
    pub mutation: Mutation,
    candidates: Vec<Candidate>,
}

fn real(epoch: Epoch) -> RealEpoch {
    u64::from(epoch).try_into().expect("a small number is an epoch")
}

fn small(epoch: RealEpoch) -> Epoch {
    u8::try_from(u64::from(epoch)).expect("only small numbers are used")
}

fn stored(epoch: Epoch) -> Option<RealEpoch> {
    (epoch != 0).then(|| real(epoch))
}

impl Protocol {
    pub fn new(mutation: Mutation) -> Self {
        let candidate = |place: usize| {
            let id = format!("{:032}", place + 1);
            let machine = MachineId::derive(&id).expect("32 digits");
            let said = Said { expect: 0, machine, boot: BootId::derive(&id), saw_etcd_fail: false };
            Candidate { name: format!("h{place}").parse().expect("a name"), said }
        };
        Self { mutation, candidates: (0..MOST).map(candidate).collect() }
    }

    fn candidate(&self, world: &World, place: usize) -> Candidate {
        let mut candidate = self.candidates[place].clone();
        candidate.said.expect = world.expect.into();
        candidate
    }

    fn list(&self, hosts: Hosts, epoch: Epoch) -> List {
        let listed = |place: usize| Listed {
            name: self.candidates[place].name.clone(),
            machine: self.candidates[place].said.machine.clone(),
        };
        let nodes = (0..MOST).filter(|place| hosts & 1 << place != 0).map(listed).collect();
        List { epoch: stored(epoch), nodes }
    }

    fn hosts(&self, list: &List) -> Hosts {
        let place = |name| self.candidates.iter().position(|candidate| candidate.name == name);
        list.nodes.iter().fold(0, |hosts, node| hosts | 1 << place(node.name.clone()).expect("a host"))
    }

    fn view(&self, world: &World) -> View {
        let mut seats: Vec<usize> = world.places().filter(|place| world.hosts[*place].seat != 0).collect();
        seats.sort_by_key(|place| world.hosts[*place].seat);
        let registered = |place: usize| {
            let seat = world.hosts[place].seat.into();
            Registered {
                candidate: self.candidate(world, place),
                create_revision: seat,
                mod_revision: seat,
                lease: session(place),
            }
        };
        let now = &world.stored;
        View {
            candidates: seats.into_iter().map(registered).collect(),
            epoch: stored(now.epoch).map(|epoch| (1, Ok(epoch))),
            list: (now.list != 0).then(|| (1, Ok(self.list(now.list, now.list_epoch)))),
            formed: now.is_formed.then(|| (1, Formed { by: String::new(), epoch: None })),
            announced: world.is_anybody_announced().then(String::new),
        }
    }

    /// The note that a host finds on its disk, as `bootstrap::Memory` gives it.
    pub fn note(&self, host: &Host) -> Option<Noted> {
        host.note.filter(|note| !note.is_foreign || self.mutation == Mutation::TakesAnyMachinesNote)
    }

    fn real_note(&self, host: &Host) -> Option<Note> {
        self.note(host).map(|note| Note {
            prefix: String::new(),
            machine: self.candidates[0].said.machine.clone(),
            node: None,
            cluster: None,
            epoch: real(note.epoch),
            evidence: if note.has_master { Evidence::HasMaster } else { Evidence::GivenTheList },
        })
    }

    fn clock(&self, world: &World) -> std::time::SystemTime {
        let now = if self.mutation == Mutation::CountsEpochs { 0 } else { world.latest + 1 };
        UNIX_EPOCH + Duration::from_millis(now.into())
    }

    /// What a host does whose `bootstrap` asks etcd.
    pub fn ask(&self, world: &World, place: usize, settled: bool) -> Does {
        let (view, me) = (self.view(world), self.candidate(world, place));
        let epoch = view.epoch().unwrap_or_default();
        let mut note = self.real_note(&world.hosts[place]);
        if let Some(note) = &note
            && self.mutation == Mutation::AnswersWithoutAsking
        {
            return Does::Starts { given: 0, epoch: Some(small(note.epoch)) };
        }
        note = note.filter(|note| self.mutation != Mutation::VoidsOnOther || note.epoch == epoch);
        let fresh = match self.mutation {
            Mutation::KeepsItsFirstClock => real(1),
            _ => RealEpoch::default().next(self.clock(world)),
        };
        let session = if world.hosts[place].seat == 0 { None } else { session(place) };
        let asker = Asker { me: &me, session, note: note.as_ref(), settled, fresh };
        match bootstrap::decide(&view, asker) {
            Step::Done(answer) => {
                let held = note.as_ref().filter(|note| note.holds(epoch));
                let epoch = started_in(&answer, held, stored(world.stored.epoch)).map(small);
                let given = if let Answer::Elect(list) = answer { self.hosts(&list) } else { 0 };
                Does::Starts { given, epoch }
            }
            Step::Refuse(_) | Step::Wait(_) => Does::Waits,
            Step::Change(Change::Register, _) => Does::Registers,
            Step::Change(Change::Freeze { list, begins_epoch }, _) => {
                Does::Freezes { list: self.hosts(&list), epoch: list.epoch.map_or(0, small), begins_epoch }
            }
            Step::Change(Change::Reset(_), _) => unreachable!("nobody asks for it"),
        }
    }

    /// What a host does that cannot ask, as `verbs/bootstrap/ask.rs` has it.
    pub fn without_etcd(&self, host: &Host) -> Does {
        let note = self.real_note(host);
        let cluster = if note.is_some() { Cluster::NotedAlone } else { Cluster::NodeData };
        let epoch = started_in(&Answer::Join(cluster), note.as_ref(), None).map(small);
        if note.is_some() || host.has_run { Does::Starts { given: 0, epoch } } else { Does::Waits }
    }

    /// The note that a sidekick has to write now, if it has to. `epoch` is etcd's, or none where it cannot be asked.
    pub fn to_note(&self, host: &Host, seen: Sighting, epoch: Option<Epoch>) -> Option<Noted> {
        let started = host.started.map(|Begun { epoch, elects }| Started {
            prefix: String::new(),
            machine: self.candidates[0].said.machine.clone(),
            node: self.candidates[0].name.clone(),
            epoch: epoch.map(real),
            elects,
        });
        let epoch = epoch.and_then(stored);
        let noted = to_note(seen, started.as_ref(), self.real_note(host).as_ref(), epoch);
        noted.map(|(epoch, evidence)| Noted {
            epoch: small(epoch),
            has_master: evidence == Evidence::HasMaster,
            is_foreign: false,
        })
    }

    /// Whether a sidekick has to put the mark, and whether with the epoch of its note.
    pub fn to_mark(&self, world: &World, host: &Host, noted: Epoch) -> Option<bool> {
        let now = &world.stored;
        if self.mutation == Mutation::MarksWhateverTheEpoch {
            return (!now.is_formed).then_some(now.epoch < noted);
        }
        let is_before = |begun: Begun| begun.epoch.is_some_and(|epoch| now.epoch > epoch);
        if host.started.is_some_and(is_before) {
            return None;
        }
        match to_mark(real(noted), stored(now.epoch), now.is_formed) {
            Mark::Missing { with_epoch } => Some(with_epoch),
            Mark::Known | Mark::OlderThan(_) => None,
        }
    }

    /// The epoch that a reset begins.
    pub fn reset(&self, world: &World) -> Epoch {
        let view = self.view(world);
        let wanted = view.epoch().unwrap_or_default().next(self.clock(world));
        match bootstrap::reset(&view, wanted).0 {
            Change::Reset(epoch) => small(epoch),
            _ => unreachable!("a reset resets"),
        }
    }
}

fn session(place: usize) -> Option<LeaseId> {
    LeaseId::from_etcd(i64::try_from(place).expect("a small number") + 1)
}
