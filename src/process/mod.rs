//! The process as the outside sees it: signals, logs, systemd. Only `main` uses it.

pub mod logging;
pub mod shutdown;
mod stderr;
pub(crate) mod systemd;
