//! `--show`, `--reset`, and what a role has to be allowed.

use crate::{
    Asking, STORED, ask, operate, shown,
    support::{
        DEFAULT_VALUE, PATIENCE,
        daemon::{Daemon, run, tool},
        etcd::Etcd,
        eventually_eq, key_of,
    },
};

#[test]
fn everything_that_is_stored_is_shown() {
    let etcd = Etcd::start();
    assert_eq!(operate(&etcd, &["--show"]).printed(), "epoch\t-\nlist\t-\nformed\t-\nannounced\t0\t-\n");
    let _a = Asking::registered(&etcd, "a", 2);
    let candidates = shown(&etcd, "candidate");
    assert!(candidates.len() == 1 && candidates[0].starts_with("a\t2\t"), "{candidates:?}");
    assert_eq!(run(ask(&etcd, "b", 2, &[])).printed(), "a,b\n");
    etcd.etcdctl(&["put", &format!("{STORED}formed"), "h1"]);
    etcd.etcdctl(&["put", &key_of("h1"), DEFAULT_VALUE]);
    assert_eq!(shown(&etcd, "list"), ["a,b"]);
    assert_eq!(shown(&etcd, "formed"), ["h1"]);
    assert_eq!(shown(&etcd, "announced"), ["1\th1"]);
    etcd.etcdctl(&["put", &key_of("h2"), DEFAULT_VALUE]);
    etcd.etcdctl(&["put", &key_of("junk"), "junk"]);
    assert_eq!(shown(&etcd, "announced"), ["3\th1,h2"], "a key that is no announcement counts, too");
    let epoch: u64 = shown(&etcd, "epoch")[0].parse().unwrap();
    assert!(epoch > 1_700_000_000_000, "milliseconds since 1970: {epoch}");
}

#[test]
fn reset_is_refused_while_anybody_is_announced() {
    let etcd = Etcd::start();
    assert_eq!(run(ask(&etcd, "a", 1, &[])).printed(), "a\n");
    etcd.etcdctl(&["put", &format!("{STORED}formed"), "h1"]);
    assert_eq!(run(ask(&etcd, "a", 1, &[])).printed(), "");

    let unconfirmed = operate(&etcd, &["--reset"]);
    assert_eq!(unconfirmed.code, 2, "{}", unconfirmed.stderr);
    let h1 = Daemon::announced(&etcd, "h1", &[]);
    let refused = operate(&etcd, &["--reset", "--yes"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (78, ""), "{}", refused.stderr);
    let sentence = "error: failed to reset: /services/crate/h1 is announced, so there may be a cluster";
    assert!(refused.stderr.contains(sentence), "{}", refused.stderr);
    assert_eq!((shown(&etcd, "list"), shown(&etcd, "formed")), (vec!["a".into()], vec!["h1".into()]));

    let before: u64 = shown(&etcd, "epoch")[0].parse().unwrap();
    drop(h1);
    eventually_eq("its lease ends", PATIENCE, &0, || etcd.announced().len());
    assert_eq!(operate(&etcd, &["--reset", "--yes"]).printed(), "");
    let after: u64 = shown(&etcd, "epoch")[0].parse().unwrap();
    assert!(after > before, "{after} follows {before}");
    assert_eq!((shown(&etcd, "list"), shown(&etcd, "formed")), (vec!["-".into()], vec!["-".into()]));
    assert_eq!(run(ask(&etcd, "b", 1, &[])).printed(), "b\n");
    assert_eq!(shown(&etcd, "epoch")[0], after.to_string(), "the list is of the epoch that the reset began");
}

/// The lines that docs/operating.md gives.
#[test]
fn documented_permissions_suffice() {
    let mut etcd = Etcd::start();
    let (own, all) = (key_of("h1"), "/services/crate/");
    etcd.enable_auth(&[
        ("node", "secret", &[&["--prefix=true", "readwrite", STORED], &["--prefix=true", "read", all]]),
        (
            "h1",
            "secret",
            &[&["readwrite", &own], &["--prefix=true", "readwrite", STORED], &["--prefix=true", "read", all]],
        ),
        ("narrow", "secret", &[&["--prefix=true", "read", all]]),
    ]);
    let login = |mut command: std::process::Command, user: &str| {
        command.env("ETCDCTL_USER", format!("{user}:secret"));
        command
    };
    let refused = run(login(ask(&etcd, "a", 1, &[]), "narrow"));
    assert_eq!((refused.code, refused.stdout.as_str()), (77, ""), "{}", refused.stderr);
    assert!(refused.stderr.contains("permission denied"), "{}", refused.stderr);
    assert_eq!(run(ask(&etcd, "a", 1, &[])).code, 77, "no login");
    assert_eq!(run(login(ask(&etcd, "a", 1, &[]), "node")).printed(), "a\n");
    let operate = |args: &[&str]| {
        let mut command = tool();
        command.args(["bootstrap", "--endpoints", &etcd.url()]).args(args);
        run(login(command, "node")).printed()
    };
    assert!(operate(&["--show"]).contains("\nlist\ta\n"));
    operate(&["--reset", "--yes"]);
    assert!(operate(&["--show"]).contains("\nlist\t-\n"));
}
