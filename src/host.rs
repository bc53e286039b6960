//! The grammar of hosts and addresses, which is the same for writers and readers, and the default host.

mod judge;

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use self::judge::is_localhost;
pub use self::judge::{NotOwn, Unjoinable};

/// The longest name of a host, in bytes (RFC 1035, section 2.3.4, without the dot at the end).
const MAX_LEN: usize = 253;

/// A host or an address: an IP address, or 1 to 253 characters of `[A-Za-z0-9._-]` that do not begin with `-` or `.`.
///
/// It needs no quoting in an etcd key, on a command line, in a line of a file and in a shell assignment. Clones share
/// the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Arc<str>);

/// Why a text is no [`Host`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("allowed is an IP address, or 1 to 253 of A-Z a-z 0-9 . _ - not beginning with - or .")]
pub struct InvalidHost;

impl Host {
    /// The text, exactly as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The IP address, if this is an address and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// `host:port`. An IPv6 address gets brackets, because CrateDB requires them (`TcpTransport.parse`: "IPv6 addresses
    /// must be bracketed").
    pub fn with_port(&self, port: u16) -> String {
        match self.ip() {
            Some(IpAddr::V6(_)) => format!("[{}]:{port}", self.0),
            _ => format!("{}:{port}", self.0),
        }
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let is_name = (1..=MAX_LEN).contains(&text.len())
            && !text.starts_with(['-', '.'])
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if is_name || text.parse::<IpAddr>().is_ok() { Ok(Self(text.into())) } else { Err(InvalidHost) }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the host name of the system cannot be the default host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableDefault {
    /// Every machine is called `localhost`, so all would share one key.
    #[error("the system's host name {0:?} is every machine's")]
    Localhost(String),
    /// The random name of a container. Each new container would add a key.
    #[error("the system's host name {0:?} looks like a container id, a new one for each container")]
    ContainerId(String),
    /// It does not follow the grammar of [`Host`].
    #[error("the system's host name {0:?} cannot be used: {InvalidHost}")]
    Invalid(String),
}

/// The host to announce if none is configured. `name` is the host name of the system (`uname -n`).
///
/// # Errors
/// [`UnusableDefault`] if several machines would share the name, if it would change with each container, or if it is no
/// valid host.
pub(crate) fn default_host(name: &str) -> Result<Host, UnusableDefault> {
    if is_localhost(name) {
        return Err(UnusableDefault::Localhost(name.to_owned()));
    }
    let lower = name.to_ascii_lowercase();
    let is_hex = lower.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if is_hex && matches!(name.len(), 12 | 64) {
        return Err(UnusableDefault::ContainerId(name.to_owned()));
    }
    name.parse().map_err(|InvalidHost| UnusableDefault::Invalid(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_literals_are_hosts() {
        for good in ["a", "crate1", "a.b-c_d", "10.0.0.5", "::1", "2001:db8::1", &"x".repeat(253)] {
            assert!(good.parse::<Host>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn what_could_break_an_output_is_no_host() {
        let too_long = "x".repeat(254);
        for bad in [
            "",
            "-Cfoo=bar",
            ".a",
            "a,b",
            "a b",
            "a\n",
            "a\0",
            "a/b",
            "[::1]",
            "a:4300",
            "$(id)",
            "\u{1b}[0m",
            "münchen",
            "fe80::1%eth0",
            &too_long,
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_ipv6_literals_are_bracketed() {
        let seed = |host: &str| host.parse::<Host>().unwrap().with_port(4300);
        assert_eq!(seed("a"), "a:4300");
        assert_eq!(seed("10.0.0.5"), "10.0.0.5:4300");
        assert_eq!(seed("2001:db8::1"), "[2001:db8::1]:4300");
    }

    #[test]
    fn default_host_is_never_shared_or_random() {
        assert_eq!(default_host("db7").unwrap().as_str(), "db7");
        assert_eq!(default_host("beef").unwrap().as_str(), "beef");
        for shared in ["localhost", "LocalHost", "localhost.localdomain", "localhost."] {
            assert!(matches!(default_host(shared), Err(UnusableDefault::Localhost(_))), "{shared}");
        }
        for random in ["0123456789ab", &"4f".repeat(32)] {
            assert!(matches!(default_host(random), Err(UnusableDefault::ContainerId(_))), "{random}");
        }
        assert!(matches!(default_host("(none)"), Err(UnusableDefault::Invalid(_))));
    }

    proptest! {
        #[test]
        fn a_host_never_needs_quoting(text in ".*") {
            if let Ok(host) = text.parse::<Host>() {
                prop_assert!(host.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b".:_-".contains(&b)));
                prop_assert!(!host.as_str().starts_with('-'));
            }
        }
    }
}
