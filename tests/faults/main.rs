//! The faults of `docs/design.md`, "Faults": one module a theme, tests named after what must happen.
//!
//! `Row 22` in a comment, here and in every other test, is the row of that number in that table. Bounds are those of the
//! table, plus [`support::SLACK`] for a busy machine.

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod between;
mod certificates;
mod checks;
mod cluster;
mod crowded;
mod gate;
mod lies;
mod login;
mod lookout;
mod lookups;
mod names;
mod password;
mod past;
mod quiet;
mod refusals;
mod rivals;
mod single;
mod slow;
mod stderr;
mod strangers;
mod tls;
mod unreachable;
mod withdrawal;

use std::time::Duration;

use support::{DEFAULT_VALUE, etcd::Etcd, eventually, key_of};

/// Long enough for a lease of [`TTL`] to end, even one that etcd prolonged when it started: TTL,
/// election, expiry scan.
pub const OUTLIVED: Duration = Duration::from_secs(8);

/// The key of the one host that these tests announce.
pub fn key() -> String {
    key_of("h1")
}

/// The key is there again: announced, under a lease that lives.
#[track_caller]
pub fn is_back(etcd: &Etcd, within: Duration) {
    eventually("the key is back under a living lease", within, || {
        let stored = etcd.key(&key()).ok_or("no key")?;
        let state = etcd.lease(stored.lease);
        if stored.value == DEFAULT_VALUE && state.contains("remaining(") {
            Ok(())
        } else {
            Err(format!("{stored:?} {state}"))
        }
    });
}
