//! The process and its surroundings: signals, the log, and systemd. `main` uses signals and log, `announce` uses
//! systemd.

pub mod logging;
pub mod shutdown;
mod stderr;
pub(crate) mod systemd;
