//! Where snapshots go.

pub mod file;
pub mod keep;
pub mod srv;
