//! Where snapshots go.

pub mod file;
