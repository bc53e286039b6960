//! Decides who may elect the first master: what is stored for that, and the rules.
//!
//! Candidates register, each with a lease of its own. Once `expect` of them have been there for a while, one
//! transaction freezes the list of the first ones. Every node gets that list until the cluster has formed; from then on
//! the answer is "join". A process reads everything at one revision, [`decide`]s, makes that one step, and reads again,
//! whatever the result was. So a lost request or a lost answer needs no rule of its own.
//!
//! If the node of a host has been in a cluster, the host remembers that in a [`Note`] on its own disk. So an etcd that
//! lost its data cannot make the node elect a second master. Each list and each note belongs to an [`Epoch`]. Only a
//! reset, or the list of a new cluster, begins a greater epoch, and only a greater epoch makes a note void.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `stored` | what is stored in etcd, as JSON and as one [`View`] |
//! | `rules` | what to do next: pure, no clock |
//! | `settling` | since when all candidates are there |
//! | `epoch` | the number that grows with each new beginning |
//! | `note` | what a host remembers, and when it has to be noted: pure |
//! | `memory` | the host's notes on its own disk |
//! | `machine` | ids of this machine and of its boot |

mod epoch;
mod machine;
mod memory;
mod note;
mod rules;
mod settling;
mod stored;

pub use self::{
    epoch::{Epoch, InvalidEpoch},
    machine::{BootId, MachineId, NoMachineId},
    memory::Memory,
    note::{Evidence, Mark, Note, Sighting, Started, to_mark, to_note},
    rules::{Answer, Asker, Change, Cluster, Condition, Obstacle, Step, decide, is_reset, reset, started_in},
    settling::Settling,
    stored::{Candidate, Formed, List, Listed, MOST_LISTED, Registered, Said, View},
};

#[cfg(test)]
mod tests;
