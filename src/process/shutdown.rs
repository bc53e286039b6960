//! SIGTERM and SIGINT: the first asks, the second ends.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use signal_hook_tokio::Signals;
use tokio_stream::StreamExt;

/// Registers the handlers. The future resolves with the number of the first signal; a second
/// signal ends the process at once with 128 plus its number, even when the runtime is stuck.
///
/// # Errors
/// When the system refuses a handler.
pub fn signals() -> io::Result<impl Future<Output = i32>> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag still false.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    Ok(async move {
        match signals.next().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    })
}
