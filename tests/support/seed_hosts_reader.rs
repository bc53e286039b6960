//! Reads `unicast_hosts.txt` as CrateDB does, as strictly: `FileBasedSeedHostsProvider` takes the lines, with neither
//! trimming nor skipping of blank ones, and leaves out those that begin with `#`; `TcpTransport.parse` wants
//! `host`, `host:port` or `[ipv6]:port`. Where CrateDB would log a warning and go on, or resolve nothing to loopback,
//! this complains.

use std::{net::Ipv6Addr, path::Path};

/// The port of a line without one: the first of `transport.tcp.port`.
const DEFAULT_PORT: u16 = 4300;

/// The seeds of a file, `(host, port)`.
///
/// # Panics
/// On whatever CrateDB would not take as it was meant.
#[track_caller]
pub fn read(path: &Path) -> Vec<(String, u16)> {
    parse(&std::fs::read_to_string(path).expect("the file can be read"))
}

/// The seeds of a file's content.
#[track_caller]
pub fn parse(content: &str) -> Vec<(String, u16)> {
    assert!(content.is_empty() || content.ends_with('\n'), "the last line is cut: {content:?}");
    // Java's lines end with \r, too.
    assert!(!content.contains('\r'), "{content:?}");
    let lines = content.split_terminator('\n').filter(|line| !line.starts_with('#'));
    lines.map(|line| seed(line).unwrap_or_else(|why| panic!("{line:?}: {why}"))).collect()
}

fn seed(line: &str) -> Result<(String, u16), String> {
    let (host, port) = if let Some(rest) = line.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
        address.parse::<Ipv6Addr>().map_err(|e| format!("{address:?}: {e}"))?;
        match rest.strip_prefix(':') {
            Some(port) => (address, Some(port)),
            None if rest.is_empty() => (address, None),
            None => return Err(format!("{rest:?} after the bracket")),
        }
    } else if line.matches(':').count() > 1 {
        return Err("IPv6 addresses must be bracketed".to_owned());
    } else {
        line.split_once(':').map_or((line, None), |(host, port)| (host, Some(port)))
    };
    // Java resolves an empty name to loopback.
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err("no host".to_owned());
    }
    // `Integer.valueOf` takes neither blanks nor nothing.
    let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse().map_err(|e| format!("{port:?}: {e}")))?;
    Ok((host.to_owned(), port))
}
