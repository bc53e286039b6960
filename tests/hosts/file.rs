//! `--output`: a file that is replaced as a whole, on change only, and never by a failure.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use crate::{
    assert_failed, printed, put,
    support::{
        DEFAULT_VALUE,
        daemon::{hosts, run},
        etcd::{arg, scratch},
    },
    three,
};

/// What a file was: replacing it, even by the same content, changes this.
fn identity(path: &Path) -> (u64, i64, i64, u32, String) {
    let meta = fs::metadata(path).unwrap();
    (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.mode() & 0o7777, fs::read_to_string(path).unwrap())
}

#[test]
fn file_is_written_only_when_it_changes() {
    let etcd = three();
    let dir = scratch();
    let path = dir.path().join("seeds");
    let write = || assert_eq!(printed(&etcd, &["--format", "lines", "--output", arg(&path)]), "");

    write();
    assert_eq!(fs::read_to_string(&path).unwrap(), "10.0.0.5:4300\na:4300\n[2001:db8::1]:4301\n");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    let first = identity(&path);
    write();
    assert_eq!(identity(&path), first, "nothing changed");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    put(&etcd, &[("c", DEFAULT_VALUE)]);
    write();
    let changed = identity(&path);
    assert_eq!(changed.4, "10.0.0.5:4300\na:4300\n[2001:db8::1]:4301\nc:4300\n");
    assert_eq!(changed.3, 0o600, "the old file's mode");
    assert_ne!(changed.0, first.0, "replaced, not rewritten: a reader never sees half a file");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn symlink_stays_and_its_target_is_replaced() {
    let etcd = three();
    let dir = scratch();
    let (link, real) = (dir.path().join("link"), dir.path().join("data").join("real"));
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink("data/real", &link).unwrap();
    printed(&etcd, &["--output", arg(&link)]);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("data/real"));
    assert_eq!(fs::read_to_string(&real).unwrap(), "10.0.0.5:4300,a:4300,[2001:db8::1]:4301\n");
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let etcd = three();
    let dir = scratch();
    for path in [dir.path().to_owned(), "/dev/null".into(), dir.path().join("missing").join("file")] {
        let finished = run(hosts(&etcd, &["--output", arg(&path)]));
        assert_failed(&finished, 78);
        assert!(finished.stderr.contains(arg(&path)), "{}", finished.stderr);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn unreadable_etcd_leaves_the_file_and_allow_stale_forgives_it() {
    let mut etcd = three();
    let dir = scratch();
    let (path, none) = (dir.path().join("seeds"), dir.path().join("none"));
    fs::write(&path, "what it was\n").unwrap();
    let before = identity(&path);
    etcd.kill();

    assert_failed(&run(hosts(&etcd, &["--output", arg(&path)])), 69);
    let forgiven = run(hosts(&etcd, &["--output", arg(&path), "--allow-stale"]));
    assert!(forgiven.stderr.contains(" WARN "), "{}", forgiven.stderr);
    assert_eq!(forgiven.printed(), "");
    assert_eq!(identity(&path), before);
    assert_eq!(printed(&etcd, &["--output", arg(&none), "--allow-stale"]), "");
    assert!(!none.exists(), "nothing was read, so nothing is written");

    etcd.restart();
    printed(&etcd, &["--output", arg(&path), "--allow-stale"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "10.0.0.5:4300,a:4300,[2001:db8::1]:4301\n");
}

#[test]
fn allow_stale_forgives_a_refusal_too() {
    let mut etcd = three();
    etcd.enable_auth(&[]);
    let dir = scratch();
    let path = dir.path().join("seeds");
    fs::write(&path, "what it was\n").unwrap();
    assert_failed(&run(hosts(&etcd, &["--output", arg(&path)])), 77);
    assert_eq!(printed(&etcd, &["--output", arg(&path), "--allow-stale"]), "");
    assert_eq!(fs::read_to_string(&path).unwrap(), "what it was\n");
}
