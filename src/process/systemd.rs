//! What systemd is told over its notification socket (sd_notify(3)): only when there is one.
//!
//! A message never waits: systemd may be busy or frozen, and its socket full. The crate sd-notify
//! waits, and knows no abstract sockets.

use std::{
    cell::RefCell,
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

use tracing::debug;

/// How often the status line is brought up to date, unless the watchdog wants to hear more.
const EVERY: Duration = Duration::from_secs(5);
/// Bytes of a status line, at most. systemd ignores messages of more than 4096 (`NOTIFY_BUFFER_MAX` in its
/// notify-recv.h), together with the state in them.
const LONGEST: usize = 2048;

/// The service manager that started us.
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    every: Duration,
    /// What happened and did not arrive yet, in order. systemd acts on each of these, so they are
    /// repeated; it does not matter when a status line or a sign of life is lost.
    owed: RefCell<Vec<&'static str>>,
}

impl Manager {
    /// The one whose socket `NOTIFY_SOCKET` names; none where that is not set or no socket of Unix.
    pub fn from_env() -> Option<Self> {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        let connect = || -> io::Result<Self> {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Self { socket, address: address(&name)?, every: every(), owed: RefCell::default() })
        };
        connect().inspect_err(|error| debug!(?name, %error, "no way to tell systemd")).ok()
    }

    /// How often it wants to hear from us: a third of `WATCHDOG_USEC`, and every 5 s at least.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// `READY=1`, and the status line.
    pub fn ready(&self, status: &str) {
        self.owed.borrow_mut().push("READY=1\n");
        self.send("", status);
    }

    /// `WATCHDOG=1`, the status line, and what did not arrive before.
    pub fn alive(&self, status: &str) {
        self.send("WATCHDOG=1\n", status);
    }

    /// `STOPPING=1`, and the status line.
    pub fn stopping(&self, status: &str) {
        self.owed.borrow_mut().push("STOPPING=1\n");
        self.send("", status);
    }

    fn send(&self, sign: &str, status: &str) {
        let mut owed = self.owed.borrow_mut();
        let message = format!("{}{sign}STATUS={}\n", owed.concat(), cut(status));
        match self.socket.send_to_addr(message.as_bytes(), &self.address) {
            Ok(_) => owed.clear(),
            // Whoever set up the socket and took it away again is not our concern: the key is.
            Err(error) => debug!(%error, "systemd does not listen"),
        }
    }
}

/// At most [`LONGEST`] bytes of `status`.
fn cut(status: &str) -> &str {
    let end = (0..=LONGEST.min(status.len())).rev().find(|&end| status.is_char_boundary(end));
    &status[..end.unwrap_or_default()]
}

/// What `NOTIFY_SOCKET` names: a path, or an abstract socket where it begins with `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None if name.as_bytes().starts_with(b"/") => SocketAddr::from_pathname(name),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn every() -> Duration {
    let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    // The limit is for the process that `WATCHDOG_PID` names, or for any (sd_watchdog_enabled(3)).
    let is_ours =
        env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(process::id().into());
    // An interval of zero would be none.
    let limit = number("WATCHDOG_USEC").filter(|limit| is_ours && *limit > 0);
    limit.map_or(EVERY, |limit| EVERY.min(Duration::from_micros(limit) / 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_line_is_cut_at_the_end_of_a_character() {
        assert_eq!(cut("announced"), "announced");
        let long = format!("x{}", "\u{b7}".repeat(LONGEST));
        assert_eq!(cut(&long), &long[..LONGEST - 1]);
        assert_eq!(cut(&"x".repeat(LONGEST + 1)).len(), LONGEST);
    }
}
