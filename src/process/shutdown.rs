//! Signals that end the process: the first asks, the second ends it at once.

use std::{
    future::poll_fn,
    io,
    sync::{Arc, atomic::AtomicBool},
    task::Poll,
};

use signal_hook::{
    consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    flag,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals of which a second one ends the process. By default each of them ends a process, and a key
/// that is not withdrawn stays for a TTL.
const ASK_THEN_END: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM];

/// Registers the handlers, in a tokio runtime. The future resolves with the number of the first signal;
/// a second signal ends the process at once with 128 plus its number, even when the runtime is stuck.
/// SIGPIPE stays ignored, as Rust starts us.
///
/// SIGHUP asks, but neither is the first of two nor the second: a terminal that is closed sends it more
/// than once (the shell and the kernel do), and systemd with `SendSIGHUP=` right after SIGTERM. One that
/// was ignored when we were started (nohup) stays ignored.
///
/// # Errors
/// When the system refuses a handler.
pub fn signals() -> io::Result<impl Future<Output = i32>> {
    let listen = |number| Ok((number, signal(SignalKind::from_raw(number))?));
    // Before the flags: a signal that sets the flag is always heard.
    let mut first: Vec<(i32, Signal)> = ASK_THEN_END.into_iter().map(listen).collect::<io::Result<_>>()?;
    if !is_ignored(SIGHUP) {
        first.push(listen(SIGHUP)?);
    }
    let asked = Arc::new(AtomicBool::new(false));
    for number in ASK_THEN_END {
        // In this order: the first signal finds the flag still false.
        flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&asked))?;
        flag::register(number, Arc::clone(&asked))?;
    }
    Ok(poll_fn(move |context| {
        let heard = first.iter_mut().find_map(|(number, signal)| {
            matches!(signal.poll_recv(context), Poll::Ready(Some(()))).then_some(*number)
        });
        heard.map_or(Poll::Pending, Poll::Ready)
    }))
}

/// Whether the process ignores this signal, as Linux says; not where /proc cannot be read.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
