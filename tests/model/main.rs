//! Every interleaving of two announcers of one key with an etcd that fails: the state machine of
//! `announcer/state.rs` itself, explored breadth first.
//!
//! A world is two [`Machine`](crate_discovery::announcer::state::Machine)s, the key, the leases that
//! live, and requests that are still on their way although nobody waits for them any more. What
//! happens by itself is a *step*: a request is acted on and answered, a late one arrives, a lease
//! that nobody keeps alive expires, the time for ending is up. Everything else is a *fault*: an answer
//! or a request is lost, late or refused; etcd ends a lease or loses its data; somebody's hand is on
//! the key; a process is stopped, killed or started, or its gate moves. Every order of every step is
//! explored with up to [`FAULTS`] faults. A world is met with as few of them behind it as it can be,
//! so that their number need not be part of it.
//!
//! Asking, acting and answering are one step although time passes between them. Nothing is lost by
//! that: an answer on its way concerns only the one who waits for it, and what can reach that one
//! meanwhile, gate and shutdown, changes nothing in etcd; it may as well have come before or after.
//! What remains of a wait that was given up, a request without its asker, is the fault *late*.
//!
//! The rules for every world and every change are in `rules.rs`. Beyond them, from every world that
//! is met, faults behind it or not, all paths without further faults have an end, and at each end
//! exactly one healthy announcer holds the key, if there is one.
//!
//! `CRATE_DISCOVERY_MODEL_FAULTS=4 cargo test --release --test model -- --nocapture` looks deeper; it
//! takes some GB.

mod announcer;
mod bootstrap;
mod changes;
mod etcd;
mod explore;
mod forming;
mod quick;
mod rules;
mod search;

use std::time::Instant;

use self::explore::Explored;

/// How many faults, unless the environment says otherwise.
const FAULTS: usize = 3;
/// Fewer worlds than this mean that the model has become trivial.
const FLOOR: usize = 500_000;

#[test]
fn every_interleaving_of_two_announcers_and_a_failing_etcd() {
    let asked = std::env::var("CRATE_DISCOVERY_MODEL_FAULTS").ok();
    let faults = asked.map_or(FAULTS, |faults| faults.parse().expect("a number of faults"));
    let started = Instant::now();
    let mut explored = Explored::default();
    explored.explore(faults);
    let (steps, holders) = explored.settle();
    println!(
        "{} worlds, {} states of an announcer, up to {faults} faults, {:.1?}; without further faults each settles \
         within {steps} steps and {holders} changes of the holder; {} late grants left a lease without a key",
        explored.worlds.len(),
        explored.model.known.len(),
        started.elapsed(),
        explored.model.strays,
    );
    assert!(explored.worlds.len() > FLOOR || faults < FAULTS, "only {} worlds", explored.worlds.len());
}
