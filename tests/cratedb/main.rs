//! What our units, our compose file and our gate rely on in a CrateDB. These tests hold the stand-in to
//! what was seen on real servers; with `TEST_CRATE_IMAGE` (`make test-cratedb`) they hold a real one to it.
//! What takes steering, and so the stand-in, is in [`stand_in`].

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod clusters;
mod dns_server;
mod image;
mod node;
mod seeds;
mod stand_in;
mod starts;
