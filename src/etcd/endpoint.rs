//! One endpoint of etcd, and the grammar of `--endpoints`.

use std::fmt;

use http::Uri;

use crate::host::Host;

/// Where a member of etcd, or a proxy before it, can be reached: a URL of scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    is_https: bool,
    host: Host,
    port: u16,
}

impl Endpoint {
    /// Whether the scheme is https, so that TLS is used.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// The name or the IP address.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port. It is never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host.with_port(self.port))
    }
}

/// Parses a list of endpoints, separated by commas: `http(s)://host:port` or `host:port`. The short form is https if
/// `tls_given`, else http. Returns each endpoint once, all with the same scheme. It accepts what etcdctl accepts:
/// quotes around an item or the whole list (`docker --env-file` keeps them), white space, a comma at the end, and a
/// scheme in upper case.
///
/// # Errors
/// A sentence that names the bad item, unless it could hold a password, and what is allowed.
pub fn parse_endpoints(list: &str, tls_given: bool) -> Result<Vec<Endpoint>, String> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let around = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
    let items: Vec<_> = list.split(',').map(|item| item.trim_matches(around)).collect();
    let count = match items.as_slice() {
        // An empty list is an error of its own, so its only item stays.
        [_, .., ""] => items.len() - 1,
        _ => items.len(),
    };
    for item in &items[..count] {
        let endpoint = parse_endpoint(item, tls_given)?;
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    let https = endpoints.iter().filter(|endpoint| endpoint.is_https).count();
    if https != 0 && https != endpoints.len() {
        return Err("it mixes http and https: allowed is one scheme for all endpoints".to_owned());
    }
    if https == 0 && tls_given {
        return Err("it is http, but a TLS flag is given: allowed is https, or no \"--cacert\", \"--cert\", \"--key\"".to_owned());
    }
    Ok(endpoints)
}

fn parse_endpoint(item: &str, tls_given: bool) -> Result<Endpoint, String> {
    const ALLOWED: &str = "allowed is http://host:port, https://host:port or host:port, separated by commas";
    if item.contains('@') {
        return Err(format!(
            "an endpoint holds a user name (see \"--user\" and \"--password-file\"): {ALLOWED}"
        ));
    }
    let wrong = |why: &str| format!("endpoint {item:?} {why}: {ALLOWED}");
    let (scheme, authority) = match item.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
        Some(_) => return Err(wrong("has another scheme")),
        None => (if tls_given { "https" } else { "http" }, item),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let uri: Uri = format!("{scheme}://{authority}").parse().map_err(|_| wrong("is no URL"))?;
    if uri.path_and_query().is_some_and(|path| path != "/") {
        return Err(wrong("has a path"));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let host = host.parse::<Host>().map_err(|_| wrong("has no valid host"))?;
    match uri.port_u16() {
        None | Some(0) => Err(wrong("has no port")),
        Some(port) => Ok(Endpoint { is_https: scheme == "https", host, port }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(list: &str, tls_given: bool) -> Vec<String> {
        parse_endpoints(list, tls_given).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_bare_endpoint_follows_the_tls_flags() {
        assert_eq!(parsed("a:2379,b:2379", false), ["http://a:2379", "http://b:2379"]);
        assert_eq!(parsed("a:2379", true), ["https://a:2379"]);
        assert_eq!(
            parsed(" https://[::1]:2379/ , https://a:1", false),
            ["https://[::1]:2379", "https://a:1"]
        );
        assert_eq!(parsed("a:1,http://a:1", false), ["http://a:1"]);
    }

    #[test]
    fn endpoints_are_spelt_as_etcdctl_takes_them() {
        let both = ["http://a:1", "http://b:2"];
        for list in [
            "a:1,b:2,",
            "\"http://a:1,http://b:2\"",
            "\"http://a:1\",\"http://b:2\"",
            "'a:1,b:2'",
            "HTTP://a:1,Http://b:2",
            " a:1 ,\tb:2\r\n",
            "\"a:1,b:2,\"",
        ] {
            assert_eq!(parsed(list, false), both, "{list:?}");
        }
        assert_eq!(parsed("HTTPS://A:1", true), ["https://A:1"]);
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for bad in [
            "",
            ",",
            "a:1,,b:1",
            ",a:1",
            "a:1,,",
            "\"\"",
            "a",
            "http://a",
            "http://:2379",
            "a:0",
            "a:70000",
            "ftp://a:1",
            "unix:///x",
            "http://a:1/x",
            "http://a:1?x",
            "http://a b:1",
            "http://a:1,https://a:1",
            "http://-a:1",
            "::1:2379",
        ] {
            assert!(parse_endpoints(bad, false).is_err(), "{bad:?}");
        }
        assert!(parse_endpoints("http://a:1", true).unwrap_err().contains("--cacert"));
    }

    #[test]
    fn a_password_in_an_endpoint_is_not_repeated() {
        assert!(!parse_endpoints("http://root:hunter2@a:1", false).unwrap_err().contains("hunter2"));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_a_url_with_host_and_port(text in ".{0,80}", tls in any::<bool>()) {
            for endpoint in parse_endpoints(&text, tls).unwrap_or_default() {
                let uri: Uri = endpoint.to_string().parse().unwrap();
                prop_assert!(uri.port_u16().is_some() && uri.host().is_some());
            }
        }
    }
}
