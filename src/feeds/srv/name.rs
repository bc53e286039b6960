//! The names in questions and answers: that of the service, and those of the nodes.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use simple_dns::Name;

use crate::snapshot::Node;

/// The longest label, in bytes (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;
/// The longest name as text, in bytes, without the dot at the end (RFC 1035, section 2.3.4: 255 bytes encoded).
const MAX_NAME: usize = 253;

/// The name that CrateDB asks for: labels of `[A-Za-z0-9_-]`. It is kept without a dot at the end. Upper and lower case
/// match each other in a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(String);

/// Why a text is no [`ServiceName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("allowed is a DNS name such as _crate._tcp.crate.local: labels of 1 to 63 of A-Z a-z 0-9 _ -")]
pub struct InvalidServiceName;

impl ServiceName {
    /// The name as it is sent.
    pub(super) fn name(&self) -> Name<'_> {
        // The name was checked when it was parsed.
        Name::new_unchecked(&self.0)
    }
}

impl Default for ServiceName {
    /// The default is `_crate._tcp.crate.local`, in a zone that no public server has.
    fn default() -> Self {
        Self("_crate._tcp.crate.local".to_owned())
    }
}

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(text: &str) -> Result<Self, InvalidServiceName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if is_name(text) && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidServiceName)
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a node can be joined, as the target of an SRV record.
pub(super) struct Target<'a> {
    text: Cow<'a, str>,
    /// The address, if the node announced an address and not a name.
    pub ip: Option<IpAddr>,
    /// CrateDB's transport port.
    pub port: u16,
}

impl<'a> Target<'a> {
    /// The target of `node`. `None` if its host is no DNS name, such as `a..b`.
    ///
    /// CrateDB gives the target, without its last dot, and the port to the parser of its seed hosts. The JVM resolves
    /// the name, and not we (`SrvUnicastHostsProvider.parseRecords`, `TcpTransport.parse`). So an address is written as
    /// a name that this parser reads as an address: `10.0.0.5.`, as in CrateDB's own `blackbox/test_dns_discovery.py`,
    /// and `[2001:db8::1].` for IPv6. A label may hold any byte (RFC 2181, section 11).
    pub fn of(node: &'a Node) -> Option<Self> {
        let host = node.announcement.address.as_ref().unwrap_or(&node.host);
        let ip = host.ip();
        let text = match ip {
            Some(ip @ IpAddr::V6(_)) => Cow::Owned(Self::text_of(ip)),
            _ => Cow::Borrowed(host.as_str().strip_suffix('.').unwrap_or(host.as_str())),
        };
        is_name(&text).then(|| Self { text, ip, port: node.announcement.transport.get() })
    }

    /// The [`Self::text`] for an address.
    pub fn text_of(ip: IpAddr) -> String {
        match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        }
    }

    /// The target as a name: labels of 1 to 63 bytes with dots between them, at most 253 bytes, without the last dot.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The size of the name in bytes as it is sent, without compression.
    pub fn encoded_len(&self) -> usize {
        // Each label has a length before it, instead of a dot between two, and the root has one more byte.
        self.text.len() + 2
    }
}

/// The address for which `name` is the [`Target::text`], if it is one.
pub(super) fn literal(name: &Name<'_>) -> Option<IpAddr> {
    let text = name.to_string();
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(text) => text.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('.').all(|label| (1..=MAX_LABEL).contains(&label.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::announcement::Announcement;

    fn node(host: &str) -> Node {
        let announcement = Announcement::from_json(br#"{"http":4200,"transport":4300}"#).unwrap();
        Node { host: host.parse().unwrap(), announcement }
    }

    fn text(host: &str) -> Option<String> {
        Target::of(&node(host)).map(|target| target.text().to_owned())
    }

    #[test]
    fn a_target_is_what_crate_db_parses() {
        assert_eq!(text("crate1").as_deref(), Some("crate1"));
        assert_eq!(text("crate_1.example.com.").as_deref(), Some("crate_1.example.com"));
        assert_eq!(text("10.0.0.5").as_deref(), Some("10.0.0.5"));
        assert_eq!(text("2001:DB8:0::1").as_deref(), Some("[2001:db8::1]"));
        assert_eq!(text("::ffff:10.0.0.5").as_deref(), Some("[::ffff:10.0.0.5]"));
    }

    #[test]
    fn a_host_that_is_no_name_is_no_target() {
        for host in ["a..b", &"x".repeat(64), &format!("a.{}.b", "x".repeat(64))] {
            assert_eq!(text(host), None, "{host}");
        }
    }

    #[test]
    fn the_address_address_beats_the_host() {
        let mut node = node("crate1");
        node.announcement.address = Some("10.0.0.5".parse().unwrap());
        assert_eq!(Target::of(&node).unwrap().ip, Some("10.0.0.5".parse().unwrap()));
    }

    #[test]
    fn a_service_name_has_labels() {
        for good in ["_crate._tcp.crate.local", "_crate._srv.Example.com.", "crate", &"x".repeat(63)] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good:?}");
        }
        let long = format!("{}.a", "x".repeat(64));
        let longer = "x.".repeat(127) + "x";
        for bad in ["", ".", "..", ".a", "a..b", "a b", "a/b", "ä", "*.a", "a\\.b", &long, &longer] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_read_back_from_its_name(ip in any::<IpAddr>()) {
            let node = node(&ip.to_string());
            let target = Target::of(&node).unwrap();
            let name = Name::new_unchecked(target.text());
            prop_assert_eq!(literal(&name), Some(ip));
            prop_assert_eq!(target.encoded_len(), name.as_bytes().map(|l| l.len() + 1).sum::<usize>() + 1);
        }

        #[test]
        fn every_service_name_can_be_asked_for(text in "[a-z_.-]{0,70}") {
            if let Ok(service) = text.parse::<ServiceName>() {
                prop_assert_eq!(service.name().to_string(), service.to_string());
            }
        }
    }
}
