//! The verbs that read, one file each.

pub mod hosts;
pub mod status;
pub mod watch;
