//! Who may elect the first master: what is stored for it, and the rules.
//!
//! Candidates register, each under a lease of its own. Once `expect` of them have been there for a while, one
//! transaction freezes the list of the first ones, and everybody is given that list until the cluster has formed. From
//! then on the answer is "join". A process looks at all of it at one revision, [`decide`]s, does that one step, and
//! looks again whatever came of it: so a request or an answer that is lost needs no rule of its own.
//!
//! A host whose node has been in a cluster remembers that in a [`Note`] on its own disk, so that an etcd which lost its
//! data cannot make it elect a second one. Each list and each note belongs to an [`Epoch`]; only a reset, or the list of
//! a new cluster, begins a greater one, and only a greater one voids a note.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `stored` | what is stored in etcd, as JSON and as one [`View`] |
//! | `rules` | what to do next: pure, no clock |
//! | `settling` | since when all candidates have been there |
//! | `epoch` | the number that grows with each new beginning |
//! | `note` | what a host remembers, and what is to be noted when: pure |
//! | `memory` | the host's notes on its own disk |
//! | `machine` | which machine this is, and which boot of it |

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
    note::{Evidence, Note, Sighting, Started, to_note},
    rules::{Answer, Asker, Change, Cluster, Condition, Obstacle, Step, decide, is_reset, reset},
    settling::Settling,
    stored::{Candidate, Formed, List, Listed, MOST_LISTED, Registered, Said, View},
};

#[cfg(test)]
mod tests;
