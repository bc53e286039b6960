//! Those who follow: `watch`, and the seed file of `watch` and `announce`.

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod file;
mod outage;
mod place;
mod print;
mod srv;
mod trouble;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use support::{
    DEFAULT_VALUE, PATIENCE,
    daemon::{Daemon, tool},
    etcd::{Etcd, arg, scratch},
    eventually_eq, key_of,
    observer::Raw,
    seed_hosts_reader,
};
use tempfile::TempDir;

/// Puts hosts with the default announcement.
fn put(etcd: &Etcd, hosts: &[&str]) {
    let mut raw = Raw::connect(etcd);
    for host in hosts {
        raw.put(key_of(host).as_bytes(), DEFAULT_VALUE.as_bytes());
    }
}

/// Deletes hosts.
fn delete(etcd: &Etcd, hosts: &[&str]) {
    let mut raw = Raw::connect(etcd);
    hosts.iter().for_each(|host| raw.delete(key_of(host).as_bytes()));
}

/// The lines of these hosts.
fn lines(hosts: &[&str]) -> String {
    hosts.iter().map(|host| format!("{host}:4300\n")).collect()
}

/// A seed file, and `watch` that keeps it current.
struct Kept {
    _dir: TempDir,
    path: PathBuf,
    daemon: Daemon,
}

impl Kept {
    /// Starts `watch --seed-file` with `args`.
    fn start(etcd: &Etcd, args: &[&str]) -> Self {
        Self::start_at(&etcd.url(), args)
    }

    /// As [`Kept::start`], with these endpoints.
    fn start_at(endpoints: &str, args: &[&str]) -> Self {
        let dir = scratch();
        let path = dir.path().join("unicast_hosts.txt");
        let mut command = tool();
        command.args(["watch", "--endpoints", endpoints, "--seed-file", arg(&path)]).args(args);
        Self { _dir: dir, path, daemon: Daemon::spawn_printing(command) }
    }

    /// As [`Kept::start`] and waits until the file holds `hosts`.
    fn holding(etcd: &Etcd, hosts: &[&str], args: &[&str]) -> Self {
        Self::holding_at(&etcd.url(), hosts, args)
    }

    /// As [`Kept::holding`], with these endpoints.
    fn holding_at(endpoints: &str, hosts: &[&str], args: &[&str]) -> Self {
        let kept = Self::start_at(endpoints, args);
        kept.holds(hosts, PATIENCE);
        kept
    }

    /// Waits until the file is there and holds exactly `hosts`.
    #[track_caller]
    fn holds(&self, hosts: &[&str], within: Duration) {
        eventually_eq("the file holds", within, &Some(lines(hosts)), || fs::read_to_string(&self.path).ok());
        assert_eq!(seed_hosts_reader::read(&self.path).len(), hosts.len());
    }

    /// What the file holds; nothing while it is not there.
    fn content(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }
}

/// What a file is: writing to it, even the same content, changes this.
fn identity(path: &Path) -> (u64, i64, i64) {
    let meta = fs::metadata(path).unwrap();
    (meta.ino(), meta.mtime(), meta.mtime_nsec())
}
