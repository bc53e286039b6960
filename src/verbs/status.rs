//! `status`: shows the announced hosts and their leases. With one host it serves as a health check.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal},
};

use anyhow::Context;
use serde_json::json;
use tracing::warn;

use super::{Access, own_host, print, until};
use crate::{
    etcd::{Error, Presence, Registry, Status},
    host::Host,
};

/// The options of `status`.
#[derive(Clone, Debug)]
pub struct Options {
    /// One JSON object on one line, instead of a table.
    pub json: bool,
    /// Which hosts to show.
    pub whom: Whom,
}

/// Which hosts to show.
#[derive(Clone, Debug)]
pub enum Whom {
    /// All hosts.
    All,
    /// This host, which has to be announced.
    Host(Host),
    /// The host that `announce` would announce here, as its own health check. If etcd does not answer, the check
    /// succeeds, because that is no fault of this host. `None` is the host name of the system.
    OwnHost(Option<Host>),
}

/// The host that was asked for is not announced.
#[derive(Debug, thiserror::Error)]
#[error("{host} is not announced")]
pub struct NotAnnounced {
    /// The host that was asked for.
    pub host: Host,
}

/// Prints the status, and ends early if `signal` resolves before that; returns the signal then.
///
/// # Errors
/// [`NotAnnounced`], or [`Error`] if etcd cannot be asked. With [`Whom::OwnHost`], an etcd that does not answer is no
/// error. Safe to drop.
pub async fn run(
    access: Access,
    options: Options,
    signal: impl Future<Output = i32>,
) -> anyhow::Result<Option<i32>> {
    access.etcd.read_files()?;
    until(signal, show(access.connect(), options)).await
}

async fn show(mut registry: Registry, Options { json, whom }: Options) -> anyhow::Result<()> {
    let (host, is_own) = match whom {
        Whom::All => (None, false),
        Whom::Host(host) => (Some(host), false),
        Whom::OwnHost(host) => (Some(own_host(host)?), true),
    };
    let status = match registry.status(host.as_ref()).await {
        Err(Error::Unavailable(reason)) if is_own => {
            warn!(reason, "etcd cannot be asked: not our illness");
            return Ok(());
        }
        status => status.context("failed to read the status from etcd")?,
    };
    if let (Some(host), []) = (host, status.announced.as_slice()) {
        return Err(NotAnnounced { host }.into());
    }
    let text = if json {
        json_line(&status)
    } else if io::stdout().is_terminal() {
        table(&status, env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()))
    } else {
        tabs(&status)
    };
    print(&text)
}

const HEADER: [&str; 8] = ["HOST", "ADDRESS", "HTTP", "TRANSPORT", "PSQL", "LEASE", "TTL LEFT", "REVISION"];

fn row(presence: &Presence) -> [String; 8] {
    let none = || "-".to_owned();
    let announcement = &presence.node.announcement;
    [
        presence.node.host.to_string(),
        announcement.address.as_ref().map_or_else(none, Host::to_string),
        announcement.http.to_string(),
        announcement.transport.to_string(),
        announcement.psql.map_or_else(none, |port| port.to_string()),
        presence.lease.map_or_else(none, |lease| lease.to_string()),
        presence
            .ttl
            .map_or_else(none, |ttl| format!("{} of {} s", ttl.left.as_secs(), ttl.granted.as_secs())),
        presence.mod_revision.to_string(),
    ]
}

/// The table for scripts: one tab between two fields.
fn tabs(status: &Status) -> String {
    let rows = status.announced.iter().map(row);
    let lines = rows.map(|row| row.join("\t") + "\n");
    [HEADER.join("\t") + "\n"].into_iter().chain(lines).collect()
}

/// The table for a terminal: aligned columns, and a colour for a key that may not last, or that will not end with its
/// node.
fn table(status: &Status, colour: bool) -> String {
    let rows: Vec<_> =
        [HEADER.map(str::to_owned)].into_iter().chain(status.announced.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (field, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{field:width$}  ");
        }
        let presence = number.checked_sub(1).and_then(|n| status.announced.get(n));
        let style = match presence {
            None => "1",
            // Yellow: a lease is renewed every third of its TTL, so at least one renewal was missed.
            Some(Presence { ttl: Some(ttl), .. }) if ttl.left < ttl.granted / 2 => "33",
            // Red: the key has no lease, so somebody put it by hand. It stays when its node ends.
            Some(Presence { lease: None, .. }) => "31",
            Some(_) => "",
        };
        let line = line.trim_end();
        let _ = if colour && !style.is_empty() {
            writeln!(text, "\x1b[{style}m{line}\x1b[0m")
        } else {
            writeln!(text, "{line}")
        };
    }
    text
}

fn json_line(status: &Status) -> String {
    let nodes: Vec<String> = status
        .announced
        .iter()
        .map(|presence| {
            let announcement = &presence.node.announcement;
            // The object is written by hand to keep the order of the fields. Each value is valid JSON.
            format!(
                r#"{{"host":{},"address":{},"http":{},"transport":{},"psql":{},"lease":{},"ttl":{},"ttl_left":{},"mod_revision":{}}}"#,
                json!(presence.node.host),
                json!(announcement.address),
                announcement.http,
                announcement.transport,
                json!(announcement.psql),
                json!(presence.lease.map(|lease| lease.to_string())),
                json!(presence.ttl.map(|ttl| ttl.granted.as_secs())),
                json!(presence.ttl.map(|ttl| ttl.left.as_secs())),
                presence.mod_revision,
            )
        })
        .collect();
    format!("{{\"revision\":{},\"nodes\":[{}]}}\n", status.revision, nodes.join(","))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        announcement::Announcement,
        lease::{LeaseId, Ttl},
        snapshot::Node,
    };

    fn status() -> Status {
        let presence = |host: &str, value: &str, lease, left| Presence {
            node: Node {
                host: host.parse().unwrap(),
                announcement: Announcement::from_json(value.as_bytes()).unwrap(),
            },
            lease: LeaseId::from_etcd(lease),
            ttl: (lease != 0)
                .then_some(Ttl { granted: Duration::from_secs(60), left: Duration::from_secs(left) }),
            mod_revision: 9,
        };
        Status {
            revision: 12,
            announced: vec![
                presence("a", r#"{"http":4200,"transport":4300}"#, 0x7d12, 58),
                presence("b", r#"{"http":1,"transport":2,"psql":3,"address":"10.0.0.5"}"#, 0x1f, 29),
                presence("c", r#"{"http":4200,"transport":4300}"#, 0, 0),
            ],
        }
    }

    #[test]
    fn table_has_columns_and_colours_what_will_not_last() {
        let text = table(&status(), true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "\x1b[1mHOST  ADDRESS   HTTP  TRANSPORT  PSQL  LEASE  TTL LEFT    REVISION\x1b[0m"
        );
        assert_eq!(lines[1], "a     -         4200  4300       -     7d12   58 of 60 s  9");
        assert_eq!(lines[2], "\x1b[33mb     10.0.0.5  1     2          3     1f     29 of 60 s  9\x1b[0m");
        assert!(lines[3].starts_with("\x1b[31mc "), "{text}");
        assert!(!table(&status(), false).contains('\x1b'));
    }

    #[test]
    fn elsewhere_than_on_a_terminal_there_is_one_tab_between_fields() {
        assert_eq!(tabs(&status()).lines().nth(1), Some("a\t-\t4200\t4300\t-\t7d12\t58 of 60 s\t9"));
    }

    #[test]
    fn json_is_one_object_on_one_line() {
        let text = json_line(&status());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(value["revision"], 12);
        assert_eq!(value["nodes"][0]["lease"], "7d12");
        assert_eq!((&value["nodes"][1]["ttl"], &value["nodes"][1]["ttl_left"]), (&json!(60), &json!(29)));
        assert_eq!(value["nodes"][2]["lease"], json!(null));
    }
}
