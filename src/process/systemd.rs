//! What systemd is told over its notification socket (sd_notify(3)): only when there is one.

use std::{env, time::Duration};

use sd_notify::NotifyState;
use tracing::debug;

/// How often the status line is brought up to date, unless the watchdog wants to hear more.
const EVERY: Duration = Duration::from_secs(5);

/// How often systemd wants to hear from us: a third of `WATCHDOG_USEC`, and every 5 s at least.
/// None where nobody listens, when `NOTIFY_SOCKET` is not set.
pub fn listens_every() -> Option<Duration> {
    env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())?;
    // An interval of zero would be none.
    let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
    Some(watchdog.map_or(EVERY, |limit| EVERY.min(limit / 3)))
}

/// `READY=1`, and the status line.
pub fn ready(status: &str) {
    notify(NotifyState::Ready, status);
}

/// `WATCHDOG=1`, and the status line.
pub fn alive(status: &str) {
    notify(NotifyState::Watchdog, status);
}

/// `STOPPING=1`, and the status line.
pub fn stopping(status: &str) {
    notify(NotifyState::Stopping, status);
}

fn notify(state: NotifyState, status: &str) {
    // Whoever set up the socket and took it away again is not our concern: the key is.
    if let Err(error) = sd_notify::notify(&[state, NotifyState::Status(status)]) {
        debug!(%error, "systemd does not listen");
    }
}
