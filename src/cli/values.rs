//! Parses single values. Each error says what is allowed; clap or [`super::rejection`] adds the flag and the value.

use std::{net::SocketAddr, num::NonZeroU16, time::Duration};

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::{
    feeds::srv::name::{InvalidServiceName, ServiceName},
    host::Host,
};

/// A duration of one number and one unit: `60` and `60s` are seconds; `ms`, `m` and `h` are allowed, too. At least 1 ms
/// and at most a year: more is a typing error, and the sum of two such durations never overflows.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let error =
        || "allowed is one number and one unit, such as 60, 60s, 500ms, 2m or 1h, up to 8760h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    match milliseconds {
        Some(milliseconds @ 1..=31_536_000_000) => Ok(Duration::from_millis(milliseconds)),
        _ => Err(error()),
    }
}

/// The TTL of a lease: whole seconds, from 5 s to 24 h.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok()
        .filter(|ttl| ttl.subsec_millis() == 0 && (5..=86_400).contains(&ttl.as_secs()))
        .ok_or_else(|| "allowed is a time in whole seconds from 5s to 24h".to_owned())
}

/// A TCP port.
pub(super) fn port(text: &str) -> Result<NonZeroU16, String> {
    text.parse().map_err(|_| "allowed is a port from 1 to 65535".to_owned())
}

/// A number of things: at least 1.
pub(super) fn count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("allowed is a number from 1 to 1000000".to_owned()),
    }
}

/// How many nodes may elect the first master. Each one is two comparisons in a transaction, and etcd allows 128
/// (`--max-txn-ops`).
pub(super) fn expect(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 0..=50) => Ok(count),
        _ => Err("allowed is a number from 0 to 50".to_owned()),
    }
}

/// A host or an address.
pub(super) fn host(text: &str) -> Result<Host, String> {
    text.parse().map_err(|e: crate::host::InvalidHost| e.to_string())
}

/// The host that is announced.
pub(super) fn own_host(text: &str) -> Result<Host, String> {
    let own = host(text)?;
    own.judge_own().map_err(|why| format!("{why}; allowed is a name or address that only this host has"))?;
    Ok(own)
}

/// The address at which others connect.
pub(super) fn address(text: &str) -> Result<Host, String> {
    let address = host(text)?;
    address.judge_joinable().map_err(|why| format!("{why}; {JOINABLE}"))?;
    Ok(address)
}

/// What is allowed for an address at which others connect.
pub(super) const JOINABLE: &str = "allowed is a name or address where other nodes can connect";

/// The name of a CrateDB cluster.
pub(super) fn cluster(text: &str) -> Result<String, String> {
    if (1..=200).contains(&text.chars().count()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("allowed is 1 to 200 characters, none of them a control character".to_owned())
    }
}

/// An address to listen on. The port is required, because CrateDB must be told which one it is.
pub(super) fn srv_address(text: &str) -> Result<SocketAddr, String> {
    let error = || "allowed is an IP address and a port, such as 127.0.0.1:5399 or [::1]:5399".to_owned();
    text.parse().ok().filter(|address: &SocketAddr| address.port() != 0).ok_or_else(error)
}

/// The DNS name of the SRV records.
pub(super) fn srv_name(text: &str) -> Result<ServiceName, String> {
    text.parse().map_err(|e: InvalidServiceName| e.to_string())
}

/// A prefix: parts of printable ASCII, each after a `/`. No part ends in `.meta`: the notes about another prefix are
/// below `<prefix>.meta/`, and hosts that are announced there would be mixed up with them.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    let segments = || text.strip_prefix('/').into_iter().flat_map(|path| path.split('/'));
    let is_path = text.len() <= 1024
        && text.starts_with('/')
        && segments().all(|segment| !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_graphic()));
    if !is_path {
        return Err(
            "allowed is a path such as /services/crate: printable ASCII, a / in front, none at the end"
                .to_owned(),
        );
    }
    if segments().any(|segment| segment.ends_with(".meta")) {
        return Err(
            "allowed is a path without a part that ends in .meta: there is what belongs to other prefixes"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// The filter for log lines.
pub(super) fn log_filter(text: &str) -> Result<Targets, String> {
    // Without this check, a misspelt level would be read as a target, and everything else would not be logged.
    let is_known =
        |item: &str| !item.is_empty() && (item.contains('=') || item.parse::<LevelFilter>().is_ok());
    let targets = text.split(',').all(is_known).then(|| text.parse().ok()).flatten();
    targets.ok_or_else(|| {
        "allowed is off, error, warn, info, debug or trace, or a list of target=level".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_one_number_and_one_unit() {
        for (text, milliseconds) in
            [("60", 60_000), ("60s", 60_000), ("500ms", 500), ("2m", 120_000), ("24h", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in [
            "",
            "s",
            "0",
            "0s",
            "-1s",
            "1.5s",
            "1m30s",
            "60 s",
            " 60",
            "60S",
            "1d",
            "99999999999999999999",
            "8761h",
            "٣s",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_ttl_is_whole_seconds_within_bounds() {
        for good in ["5", "5000ms", "60s", "24h"] {
            assert!(ttl(good).is_ok(), "{good}");
        }
        for bad in ["4", "5500ms", "25h", "x"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_filter() {
        for good in ["off", "info", "DEBUG", "crate_discovery=debug", "warn,h2=trace"] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["inof", "", "info,", "crate_discovery=loud"] {
            assert!(log_filter(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_is_a_path_without_an_end() {
        for good in ["/services/crate", "/a", "/a/b-c_d.e", "/meta", "/a.metal/b"] {
            assert!(prefix(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "services", "/services/", "//a", "/a b", "/a\n", "/ä"] {
            assert!(prefix(bad).is_err(), "{bad:?}");
        }
        for below in ["/services/crate.meta", "/crate.meta/x", "/a/b.meta/bootstrap/candidates", "/.meta"] {
            assert!(prefix(below).is_err_and(|why| why.contains(".meta")), "{below:?}");
        }
    }

    #[test]
    fn an_srv_address_is_an_address_and_a_port() {
        for good in ["127.0.0.1:5399", "0.0.0.0:53", "[::1]:5399", "[::]:65535"] {
            assert_eq!(srv_address(good).map(|address| address.to_string()).as_deref(), Ok(good));
        }
        for bad in
            ["", "5399", ":5399", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:5399", "localhost:5399"]
        {
            assert!(srv_address(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_for_an_srv_name_can_be_asked_for(text in ".{0,80}") {
            if let Ok(name) = srv_name(&text) {
                let name = name.to_string();
                prop_assert_eq!(text.strip_suffix('.').unwrap_or(&text), &name);
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
            }
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".*") {
            let _ = (duration(&text), ttl(&text), port(&text), count(&text), expect(&text), host(&text), prefix(&text), log_filter(&text));
            let _ = (srv_address(&text), srv_name(&text), cluster(&text), own_host(&text), address(&text));
        }
    }
}
