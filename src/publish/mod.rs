//! Where snapshots go.

pub mod file;
pub mod keep;
