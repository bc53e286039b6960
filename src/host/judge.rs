//! Finds hosts that must not be announced: names that every machine has, and addresses to which nobody can connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Host;

/// Why nobody can connect to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unjoinable {
    /// It is in 0.0.0.0/8, or it is `::`.
    #[error("it stands for no address")]
    Unspecified,
    /// It is in 224.0.0.0/4 or `ff00::/8`.
    #[error("it is a multicast address")]
    Multicast,
    /// It is 255.255.255.255.
    #[error("it is the broadcast address")]
    Broadcast,
    /// It is a word such as `_site_`, `_local_`, `_global_` or `_en0_`, which only the settings of CrateDB know.
    #[error("it is a word of CrateDB's settings, and no address")]
    Word,
}

/// Why a host cannot be announced with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOwn {
    /// Every machine has this name, so all would share one key.
    #[error("it is every machine's name")]
    Localhost,
    /// Nobody could connect to it.
    #[error(transparent)]
    Unjoinable(#[from] Unjoinable),
}

impl Host {
    /// Checks a name that is to be announced as the host's own.
    ///
    /// # Errors
    /// [`NotOwn`].
    pub fn judge_own(&self) -> Result<(), NotOwn> {
        if is_localhost(self.as_str()) {
            return Err(NotOwn::Localhost);
        }
        Ok(judge(self.as_str(), self.ip())?)
    }

    /// Checks an address at which others are told to connect. A name is not looked up.
    ///
    /// # Errors
    /// [`Unjoinable`].
    pub fn judge_joinable(&self) -> Result<(), Unjoinable> {
        judge(self.as_str(), self.address())
    }

    /// Whether it is a link-local address, which means something else on every link: 169.254.0.0/16 or `fe80::/10`.
    pub fn is_link_local(&self) -> bool {
        self.address().is_some_and(|ip| match ip.to_canonical() {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        })
    }

    /// The address that a resolver makes of it without a lookup.
    fn address(&self) -> Option<IpAddr> {
        self.ip().or_else(|| short_address(self.as_str()).map(Into::into))
    }
}

fn judge(text: &str, address: Option<IpAddr>) -> Result<(), Unjoinable> {
    if text.len() > 1 && text.starts_with('_') && text.ends_with('_') {
        return Err(Unjoinable::Word);
    }
    // ::ffff:0.0.0.0 counts as 0.0.0.0.
    let Some(address) = address.map(|address| address.to_canonical()) else { return Ok(()) };
    match address {
        IpAddr::V4(Ipv4Addr::BROADCAST) => Err(Unjoinable::Broadcast),
        // No packet can be sent to {0, <host>} either (RFC 1122, section 3.2.1.3).
        IpAddr::V4(ip) if ip.octets()[0] == 0 => Err(Unjoinable::Unspecified),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Err(Unjoinable::Unspecified),
        ip if ip.is_multicast() => Err(Unjoinable::Multicast),
        _ => Ok(()),
    }
}

/// Whether every machine has this name, in upper or lower case, with or without a dot at the end: the names in
/// /etc/hosts of Debian and Red Hat, and everything below `localhost` (RFC 6761, section 6.3).
pub(super) fn is_localhost(name: &str) -> bool {
    const FIRST: [&str; 5] = ["localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"];
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let first = name.split('.').next().unwrap_or_default();
    FIRST.contains(&first) || name.rsplit('.').next() == Some("localhost")
}

/// The IPv4 address in one of its old notations, which resolvers still accept (inet_aton(3)): `0`, `127.1`, `0x7f.1`.
fn short_address(text: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| {
        if let Some(hex) = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
            u32::from_str_radix(hex, 16).ok()
        } else if part.len() > 1 && part.starts_with('0') {
            u32::from_str_radix(part, 8).ok()
        } else {
            part.parse().ok()
        }
    };
    let parts: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    // The last part fills the bits that the others leave.
    let bits = 32 - 8 * first.len();
    if bits < 32 && *last >> bits != 0 {
        return None;
    }
    let high = first.iter().fold(0, |high, part| (high << 8) | part);
    let high = if first.is_empty() { 0 } else { high << bits };
    Some(Ipv4Addr::from(high | last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    #[test]
    fn name_of_every_machine_is_no_own_name() {
        for name in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "localhost.localdomain",
            "LocalHost.LocalDomain.",
            "localhost6.localdomain6",
            "ip6-localhost",
            "crate1.localhost",
        ] {
            assert_eq!(host(name).judge_own(), Err(NotOwn::Localhost), "{name}");
        }
        for name in ["localhost1", "my-localhost", "crate1", "db.localhost.example.org", "127.0.0.1", "::1"] {
            assert_eq!(host(name).judge_own(), Ok(()), "{name}");
        }
    }

    #[test]
    fn impossible_address_is_told_in_every_notation() {
        for (reason, texts) in [
            (
                Unjoinable::Unspecified,
                &["0.0.0.0", "0.1.2.3", "::", "0::0", "::ffff:0.0.0.0", "::ffff:0:0"][..],
            ),
            (Unjoinable::Multicast, &["224.0.0.1", "239.255.255.255", "ff02::1", "::ffff:224.0.0.1"]),
            (Unjoinable::Broadcast, &["255.255.255.255", "::ffff:255.255.255.255"]),
            (Unjoinable::Word, &["_site_", "_local_", "_global_", "_en0_", "__"]),
        ] {
            for text in texts {
                assert_eq!(host(text).judge_joinable(), Err(reason), "{text}");
                assert_eq!(host(text).judge_own(), Err(reason.into()), "{text}");
            }
        }
        for text in ["0", "0x0", "00", "0.0", "0.0.0", "000.0.0.0"] {
            assert_eq!(host(text).judge_joinable(), Err(Unjoinable::Unspecified), "{text}");
        }
        for text in ["4294967295", "255.16777215", "0377.0377.0377.0377"] {
            assert_eq!(host(text).judge_joinable(), Err(Unjoinable::Broadcast), "{text}");
        }
        for text in [
            "10.0.0.5",
            "127.0.0.1",
            "127.1",
            "::1",
            "::ffff:10.0.0.6",
            "2001:db8::1",
            "fe80::1",
            "_a",
            "a_",
            "7.a",
        ] {
            assert_eq!(host(text).judge_joinable(), Ok(()), "{text}");
        }
    }

    /// If an address is announced, too, a number is only a part of the key.
    #[test]
    fn number_is_a_name_like_any_other() {
        assert_eq!(host("0").judge_own(), Ok(()));
    }

    #[test]
    fn link_local_is_told_in_every_notation() {
        for text in ["169.254.0.1", "fe80::1", "febf::1", "::ffff:169.254.1.2", "169.16646401"] {
            assert!(host(text).is_link_local(), "{text}");
        }
        for text in ["169.255.0.1", "fec0::1", "crate1", "10.0.0.1"] {
            assert!(!host(text).is_link_local(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn old_notations_mean_what_they_mean_to_a_resolver(address in any::<u32>()) {
            let [a, b, c, d] = address.to_be_bytes();
            let (low, rest) = (address & 0xffff, address & 0xff_ffff);
            for text in [
                format!("{address}"),
                format!("0x{address:x}"),
                format!("{a}.{rest}"),
                format!("{a}.{b}.{low}"),
                format!("{a}.{b}.{c}.{d}"),
                format!("0{a:o}.0X{b:X}.{c}.{d}"),
            ] {
                prop_assert_eq!(short_address(&text), Some(Ipv4Addr::from(address)), "{}", text);
            }
        }

        #[test]
        fn no_name_makes_a_judge_panic(text in "[0-9a-fx.:_-]{1,40}") {
            if let Ok(host) = text.parse::<Host>() {
                let _ = (host.judge_own(), host.judge_joinable(), host.is_link_local());
            }
        }
    }
}
