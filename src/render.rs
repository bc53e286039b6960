//! Writes a snapshot as a text: csv, lines, json, or env.

use std::fmt::Write;

use serde_json::json;

use crate::{announcement::Port, snapshot::Snapshot};

/// The format of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `a:4300,b:4300` and a newline: the same as `etcdctl | sed | sed | paste -s -d,` gave.
    #[default]
    Csv,
    /// One seed per line.
    Lines,
    /// One JSON object on one line.
    Json,
    /// Two assignments for a systemd `EnvironmentFile=`, with at most 50 seeds, the first ones by name.
    Env,
}

/// The most seeds in an assignment. Linux starts no program with a string of more than 128 KiB (`MAX_ARG_STRLEN`), and
/// a node needs only a few seeds that answer.
const MOST_SEEDS: usize = 50;

/// Writes the seeds for `port` in `snapshot`. A host without that port is in no list of seeds. For JSON, leave such
/// hosts out before, with [`Snapshot::select`].
pub fn render(snapshot: &Snapshot, format: Format, port: Port) -> String {
    match format {
        Format::Csv => csv(snapshot, port) + "\n",
        Format::Lines => snapshot.seeds(port).map(|seed| seed + "\n").collect(),
        Format::Json => json_line(snapshot),
        Format::Env => env(&snapshot.seeds(port).take(MOST_SEEDS).collect::<Vec<_>>().join(",")),
    }
}

fn csv(snapshot: &Snapshot, port: Port) -> String {
    snapshot.seeds(port).collect::<Vec<_>>().join(",")
}

/// The two assignments. Without seeds there is no flag: CrateDB refuses to start on `-Cdiscovery.seed_hosts=` without a
/// value (`EnvironmentAwareCommand`: "no value provided for setting").
fn env(seeds: &str) -> String {
    let flag = if seeds.is_empty() { "" } else { "-Cdiscovery.seed_hosts=" };
    format!("CRATE_SEED_HOSTS={seeds}\nCRATE_SEED_FLAGS={flag}{seeds}\n")
}

fn json_line(snapshot: &Snapshot) -> String {
    let mut line = format!(r#"{{"revision":{},"nodes":["#, snapshot.revision());
    for (i, node) in snapshot.nodes().iter().enumerate() {
        let a = &node.announcement;
        // The object is written by hand to keep the order of the fields. Each value is valid JSON.
        let _ = write!(
            line,
            r#"{}{{"host":{},"address":{},"http":{},"transport":{},"psql":{}}}"#,
            if i == 0 { "" } else { "," },
            json!(node.host),
            json!(a.address),
            a.http,
            a.transport,
            json!(a.psql)
        );
    }
    line + "]}\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{announcement::Announcement, snapshot::Node};

    fn node(host: &str, value: &str) -> Node {
        Node { host: host.parse().unwrap(), announcement: Announcement::from_json(value.as_bytes()).unwrap() }
    }

    fn three() -> Snapshot {
        Snapshot::new(
            7,
            vec![
                node("b", r#"{"http":4200,"transport":4301,"psql":5432,"address":"2001:db8::1"}"#),
                node("a", r#"{"http":4200,"transport":4300}"#),
                node("::1", r#"{"http":4200,"transport":4300}"#),
            ],
        )
    }

    #[test]
    fn each_format_is_as_the_contract_has_it() {
        let text = |format| render(&three(), format, Port::Transport);
        assert_eq!(text(Format::Csv), "[::1]:4300,a:4300,[2001:db8::1]:4301\n");
        assert_eq!(text(Format::Lines), "[::1]:4300\na:4300\n[2001:db8::1]:4301\n");
        assert_eq!(
            text(Format::Env),
            "CRATE_SEED_HOSTS=[::1]:4300,a:4300,[2001:db8::1]:4301\n\
             CRATE_SEED_FLAGS=-Cdiscovery.seed_hosts=[::1]:4300,a:4300,[2001:db8::1]:4301\n"
        );
        assert_eq!(
            text(Format::Json),
            concat!(
                r#"{"revision":7,"nodes":[{"host":"::1","address":null,"http":4200,"transport":4300,"psql":null},"#,
                r#"{"host":"a","address":null,"http":4200,"transport":4300,"psql":null},"#,
                r#"{"host":"b","address":"2001:db8::1","http":4200,"transport":4301,"psql":5432}]}"#,
                "\n"
            )
        );
    }

    #[test]
    fn with_no_hosts_no_flag_is_left_empty() {
        let text = |format| render(&Snapshot::new(3, vec![]), format, Port::Transport);
        assert_eq!(text(Format::Csv), "\n");
        assert_eq!(text(Format::Lines), "");
        assert_eq!(text(Format::Env), "CRATE_SEED_HOSTS=\nCRATE_SEED_FLAGS=\n");
        assert_eq!(text(Format::Json), "{\"revision\":3,\"nodes\":[]}\n");
    }

    #[test]
    fn assignments_hold_fifty_seeds_at_most_and_stay_below_the_kernels_limit() {
        let name = |number: usize| format!("{number:05}{}", "x".repeat(248));
        let many =
            (0..10_000).map(|number| node(&name(number), r#"{"http":4200,"transport":65535}"#)).collect();
        let text = render(&Snapshot::new(1, many), Format::Env, Port::Transport);
        assert_eq!(text.matches(":65535").count(), 2 * 50);
        assert!(text.contains(&name(49)) && !text.contains(&name(50)));
        assert!(text.lines().all(|line| line.len() < 128 * 1024));
    }

    #[test]
    fn hosts_without_the_port_are_left_out() {
        let selected = three().select(Port::Psql, &[]);
        assert_eq!(render(&selected, Format::Csv, Port::Psql), "[2001:db8::1]:5432\n");
        let selected = three().select(Port::Transport, &["a".parse().unwrap()]);
        assert_eq!(selected.nodes().len(), 2);
    }
}
