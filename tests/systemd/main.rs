//! The units, on a real systemd with a real docker engine beside it: see [`host`]. Every key is read
//! back from an etcd outside of the host, by a witness that is not our code.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod cluster;
mod crowd;
mod failures;
mod formation;
mod host;
mod lifecycle;
mod memory;
mod readme;
mod settings;
mod waiting;

use support::key_of;

/// The node of these tests.
pub const NODE: &str = "crate@1.service";
/// Its sidekick.
pub const SIDEKICK: &str = "crate-discovery@1.service";
/// What asks etcd for its peers and first masters.
pub const SEEDS: &str = "crate-seeds@1.service";
/// What pulls its image.
pub const IMAGE: &str = "crate-image@1.service";

/// The key of the one host that most of these tests have.
pub fn key() -> String {
    key_of("h1")
}

/// Where etcd is, as a line of the environment file.
pub fn endpoints(url: &str) -> String {
    format!("ETCDCTL_ENDPOINTS={url}")
}
