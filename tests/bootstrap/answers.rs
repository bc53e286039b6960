//! Who is told what.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    Asking, STORED, ask, shown,
    support::{
        DEFAULT_VALUE, PATIENCE, SLACK,
        daemon::{Daemon, run, tool_behind},
        etcd::{Etcd, arg, scratch},
        eventually_eq, free_port, key_of, signal, stays,
    },
};

/// `bootstrap` on another machine: in a mount namespace of its own, with another machine id.
fn ask_elsewhere(
    etcd: &Etcd,
    name: &str,
    expect: u32,
    args: &[&str],
) -> (tempfile::TempDir, std::process::Command) {
    let dir = scratch();
    let id = dir.path().join("machine-id");
    fs::write(&id, "0123456789abcdef0123456789abcdef\n").unwrap();
    // As root, or as root of a user namespace.
    let namespaces: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];
    let allowed = namespaces.into_iter().find(|flags| {
        let mut probe = tool_behind("unshare", flags);
        probe.arg("true");
        run(probe).code == 0
    });
    let flags =
        allowed.expect("another machine needs `unshare --mount`: run as root or allow user namespaces");
    let script = format!("mount --bind {} /etc/machine-id && exec \"$@\"", arg(&id));
    let inner = [flags, &["sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_crate-discovery")]].concat();
    let mut command = tool_behind("unshare", &inner);
    command.args(["bootstrap", "--endpoints", &etcd.url()]);
    command.args(["--node-name", name, "--expect", &expect.to_string(), "--hold", "100ms"]).args(args);
    (dir, command)
}

/// A list of `a` and `b`, in this order.
fn frozen(etcd: &Etcd) {
    let a = Asking::registered(etcd, "a", 2);
    assert_eq!(run(ask(etcd, "b", 2, &[])).printed(), "a,b\n");
    assert_eq!(a.finish(PATIENCE).printed(), "a,b\n");
}

#[test]
fn first_candidates_are_the_list_and_leave_nothing_behind() {
    let etcd = Etcd::start();
    frozen(&etcd);
    assert_eq!(shown(&etcd, "list"), ["a,b"]);
    eventually_eq("no candidate is left", PATIENCE, &(vec![], 0), || {
        (shown(&etcd, "candidate"), etcd.leases().len())
    });
    // The 2014 readers, and everybody else, read the prefix: nothing of this is under it.
    assert_eq!(etcd.announced(), Vec::<String>::new());
}

#[test]
fn late_and_restarted_nodes_get_the_same_list() {
    let etcd = Etcd::start();
    frozen(&etcd);
    assert_eq!(run(ask(&etcd, "c", 2, &[])).printed(), "a,b\n", "late");
    assert_eq!(run(ask(&etcd, "c", 5, &[])).printed(), "a,b\n", "late, of another mind");
    assert_eq!(run(ask(&etcd, "a", 2, &[])).printed(), "a,b\n", "started again");
    // Announced, and no master elected yet.
    let _a = Daemon::announced(&etcd, "a", &[]);
    assert_eq!(run(ask(&etcd, "b", 2, &[])).printed(), "a,b\n", "while the cluster forms");
}

#[test]
fn node_that_was_killed_while_it_waited_is_replaced_by_itself() {
    let etcd = Etcd::start();
    let first = Asking::registered(&etcd, "a", 2);
    let killed = etcd.key(&format!("{STORED}candidates/a")).unwrap();
    assert_eq!(first.kill(), "");
    let again = Asking::start(ask(&etcd, "a", 2, &[]));
    eventually_eq("the key is the new one's", PATIENCE, &true, || {
        etcd.key(&format!("{STORED}candidates/a")).is_some_and(|key| key.lease != killed.lease)
    });
    assert_eq!(run(ask(&etcd, "b", 2, &[])).printed(), "a,b\n");
    assert_eq!(again.finish(PATIENCE).printed(), "a,b\n");
}

#[test]
fn node_that_died_before_the_list_was_frozen_is_not_in_it() {
    let etcd = Etcd::start();
    let dead = Asking::registered(&etcd, "a", 2);
    dead.kill();
    // TTL, the expiry scan, and what a busy machine adds.
    eventually_eq("its lease ends", Duration::from_secs(12) + SLACK, &None, || {
        etcd.key(&format!("{STORED}candidates/a"))
    });
    let b = Asking::registered(&etcd, "b", 2);
    assert_eq!(run(ask(&etcd, "c", 2, &[])).printed(), "b,c\n");
    assert_eq!(b.finish(PATIENCE).printed(), "b,c\n");
}

#[test]
fn node_that_is_told_to_end_is_no_candidate_any_more() {
    let etcd = Etcd::start();
    let a = Asking::registered(&etcd, "a", 2);
    signal(a.pid(), Signal::TERM);
    let finished = a.finish(PATIENCE);
    assert_eq!((finished.code, finished.stdout.as_str()), (143, ""), "{}", finished.stderr);
    assert_eq!((shown(&etcd, "candidate"), etcd.leases().len()), (vec![], 0));
}

#[test]
fn same_name_from_another_machine_waits_and_is_refused() {
    let etcd = Etcd::start();
    let a = Asking::registered(&etcd, "a", 2);
    let (_id, command) = ask_elsewhere(&etcd, "a", 2, &["--timeout", "2s"]);
    let finished = run(command);
    assert_eq!((finished.code, finished.stdout.as_str()), (78, ""), "{}", finished.stderr);
    assert!(finished.stderr.contains("error: another machine ("), "{}", finished.stderr);

    let (_id, command) = ask_elsewhere(&etcd, "b", 2, &[]);
    assert_eq!(run(command).printed(), "a,b\n");
    assert_eq!(a.finish(PATIENCE).printed(), "a,b\n");
    // Listed, and not this one: at once.
    let (_id, command) = ask_elsewhere(&etcd, "a", 2, &[]);
    let began = Instant::now();
    let finished = run(command);
    assert_eq!((finished.code, finished.stdout.as_str()), (78, ""), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("a is in the list as a node of another machine ("),
        "{}",
        finished.stderr
    );
    assert!(began.elapsed() < Duration::from_secs(5) + SLACK, "{:?}", began.elapsed());
}

#[test]
fn different_numbers_block_until_they_agree() {
    let etcd = Etcd::start();
    let a = Asking::registered(&etcd, "a", 2);
    let b = run(ask(&etcd, "b", 3, &["--timeout", "2s"]));
    assert_eq!((b.code, b.stdout.as_str()), (78, ""), "{}", b.stderr);
    let sentence = "b expects 3 candidates and a expects 2: set the same \"--expect\" on every node";
    assert!(b.stderr.contains(&format!("error: {sentence}")), "{}", b.stderr);
    assert!(b.stderr.contains(" WARN no agreement yet"), "{}", b.stderr);
    assert_eq!(shown(&etcd, "list"), ["-"]);
    assert_eq!(run(ask(&etcd, "b", 2, &[])).printed(), "a,b\n");
    assert_eq!(a.finish(PATIENCE).printed(), "a,b\n");
}

#[test]
fn cluster_that_is_announced_is_joined() {
    let etcd = Etcd::start();
    // While one waits already: what it sees then is the cluster.
    let a = Asking::registered(&etcd, "a", 2);
    etcd.etcdctl(&["put", &key_of("old"), DEFAULT_VALUE]);
    let finished = a.finish(PATIENCE);
    assert_eq!((finished.code, finished.stdout.as_str()), (0, ""), "{}", finished.stderr);
    assert!(finished.stderr.contains("/services/crate/old is announced"), "{}", finished.stderr);
    let joined = run(ask(&etcd, "b", 1, &["--format", "env"]));
    assert_eq!(joined.printed(), "CRATE_BOOTSTRAP_FLAGS=\n");
    assert_eq!(shown(&etcd, "list"), ["-"]);
}

#[test]
fn too_few_candidates_end_with_69_and_a_file_that_names_nobody() {
    let etcd = Etcd::start();
    let dir = scratch();
    let file = dir.path().join("bootstrap.env");
    fs::write(&file, "CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=stale\n").unwrap();
    let asked = run(ask(&etcd, "a", 2, &["--timeout", "1s", "--format", "env", "--output", arg(&file)]));
    assert_eq!((asked.code, asked.stdout.as_str()), (69, ""), "{}", asked.stderr);
    assert!(
        asked.stderr.contains("error: only 1 of 2 candidates are there: a (waited 1s)"),
        "{}",
        asked.stderr
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "CRATE_BOOTSTRAP_FLAGS=\n");
    assert_eq!(etcd.leases().len(), 0, "it has left");

    let asked = ask(&etcd, "a", 1, &["--format", "env", "--output", arg(&file)]);
    assert_eq!(run(asked).printed(), "");
    let flag = "CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=a\n";
    assert_eq!(fs::read_to_string(&file).unwrap(), flag);
}

#[test]
fn stale_file_names_nobody_from_the_first_moment_on() {
    let etcd = Etcd::start();
    let dir = scratch();
    let file = dir.path().join("bootstrap.env");
    fs::write(&file, "CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=stale\n").unwrap();
    let asking = Asking::start(ask(&etcd, "a", 2, &["--format", "env", "--output", arg(&file)]));
    let emptied = "CRATE_BOOTSTRAP_FLAGS=\n".to_owned();
    eventually_eq("emptied", PATIENCE, &emptied, || fs::read_to_string(&file).unwrap());
    asking.kill();
    assert_eq!(fs::read_to_string(&file).unwrap(), emptied);
}

#[test]
fn etcd_that_does_not_answer_ends_it_in_time_with_69_and_no_flags() {
    let etcd = Etcd::start();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let timed = |url: &str| {
        let mut command = ask(&etcd, "a", 1, &["--timeout", "2s", "--format", "env"]);
        command.args(["--endpoints", url]);
        let command = replaced_endpoint(command, url);
        let began = Instant::now();
        let finished = run(command);
        assert_eq!((finished.code, finished.stdout.as_str()), (69, ""), "{}", finished.stderr);
        assert!(
            finished.stderr.contains("error: failed to agree on the first masters: "),
            "{}",
            finished.stderr
        );
        assert!(began.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", began.elapsed());
    };
    timed(&nobody);
    etcd.freeze();
    timed(&etcd.url());
    etcd.thaw();
}

#[test]
fn whoever_waits_for_the_others_waits_for_etcd_too_and_says_so() {
    let mut etcd = Etcd::start();
    let patient = ["--timeout", "1s", "--format", "env", "--wait"];
    let waits = Asking::start(ask(&etcd, "a", 2, &patient));
    let key = format!("{STORED}candidates/a");
    eventually_eq("it is a candidate", PATIENCE, &true, || etcd.key(&key).is_some());
    stays("it waits for longer than its time-out", Duration::from_secs(3), &true, || {
        etcd.key(&key).is_some()
    });
    etcd.kill();
    // Some time-outs more.
    std::thread::sleep(Duration::from_secs(4));
    etcd.restart();
    eventually_eq("it is a candidate again", PATIENCE, &true, || etcd.key(&key).is_some());
    assert_eq!(run(ask(&etcd, "b", 2, &[])).printed(), "a,b\n");
    let elected = waits.finish(PATIENCE);
    assert_eq!(
        (elected.code, elected.stdout.as_str()),
        (0, "CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=a,b\n"),
        "{}",
        elected.stderr
    );
    let said = "waiting for etcd: a node that was never in a cluster has to be told who may elect";
    assert_eq!(elected.stderr.matches(said).count(), 1, "{}", elected.stderr);
}

/// The same command for another endpoint.
fn replaced_endpoint(command: std::process::Command, url: &str) -> std::process::Command {
    let mut fresh = crate::support::daemon::tool();
    let mut args = command.get_args();
    while let Some(arg) = args.next() {
        if arg == "--endpoints" {
            args.next();
        } else {
            fresh.arg(arg);
        }
    }
    fresh.args(["--endpoints", url]);
    fresh
}

#[test]
fn candidate_outlives_a_restart_and_a_wipe_of_etcd() {
    let mut etcd = Etcd::start();
    let a = Asking::registered(&etcd, "a", 2);
    etcd.kill();
    etcd.restart();
    let key = format!("{STORED}candidates/a");
    eventually_eq("still a candidate", PATIENCE, &true, || etcd.key(&key).is_some());
    etcd.wipe();
    eventually_eq("a candidate again", PATIENCE, &true, || etcd.key(&key).is_some());
    assert_eq!(run(ask(&etcd, "b", 2, &[])).printed(), "a,b\n");
    assert_eq!(a.finish(PATIENCE).printed(), "a,b\n");
}

#[test]
fn none_expected_means_nobody_is_asked() {
    let etcd = Etcd::start();
    let dir = scratch();
    let file = dir.path().join("bootstrap.env");
    fs::write(&file, "CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=stale\n").unwrap();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let asked = ask(&etcd, "a", 0, &["--format", "env", "--output", arg(&file)]);
    assert_eq!(run(replaced_endpoint(asked, &nobody)).printed(), "");
    assert_eq!(fs::read_to_string(&file).unwrap(), "CRATE_BOOTSTRAP_FLAGS=\n");
}

#[test]
fn junk_is_no_candidate_and_a_broken_list_is_no_missing_list() {
    let etcd = Etcd::start();
    etcd.etcdctl(&["put", &format!("{STORED}candidates/a,b"), r#"{"expect":1,"machine":"x"}"#]);
    etcd.etcdctl(&["put", &format!("{STORED}candidates/j"), "junk"]);
    // Lines of somebody else's, and nobody behind a key.
    let forged = r#"{"expect":2,"machine":"x\n<2>forged"}"#;
    etcd.etcdctl(&["put", &format!("{STORED}candidates/k"), forged]);
    let nobodys = r#"{"expect":2,"machine":"0123456789abcdef0123456789abcdef"}"#;
    etcd.etcdctl(&["put", &format!("{STORED}candidates/l"), nobodys]);
    let asked = run(ask(&etcd, "a", 2, &["--timeout", "1s"]));
    assert_eq!((asked.code, asked.stdout.as_str()), (69, ""), "{}", asked.stderr);
    assert_eq!(asked.stderr.matches("skipped a key that is no candidate").count(), 4, "{}", asked.stderr);

    let node = r#"{"name":"a","machine":"0123456789abcdef0123456789abcdef"}"#;
    for list in [r#"{"nodes":[]}"#.to_owned(), format!(r#"{{"nodes":[{node},{node}]}}"#)] {
        etcd.etcdctl(&["put", &format!("{STORED}list"), &list]);
        let asked = run(ask(&etcd, "b", 1, &["--format", "env"]));
        assert_eq!((asked.code, asked.stdout.as_str()), (78, ""), "{list}: {}", asked.stderr);
    }
    etcd.etcdctl(&["put", &format!("{STORED}list"), "junk"]);
    let asked = run(ask(&etcd, "a", 1, &[]));
    assert_eq!((asked.code, asked.stdout.as_str()), (78, ""), "{}", asked.stderr);
    assert!(asked.stderr.contains("the frozen list is invalid"), "{}", asked.stderr);
    stays("nothing is put in its place", Duration::from_millis(300), &"junk".to_owned(), || {
        etcd.key(&format!("{STORED}list")).unwrap().value
    });
}

#[test]
fn what_somebody_else_wrote_forges_no_line() {
    let etcd = Etcd::start();
    let mut raw = crate::support::observer::Raw::connect(&etcd);
    raw.put(b"/services/crate/\x1b[31mRED\n<3>error: forged", b"hi");
    let joined = run(ask(&etcd, "a", 1, &[]));
    assert_eq!(joined.code, 0, "{}", joined.stderr);
    assert!(joined.stderr.contains("If there is no cluster: stop all nodes"), "{}", joined.stderr);
    let refused = crate::operate(&etcd, &["--reset", "--yes"]);
    raw.put(format!("{STORED}formed").as_bytes(), b"x\n<2>forged\x1b]0;title\x07");
    let formed = run(ask(&etcd, "a", 1, &[]));
    let shown = crate::operate(&etcd, &["--show"]);
    for finished in [joined, refused, formed, shown] {
        let text = finished.stderr + &finished.stdout;
        assert!(!text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with('<')), "{text:?}");
    }
}
