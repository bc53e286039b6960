//! Tells systemd about our state over its notification socket (sd_notify(3)), if there is one.
//!
//! A message never waits: systemd may be busy or frozen, and its socket full. The crate sd-notify would wait, and does
//! not support abstract sockets.

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

/// How often the status line is sent, unless the watchdog wants to hear from us more often.
const EVERY: Duration = Duration::from_secs(5);
/// The longest status line in bytes. systemd ignores messages of more than 4096 bytes (`NOTIFY_BUFFER_MAX` in its
/// notify-recv.h), with the state in them.
const LONGEST: usize = 2048;

/// The service manager that started us.
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    every: Duration,
    /// The states that did not arrive yet, in order. systemd acts on each of them, so they are sent again. It does not
    /// matter if a status line or a `WATCHDOG=1` is lost.
    owed: RefCell<Vec<&'static str>>,
}

impl Manager {
    /// The manager whose socket `NOTIFY_SOCKET` names. `None` if the variable is not set, or names no Unix socket.
    pub fn from_env() -> Option<Self> {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        let connect = || -> io::Result<Self> {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Self { socket, address: address(&name)?, every: every(), owed: RefCell::default() })
        };
        connect().inspect_err(|error| debug!(?name, %error, "no way to tell systemd")).ok()
    }

    /// How often we must send something: a third of `WATCHDOG_USEC`, and at most 5 s.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Sends `READY=1` and the status line.
    pub fn ready(&self, status: &str) {
        self.owed.borrow_mut().push("READY=1\n");
        self.send("", status);
    }

    /// Sends `WATCHDOG=1`, the status line, and what did not arrive before.
    pub fn alive(&self, status: &str) {
        self.send("WATCHDOG=1\n", status);
    }

    /// Sends `STOPPING=1` and the status line.
    pub fn stopping(&self, status: &str) {
        self.owed.borrow_mut().push("STOPPING=1\n");
        self.send("", status);
    }

    fn send(&self, sign: &str, status: &str) {
        let mut owed = self.owed.borrow_mut();
        let message = format!("{}{sign}STATUS={}\n", owed.concat(), cut(status));
        match self.socket.send_to_addr(message.as_bytes(), &self.address) {
            Ok(_) => owed.clear(),
            // If somebody removed the socket, we go on: the key is more important.
            Err(error) => debug!(%error, "systemd does not listen"),
        }
    }
}

/// The first [`LONGEST`] bytes of `status` at most, up to the end of a character.
fn cut(status: &str) -> &str {
    let end = (0..=LONGEST.min(status.len())).rev().find(|&end| status.is_char_boundary(end));
    &status[..end.unwrap_or_default()]
}

/// The address that `NOTIFY_SOCKET` names: a path, or an abstract socket if it begins with `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None if name.as_bytes().starts_with(b"/") => SocketAddr::from_pathname(name),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn every() -> Duration {
    let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    // The limit is for the process that `WATCHDOG_PID` names, or for any process if that is not set
    // (sd_watchdog_enabled(3)).
    let is_ours =
        env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(process::id().into());
    // An interval of zero means that there is none.
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
