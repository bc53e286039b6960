//! The process as the outside sees it: signals and logs. Only `main` uses it.

pub mod logging;
pub mod shutdown;
