//! A host whose node has been in a cluster remembers that, whatever becomes of etcd.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    Asking, STORED, ask, operate, shown,
    support::{
        AT_ONCE, PATIENCE, SLACK,
        daemon::{Daemon, announce, run, tool_behind},
        etcd::{Etcd, arg, scratch},
        eventually, eventually_eq, free_port, key_of,
        node::{FakeNode, Manner, cratedb, locked},
        stays,
    },
};

/// What the unit asks, for a node that shares its state directory with the sidekick.
fn asks(etcd: &Etcd, name: &str, state: &TempDir, args: &[&str]) -> Command {
    let mut command = ask(etcd, name, 1, &["--state-dir", arg(state.path()), "--wait"]);
    command.args(args);
    command
}

/// An announcer whose node is asked often.
fn sidekick(etcd: &Etcd, state: &TempDir, check: &str) -> Daemon {
    let args = ["--check", check, "--check-interval", "100ms", "--state-dir", arg(state.path())];
    Daemon::announced(etcd, "h1", &args)
}

/// The file of this kind in a state directory.
fn remembered(state: &Path, kind: &str) -> Option<String> {
    let mut files = fs::read_dir(state).unwrap().map(|file| file.unwrap().path());
    let file =
        files.find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(kind)));
    file.map(|file| fs::read_to_string(file).unwrap())
}

/// Waits until the note says how it is known.
#[track_caller]
fn notes(state: &TempDir, evidence: &str) {
    eventually(&format!("the host notes {evidence}"), AT_ONCE + SLACK, || {
        let note = remembered(state.path(), "note-");
        match &note {
            Some(text) if text.contains(&format!(r#""evidence":"{evidence}""#)) => Ok(()),
            _ => Err(format!("{note:?}")),
        }
    });
}

/// A state directory of a host whose node was in a cluster on this etcd.
fn host_in_a_cluster(etcd: &Etcd) -> TempDir {
    let state = scratch();
    assert_eq!(run(asks(etcd, "a", &state, &[])).printed(), "a\n");
    let node = FakeNode::start(Manner::Answers(cratedb(200, "crate")));
    let mut daemon = sidekick(etcd, &state, &node.cratedb());
    notes(&state, "has-master");
    eventually("formed", AT_ONCE + SLACK, || {
        etcd.key(&format!("{STORED}formed")).ok_or_else(|| "no mark".to_owned())
    });
    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    state
}

/// The command with another endpoint, where nobody is.
fn with_etcd_away(command: Command) -> Command {
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut fresh = crate::support::daemon::tool();
    let at = args.iter().position(|arg| arg == "--endpoints").expect("it is given");
    fresh.args(&args[..at]).args(&args[at + 2..]);
    fresh.env("ETCDCTL_ENDPOINTS", format!("http://127.0.0.1:{}", free_port()));
    fresh
}

#[test]
fn node_that_was_in_a_cluster_joins_within_seconds_while_etcd_is_away() {
    let etcd = Etcd::start();
    let state = host_in_a_cluster(&etcd);
    let began = Instant::now();
    let joins = run(with_etcd_away(asks(&etcd, "a", &state, &["--timeout", "60s"])));
    assert_eq!((joins.code, joins.stdout.as_str()), (0, ""), "{}", joins.stderr);
    assert!(joins.stderr.contains("this host has noted that its node is in a cluster"), "{}", joins.stderr);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(2900) && took < Duration::from_secs(3) + SLACK, "{took:?}");
    // An etcd that is there and says nothing costs the same.
    etcd.freeze();
    let began = Instant::now();
    assert_eq!(run(asks(&etcd, "a", &state, &["--timeout", "60s"])).printed(), "");
    assert!(began.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", began.elapsed());
    etcd.thaw();
    // One that refuses us, or a file that is missing, costs nothing.
    for flags in [["--user", "x"], ["--cacert", "/missing/ca.pem"]] {
        let mut asked = asks(&etcd, "a", &state, &flags);
        asked.env("ETCDCTL_PASSWORD", "wrong");
        if flags[0] == "--cacert" {
            asked = with_etcd_away(asked);
            asked.env("ETCDCTL_ENDPOINTS", etcd.url().replace("http:", "https:"));
        }
        assert_eq!(run(asked).printed(), "", "{flags:?}");
    }
}

#[test]
fn node_that_was_in_a_cluster_joins_although_etcd_lost_its_data_or_was_restored() {
    let mut etcd = Etcd::start();
    let backup = scratch();
    let backup = backup.path().join("backup");
    // Of a time at which the list was frozen and nobody had formed anything.
    let state = scratch();
    assert_eq!(run(asks(&etcd, "a", &state, &[])).printed(), "a\n");
    etcd.kill();
    etcd.back_up(&backup);
    etcd.restart();
    let state = {
        operate(&etcd, &["--reset", "--yes"]);
        host_in_a_cluster(&etcd)
    };
    etcd.wipe();
    let joins = run(asks(&etcd, "a", &state, &[]));
    assert_eq!((joins.code, joins.stdout.as_str()), (0, ""), "{}", joins.stderr);
    assert!(joins.stderr.contains("although etcd shows no cluster"), "{}", joins.stderr);
    assert!(joins.stderr.contains("bootstrap --reset --yes"), "{}", joins.stderr);
    etcd.kill();
    etcd.restore(&backup);
    etcd.restart();
    assert_eq!(shown(&etcd, "list"), ["a"]);
    assert_eq!(
        run(asks(&etcd, "a", &state, &[])).printed(),
        "",
        "the list is of an older epoch than the note"
    );
}

#[test]
fn reset_voids_the_note_and_the_host_elects_again() {
    let etcd = Etcd::start();
    let state = host_in_a_cluster(&etcd);
    assert_eq!(run(asks(&etcd, "a", &state, &[])).printed(), "");
    assert_eq!(operate(&etcd, &["--reset", "--yes"]).printed(), "");
    let elects = run(asks(&etcd, "a", &state, &[]));
    assert_eq!((elects.code, elects.stdout.as_str()), (0, "a\n"), "{}", elects.stderr);
    assert!(elects.stderr.contains("the note of this host is void"), "{}", elects.stderr);
}

/// The epoch that is noted, and stored, after a reset under a node that never learned of it.
#[test]
fn node_of_a_cluster_from_before_the_reset_is_not_the_cluster_that_is_to_form() {
    let etcd = Etcd::start();
    let state = host_in_a_cluster(&etcd);
    assert_eq!(operate(&etcd, &["--reset", "--yes"]).printed(), "");
    let node = FakeNode::start(Manner::Answers(cratedb(200, "crate")));
    let mut daemon = sidekick(&etcd, &state, &node.cratedb());
    daemon.says("this node belongs to a cluster from before the last reset", PATIENCE);
    stays("nothing has formed", Duration::from_secs(1), &None, || {
        etcd.key(&format!("{STORED}formed")).map(|key| key.value)
    });
}

#[test]
fn mark_is_back_at_once_when_etcd_lost_its_data() {
    let mut etcd = Etcd::start();
    let state = scratch();
    assert_eq!(run(asks(&etcd, "a", &state, &[])).printed(), "a\n");
    let node = FakeNode::start(Manner::Answers(cratedb(200, "crate")));
    let _daemon = sidekick(&etcd, &state, &node.cratedb());
    let stored = |key: &str| etcd.key(&format!("{STORED}{key}")).map(|key| key.value);
    eventually_eq("formed", AT_ONCE + SLACK, &true, || stored("formed").is_some());
    let before = (stored("formed"), stored("epoch"));
    // It has no master just now, which its host knows better than etcd.
    node.behave(Manner::Answers(cratedb(503, "crate")));
    etcd.wipe();
    eventually("announced again", PATIENCE, || etcd.key(&key_of("h1")).ok_or_else(|| "no key".to_owned()));
    let stored = |key: &str| etcd.key(&format!("{STORED}{key}")).map(|key| key.value);
    eventually_eq("mark and epoch are back", AT_ONCE + SLACK, &before, || {
        (stored("formed"), stored("epoch"))
    });
}

#[test]
fn node_that_cannot_be_seen_is_told_to_join_once_it_was_given_the_list() {
    let etcd = Etcd::start();
    let hidden = [
        (FakeNode::start(Manner::Answers(locked())), true, "the node wants a password"),
        (FakeNode::start(Manner::Answers(cratedb(200, "crate"))), false, "no check asks CrateDB itself"),
    ];
    for (node, asks_cratedb, warning) in hidden {
        etcd.etcdctl(&["del", "--prefix", STORED]);
        let state = scratch();
        assert_eq!(run(asks(&etcd, "a", &state, &[])).printed(), "a\n");
        let check = if asks_cratedb { node.cratedb() } else { node.tcp() };
        let mut daemon = sidekick(&etcd, &state, &check);
        notes(&state, "given-the-list");
        daemon.says(warning, PATIENCE);
        // Wiped, but for the state directory: it must not elect a second cluster.
        assert_eq!(run(asks(&etcd, "a", &state, &[])).printed(), "");
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
        assert_eq!(daemon.lines(warning).len(), 1, "{}", daemon.stderr());
        assert_eq!(etcd.key(&format!("{STORED}formed")), None, "nobody saw a master");
    }
}

#[test]
fn note_of_another_machine_a_torn_one_and_one_of_another_prefix_count_as_none() {
    let etcd = Etcd::start();
    let state = host_in_a_cluster(&etcd);
    etcd.etcdctl(&["del", "--prefix", STORED]);
    let note = fs::read_dir(state.path()).unwrap().map(|file| file.unwrap().path());
    let note = note.into_iter().find(|file| file.to_string_lossy().contains("note-")).unwrap();
    let whole = fs::read_to_string(&note).unwrap();
    let machine = whole.split(r#""machine":""#).nth(1).unwrap()[..32].to_owned();
    for other in [&whole[..whole.len() - 9], &whole.replace(&machine, &"a".repeat(32))] {
        fs::write(&note, other).unwrap();
        assert_eq!(run(asks(&etcd, "a", &state, &[])).printed(), "a\n", "{other}");
    }
    fs::write(&note, &whole).unwrap();
    assert_eq!(run(asks(&etcd, "a", &state, &["--prefix", "/other"])).printed(), "a\n");
    // What was frozen meanwhile is of a greater epoch.
    etcd.etcdctl(&["del", "--prefix", STORED]);
    assert_eq!(run(asks(&etcd, "a", &state, &[])).printed(), "");
}

#[test]
fn node_with_data_and_no_note_starts_without_etcd_and_one_without_data_waits() {
    let etcd = Etcd::start();
    let (state, data) = (scratch(), scratch());
    let asked = |timeout: &str| {
        let args = ["--node-data", arg(data.path()), "--timeout", timeout];
        with_etcd_away(asks(&etcd, "a", &state, &args))
    };
    fs::create_dir(data.path().join("nodes")).unwrap();
    let waits = Asking::start(asked("500ms"));
    std::thread::sleep(Duration::from_secs(3));
    let waited = waits.end(Signal::TERM);
    assert_eq!((waited.code, waited.stdout.as_str()), (143, ""), "{}", waited.stderr);
    assert!(
        waited.stderr.contains("waiting for etcd: a node that was never in a cluster"),
        "{}",
        waited.stderr
    );

    fs::create_dir(data.path().join("nodes/0")).unwrap();
    let began = Instant::now();
    let starts = run(asked("1s"));
    assert_eq!((starts.code, starts.stdout.as_str()), (0, ""), "{}", starts.stderr);
    assert!(
        starts.stderr.contains("the node has data, and etcd cannot be asked for more"),
        "{}",
        starts.stderr
    );
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    // While merely candidates are missing it waits.
    let mut waits = ask(&etcd, "a", 2, &["--node-data", arg(data.path()), "--wait", "--timeout", "500ms"]);
    waits.args(["--state-dir", arg(state.path())]);
    let waits = Asking::start(waits);
    std::thread::sleep(Duration::from_secs(2));
    let waited = waits.end(Signal::TERM);
    assert!(waited.stderr.contains("only 1 of 2 candidates are there"), "{}", waited.stderr);
    assert_eq!(waited.code, 143);
}

/// As on a read-only disk: everything is as without notes, and said.
#[test]
fn state_directory_that_cannot_be_written_costs_a_warning_and_is_written_once_it_can() {
    let etcd = Etcd::start();
    let dir = scratch();
    let missing = &dir.path().join("not/there/yet");
    let mut asked = ask(&etcd, "a", 1, &["--state-dir", arg(missing)]);
    asked.args(["--timeout", "20s"]);
    let elects = run(asked);
    assert_eq!((elects.code, elects.stdout.as_str()), (0, "a\n"), "{}", elects.stderr);
    assert!(elects.stderr.contains("cannot note what its node is started with"), "{}", elects.stderr);
    let node = FakeNode::start(Manner::Answers(cratedb(200, "crate")));
    let check = node.cratedb();
    let args = ["--check", &check, "--check-interval", "100ms", "--state-dir", arg(missing)];
    let mut daemon = Daemon::spawn(announce(&etcd, "h1", &args));
    daemon.says("announced", PATIENCE);
    daemon.says("this host cannot note that its node is in a cluster", PATIENCE);
    eventually("formed", AT_ONCE + SLACK, || {
        etcd.key(&format!("{STORED}formed")).ok_or_else(|| "no mark".to_owned())
    });
    stays("said once", Duration::from_secs(1), &1, || daemon.lines("this host cannot note").len());
    fs::create_dir_all(missing).unwrap();
    daemon.says("this host has noted now that its node is in a cluster", Duration::from_secs(10) + SLACK);
    let note = remembered(missing, "note-").expect("it is written");
    assert!(note.contains(r#""evidence":"has-master""#), "{note}");
}

/// The kernel's id of the boot is another one there.
#[test]
fn clone_with_the_same_machine_id_waits_for_the_end_of_the_others_lease() {
    let etcd = Etcd::start();
    let first = Asking::registered(&etcd, "a", 2);
    let dir = scratch();
    let id = dir.path().join("boot_id");
    fs::write(&id, "0123456789abcdef0123456789abcdef\n").unwrap();
    let script = format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"", arg(&id));
    let inner = ["--mount", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_crate-discovery")];
    let mut clone = tool_behind("unshare", &inner);
    clone.args(["bootstrap", "--endpoints", &etcd.url(), "--node-name", "a", "--expect", "2"]);
    clone.args(["--timeout", "2s"]);
    let blocked = run(clone);
    assert_eq!((blocked.code, blocked.stdout.as_str()), (78, ""), "{}", blocked.stderr);
    assert!(
        blocked.stderr.contains("another boot of this machine, or a clone of it, has the name a"),
        "{}",
        blocked.stderr
    );
    drop(first);
}
