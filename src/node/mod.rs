//! What we ask our own CrateDB.

mod any_certificate;
pub mod gate;
