//! The process as the outside sees it: signals, logs, systemd. `main` uses it, and `announce` what it tells systemd.

pub mod logging;
pub mod shutdown;
mod stderr;
pub(crate) mod systemd;
