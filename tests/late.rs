//! Row 32: secrets and certificates that come late, or that everybody may read.

#[path = "support/mod.rs"]
mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use rustix::process::Signal;

use support::{
    PATIENCE, PREFIX,
    daemon::{Daemon, announce, run, tool},
    etcd::{Etcd, arg, scratch},
    eventually_eq, key_of,
    node::FakeNode,
    stays,
};

/// How long a secret is late.
const LATE: Duration = Duration::from_secs(3);

/// An etcd where user `a` may announce `a` with the password `right`.
fn closed() -> Etcd {
    let mut etcd = Etcd::start();
    let all = format!("{PREFIX}/");
    let meta = format!("{PREFIX}.meta/");
    etcd.enable_auth(&[(
        "a",
        "right",
        &[
            &["readwrite", &key_of("a")],
            &["--prefix=true", "read", &all],
            &["--prefix=true", "readwrite", &meta],
        ],
    )]);
    etcd
}

#[test]
fn password_file_that_comes_late_is_waited_for() {
    let etcd = closed();
    let dir = scratch();
    let file = dir.path().join("password");
    let login = ["--user", "a", "--password-file", arg(&file)];
    // Not there, and there without its content.
    for empty in [false, true] {
        let _ = fs::remove_file(&file);
        if empty {
            fs::write(&file, "").unwrap();
        }
        let mut daemon = Daemon::announce(&etcd, "a", &login);
        let line = daemon.says("etcd cannot be asked before this file can be used", PATIENCE);
        assert!(line.contains("--password-file") && line.contains(arg(&file)), "{line}");
        stays("it waits", LATE, &None, || daemon.ended());
        fs::write(&file, "right\n").unwrap();
        daemon.says("announced", PATIENCE);
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    }
    fs::remove_file(&file).unwrap();
    let mut command = tool();
    command.args(["watch", "--endpoints", &etcd.url()]).args(login);
    let mut daemon = Daemon::spawn_printing(command);
    daemon.says("etcd cannot be asked before this file can be used", PATIENCE);
    stays("it waits", LATE, &None, || daemon.ended());
    fs::write(&file, "right\n").unwrap();
    daemon.prints("\n", PATIENCE);
}

#[test]
fn certificates_that_come_late_are_waited_for() {
    let etcd = Etcd::start_with_tls(&[]);
    let dir = scratch();
    let pki = etcd.pki();
    for (number, (name, junk)) in
        [("--cacert", None), ("--cert", None), ("--key", None), ("--key", Some("half of a key"))]
            .into_iter()
            .enumerate()
    {
        let late = dir.path().join(number.to_string());
        if let Some(junk) = junk {
            fs::write(&late, junk).unwrap();
        }
        let files = [("--cacert", &pki.ca), ("--cert", &pki.cert), ("--key", &pki.key)];
        let mut command = tool();
        command.args(["announce", "--host", "a", "--endpoints", &etcd.url(), "--ttl", "5s"]);
        for (flag, path) in files {
            command.args([flag, if flag == name { arg(&late) } else { arg(path) }]);
        }
        let mut daemon = Daemon::spawn(command);
        let line = daemon.says("etcd cannot be asked before this file can be used", PATIENCE);
        assert!(line.contains(name) && line.contains(arg(&late)), "{line}");
        stays("it waits", LATE, &None, || daemon.ended());
        let (_, path) = files.into_iter().find(|(flag, _)| *flag == name).unwrap();
        fs::copy(path, &late).unwrap();
        daemon.says("announced", PATIENCE);
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    }
}

/// A file with this mode, in directories that everybody may enter, or not.
fn secret(dir: &Path, mode: u32, closed: bool) -> String {
    let inner = dir.join(format!("{mode:o}{closed}"));
    fs::create_dir(&inner).unwrap();
    let file = inner.join("password");
    fs::write(&file, "right\n").unwrap();
    for (path, mode) in
        [(&file, mode), (&inner, if closed { 0o750 } else { 0o755 }), (&dir.to_owned(), 0o755)]
    {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    arg(&file).to_owned()
}

const EXPOSED: &str = "every user of this machine may read or change this password file";

#[test]
fn password_file_that_others_may_read_is_warned_about_once() {
    let etcd = closed();
    let dir = scratch();
    for (mode, closed, warned) in [(0o644, false, 1), (0o602, false, 1), (0o640, false, 0), (0o644, true, 0)]
    {
        let file = secret(dir.path(), mode, closed);
        let seeds = dir.path().join(format!("seeds{mode:o}{closed}"));
        let login = ["--user", "a", "--password-file", &file, "--seed-file", arg(&seeds)];
        let mut daemon = Daemon::announced(&etcd, "a", &login);
        // By then each of its connections has read the password.
        eventually_eq("the file holds", PATIENCE, &"a:4300\n".to_owned(), || {
            fs::read_to_string(&seeds).unwrap_or_default()
        });
        let count = daemon.stderr().matches(EXPOSED).count();
        assert_eq!(count, warned, "{mode:o} {closed}: {}", daemon.stderr());
        assert!(warned == 0 || daemon.stderr().contains(&file));
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
        let mut command = tool();
        command.args(["hosts", "--endpoints", &etcd.url(), "--user", "a", "--password-file", &file]);
        let finished = run(command);
        assert_eq!(
            (finished.code, finished.stderr.matches(EXPOSED).count()),
            (0, warned),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn password_file_of_the_checks_that_others_may_read_is_warned_about_once() {
    let etcd = Etcd::start();
    let node = FakeNode::serving();
    let dir = scratch();
    for (mode, warned) in [(0o644, 1), (0o600, 0)] {
        let file = secret(dir.path(), mode, false);
        let mut daemon = Daemon::spawn(announce(
            &etcd,
            "a",
            &[
                "--check",
                &node.cratedb(),
                "--check-user",
                "crate",
                "--check-password-file",
                &file,
                "--check-interval",
                "100ms",
            ],
        ));
        daemon.says("announced", PATIENCE);
        node.is_asked(5);
        assert_eq!(daemon.stderr().matches(EXPOSED).count(), warned, "{}", daemon.stderr());
    }
}

/// Announced, since a cluster of one link may be meant, and said.
#[test]
fn link_local_address_is_warned_about() {
    let etcd = Etcd::start();
    for (args, flag) in [
        (&["--address", "169.254.1.1"][..], "--address"),
        (&["--address", "fe80::1"], "--address"),
        (&["--address", "::ffff:169.254.1.1"], "--address"),
    ] {
        let mut daemon = Daemon::announced(&etcd, "a", args);
        let line = daemon.says(flag, PATIENCE);
        assert!(line.contains("is a link-local address"), "{line}");
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    }
    let mut daemon = Daemon::announced(&etcd, "fe80::2", &[]);
    daemon.says("--host fe80::2 is a link-local address", PATIENCE);
    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
}
