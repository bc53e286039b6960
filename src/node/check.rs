//! One check of the node, as its URL describes it.

use std::{fmt, str::FromStr};

use http::Uri;

use crate::host::Host;

/// The HTTP port of CrateDB, if the URL has none.
const CRATEDB: u16 = 4200;

/// One check of the node.
///
/// - `tcp://host:port` only connects.
/// - `http://` and `https://` want any bytes as an answer, whatever the status is.
/// - `crate://host[:port]` and `crate+https://` want an answer that only CrateDB gives; see [`super::cratedb`].
///
/// Certificates are not verified: the node is our own, and its certificate hardly ever has the name by which it is
/// reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    url: String,
    pub(super) kind: Kind,
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) path: String,
}

/// The protocol of a check, and what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Http,
    Https,
    CrateDb,
    CrateDbOverTls,
}

impl FromStr for Check {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed is crate://host[:port], crate+https://host[:port], tcp://host:port, \
                               http://host[:port][/path] or https://host[:port][/path]";
        if url.contains('@') {
            return Err(format!("a check holds a user name: {ALLOWED}"));
        }
        let wrong = |why: &str| format!("check {url:?} {why}: {ALLOWED}");
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        let (kind, default_port) = match uri.scheme_str() {
            Some("tcp") => (Kind::Tcp, None),
            Some("http") => (Kind::Http, Some(80)),
            Some("https") => (Kind::Https, Some(443)),
            Some("crate") => (Kind::CrateDb, Some(CRATEDB)),
            Some("crate+https") => (Kind::CrateDbOverTls, Some(CRATEDB)),
            Some(_) => return Err(wrong("has another scheme")),
            None => return Err(wrong("has no scheme")),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let host = host.parse().map_err(|_| wrong("has no valid host"))?;
        // `Uri::port` is `None` without a port, and also with a port that is no number. The length of the authority
        // tells which it is.
        let named = uri.authority().is_some_and(|a| a.as_str().len() > uri.host().unwrap_or_default().len());
        let port = if named { uri.port_u16() } else { default_port };
        let port = port.filter(|port| *port != 0).ok_or_else(|| wrong("has no valid port"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if !matches!(kind, Kind::Http | Kind::Https) && path != "/" && !path.is_empty() {
            return Err(wrong("has a path"));
        }
        Ok(Self { url: url.to_owned(), kind, host, port, path: path.to_owned() })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Check {
    /// Whether it asks CrateDB itself, which tells more than that something answers.
    pub fn asks_cratedb(&self) -> bool {
        matches!(self.kind, Kind::CrateDb | Kind::CrateDbOverTls)
    }

    /// Whether it is encrypted. That does not mean that the other side is verified.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.kind, Kind::Https | Kind::CrateDbOverTls)
    }

    /// Whether it may go to another machine: the host is no loopback address and not `localhost`.
    pub fn is_remote(&self) -> bool {
        match self.host.ip() {
            Some(ip) => !ip.is_loopback(),
            None => self.host.as_str() != "localhost",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn check_urls_name_what_is_probed() {
        let check: Check = "http://[::1]/a?b".parse().unwrap();
        assert_eq!((check.host.as_str(), check.port, check.path.as_str()), ("::1", 80, "/a?b"));
        assert_eq!("https://crate1".parse::<Check>().unwrap().port, 443);
        assert_eq!("tcp://127.0.0.1:4300".parse::<Check>().unwrap().kind, Kind::Tcp);
        for (url, kind) in [
            ("crate://crate1", Kind::CrateDb),
            ("crate://crate1:4200/", Kind::CrateDb),
            ("crate+https://crate1", Kind::CrateDbOverTls),
        ] {
            let check: Check = url.parse().unwrap();
            assert_eq!((check.kind, check.port, check.path.as_str()), (kind, 4200, "/"), "{url}");
            assert!(check.asks_cratedb());
        }
        for bad in [
            "",
            "4300",
            "127.0.0.1:4300",
            "tcp://a",
            "tcp://a:0",
            "tcp://a:99999",
            "http://a:99999/",
            "http://:80",
            "http://a:x",
            "udp://a:1",
            "tcp://a:1/x",
            "http://u:p@a/",
            "http://a b/",
            "http://a/\r\nX: y",
            "crate://",
            "crate://a:0",
            "crate://a:4200/path",
            "crate://a:4200?query",
            "crate+https://a/path",
            "crate+http://a",
            "crates://a",
            "crate://u:p@a",
        ] {
            assert!(bad.parse::<Check>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_loopback_is_this_machine() {
        for (url, remote) in [
            ("crate://127.0.1.1", false),
            ("crate://[::1]", false),
            ("crate://localhost", false),
            ("crate://10.0.0.1", true),
            ("crate://crate1", true),
        ] {
            assert_eq!(url.parse::<Check>().unwrap().is_remote(), remote, "{url}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_has_a_host_and_makes_one_request_line(
            text in "(tcp|http|https|crate|crate[+]https)?(://)?.{0,60}",
        ) {
            if let Ok(check) = text.parse::<Check>() {
                prop_assert!(check.port > 0 && !check.host.as_str().is_empty());
                prop_assert!(!check.path.contains(char::is_control) && !check.path.contains(' '));
            }
        }
    }
}
