//! The verbs that end by themselves, one file each.

pub mod bootstrap;
pub mod hosts;
pub mod status;
pub mod watch;
