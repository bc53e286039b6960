//! The signals that end the process: the first one asks it to end, the second one ends it at once.

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

/// The signals of which a second one ends the process. By default, each of them would end it at the first time, and a
/// key that is not withdrawn stays for a TTL.
const ASK_THEN_END: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM];

/// Registers the handlers; call it inside a tokio runtime. The future resolves with the number of the first signal. A
/// second signal ends the process at once with code 128 plus its number, even if the runtime hangs. SIGPIPE stays
/// ignored, because Rust starts programs in that way.
///
/// SIGHUP asks the process to end, too, but it never counts as the first or the second of two signals. A terminal that
/// is closed sends it more than once (the shell and the kernel do), and systemd with `SendSIGHUP=` sends it right after
/// SIGTERM. If SIGHUP was ignored when we were started (nohup), it stays ignored.
///
/// # Errors
/// The system refused a handler.
pub fn signals() -> io::Result<impl Future<Output = i32>> {
    let listen = |number| Ok((number, signal(SignalKind::from_raw(number))?));
    // These come before the flags, so that a signal that sets the flag is always heard.
    let mut first: Vec<(i32, Signal)> = ASK_THEN_END.into_iter().map(listen).collect::<io::Result<_>>()?;
    if !is_ignored(SIGHUP) {
        first.push(listen(SIGHUP)?);
    }
    let asked = Arc::new(AtomicBool::new(false));
    for number in ASK_THEN_END {
        // The order matters: at the first signal, the flag is still false here.
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

/// Whether the process ignores this signal, as Linux reports it. `false` if /proc cannot be read.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
