//! Row 32: the place of a file that is kept is missing, read-only, full, or on a disk that hangs, at the start as later.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    delete, lines, put,
    support::{
        AT_ONCE, PATIENCE, SLACK,
        daemon::{Daemon, announce, copy_binary, tool_behind, watch},
        disk::{Disk, SmallDisk},
        etcd::{Etcd, arg, scratch},
        eventually, eventually_eq, key_of, stays,
    },
};

const WARNED: &str = "the file is left as it is";
const MENDED: &str = "the file can be written again";

/// The warnings that a file cannot be written, whichever verb says so.
fn warnings(daemon: &Daemon) -> usize {
    daemon.stderr().matches(WARNED).count()
}

/// Keeps `path` in one of the three ways; the first one announces `a`.
fn keeping(etcd: &Etcd, path: &Path, way: usize) -> Daemon {
    Daemon::spawn(match way {
        0 => announce(etcd, "a", &["--seed-file", arg(path)]),
        1 => watch(etcd, &["--seed-file", arg(path)]),
        _ => watch(etcd, &["--format", "lines", "--output", arg(path)]),
    })
}

#[track_caller]
fn holds(path: &Path, hosts: &[&str]) {
    // A back-off that has doubled for the few seconds of these tests is shorter than that.
    eventually_eq("the file holds", PATIENCE, &lines(hosts), || fs::read_to_string(path).unwrap_or_default());
}

/// Starts with a place that cannot be written to, which is warned about once, and mended by `mend`.
fn is_mended_without_a_restart(place: &Path, reason: &str, spoil: impl Fn(), mend: impl Fn()) {
    let etcd = Etcd::start();
    put(&etcd, &["b"]);
    for way in 0..3 {
        let path = place.join(format!("seeds{way}"));
        spoil();
        let mut daemon = keeping(&etcd, &path, way);
        eventually("it warns", PATIENCE, || {
            let stderr = daemon.stderr();
            let line = stderr.lines().find(|line| line.contains(WARNED));
            line.filter(|line| line.contains(arg(&path)) && line.contains(reason)).map(drop).ok_or(stderr)
        });
        if way == 0 {
            daemon.says("announced", PATIENCE);
        }
        stays("it runs", Duration::from_secs(2), &None, || daemon.ended());
        assert_eq!(warnings(&daemon), 1, "{}", daemon.stderr());
        mend();
        holds(&path, if way == 0 { &["a", "b"] } else { &["b"] });
        eventually("it says so", PATIENCE, || {
            let stderr = daemon.stderr();
            if stderr.contains(MENDED) { Ok(()) } else { Err(stderr) }
        });
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    }
}

#[test]
fn place_that_comes_late_is_waited_for() {
    let dir = scratch();
    let place = dir.path().join("config");
    is_mended_without_a_restart(
        &place,
        "no such file or directory",
        || _ = fs::remove_dir_all(&place),
        || fs::create_dir(&place).unwrap(),
    );
}

#[test]
fn place_that_is_read_only_is_waited_for() {
    let disk = SmallDisk::in_memory();
    is_mended_without_a_restart(&disk.path(), "read-only file system", || disk.forbid(), || disk.allow());
}

#[test]
fn place_that_is_full_is_waited_for() {
    let disk = SmallDisk::in_memory();
    is_mended_without_a_restart(&disk.path(), "no space left on device", || disk.fill(), || disk.free());
}

/// No signal ends a wait for such a disk, so the process itself ends when the disk is back; the key does not wait.
#[test]
fn disk_that_hangs_holds_up_neither_start_nor_announcement_nor_withdrawal() {
    let etcd = Etcd::start();
    let disk = Disk::create();
    for (number, in_place) in [&[][..], &["--seed-file-in-place"]].into_iter().enumerate() {
        let path = disk.path().join(format!("seeds{number}"));
        let hangs = disk.hang();
        let mut daemon = Daemon::announce(&etcd, "a", &[&["--seed-file", arg(&path)], in_place].concat());
        // Where this test fails, the disk is let go first; only then the process can end.
        let hangs = hangs;
        // The first look is waited for, a second and no more.
        daemon.says("announced", AT_ONCE + AT_ONCE + SLACK);
        daemon.says("feeds: the disk does not answer", PATIENCE);
        assert!(etcd.key(&key_of("a")).is_some());
        assert!(!path.exists());
        drop(hangs);
        holds(&path, &["a"]);
        daemon.says("feeds: the disk answers again", PATIENCE);

        let hangs = disk.hang();
        put(&etcd, &["b"]);
        eventually("it writes", PATIENCE, || {
            let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten();
            let names: Vec<String> =
                tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect();
            let writers = names.iter().filter(|name| name.trim() == "file").count();
            if writers == 1 { Ok(()) } else { Err(format!("{names:?}")) }
        });
        // More news, and still one thread.
        put(&etcd, &["c"]);
        delete(&etcd, &["b"]);
        let writers = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten();
            tasks
                .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|n| n == "file\n"))
                .count()
        };
        stays("one writer", Duration::from_secs(2), &1, writers);
        daemon.signal(Signal::TERM);
        eventually_eq("the key is gone", AT_ONCE + SLACK, &None, || etcd.key(&key_of("a")).map(drop));
        drop(hangs);
        assert_eq!(daemon.wait(PATIENCE), 0);
        delete(&etcd, &["c"]);
    }
}

/// A copy of the binary that every account can run, and a directory for it.
fn for_everybody(dir: &Path) -> PathBuf {
    let binary = dir.join("crate-discovery");
    copy_binary(&binary);
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    binary
}

/// tokio's own pool panics there.
#[test]
fn file_is_tried_again_where_no_thread_can_be_started() {
    let (etcd, dir) = (Etcd::start(), scratch());
    let binary = for_everybody(dir.path());
    let path = dir.path().join("seeds");
    let flags =
        ["--nproc=1:100", "setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", arg(&binary)];
    let mut command = tool_behind("prlimit", &flags);
    command.args(["announce", "--host", "a", "--address", "127.0.0.1", "--endpoints", &etcd.url()]);
    command.args(["--seed-file", arg(&path)]);
    let mut daemon = Daemon::spawn(command);
    daemon.says("announced", PATIENCE);
    let line = daemon.says(&format!("feeds: {WARNED}"), PATIENCE);
    assert!(line.contains("no thread can be started"), "{line}");
    let pid = daemon.pid().to_string();
    // Whoever may not change another account's limits may change their own.
    let account =
        ["--reuid=54321", "--regid=54321", "--clear-groups", "prlimit", "--nproc=100:100", "--pid", &pid];
    let done = Command::new("setpriv").args(account).status().unwrap();
    assert!(done.success());
    holds(&path, &["127.0.0.1"]);
    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
}

#[test]
fn file_in_place_is_never_cut_by_a_full_disk() {
    for disk in [SmallDisk::in_memory(), SmallDisk::without_reservation()] {
        let etcd = Etcd::start();
        put(&etcd, &["old"]);
        let path = disk.path().join("seeds");
        let mut daemon = Daemon::spawn(watch(&etcd, &["--seed-file-in-place", "--seed-file", arg(&path)]));
        holds(&path, &["old"]);
        disk.fill();
        let hosts: Vec<String> = (0..200).map(|n| format!("a-host-with-a-rather-long-name-{n:03}")).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        put(&etcd, &hosts);
        let whole = |content: &str| content.is_empty() || content.ends_with(":4300\n");
        let since = std::time::Instant::now();
        while since.elapsed() < Duration::from_secs(3) {
            let content = fs::read_to_string(&path).unwrap();
            let content = content.trim_end_matches('#');
            assert!(whole(content) && content.contains("old:4300\n"), "{content:?}");
        }
        daemon.says(WARNED, PATIENCE);
        // 200 such hosts do not fit at all; ten do.
        disk.free();
        delete(&etcd, &hosts[10..]);
        holds(&path, &[&hosts[..10], &["old"]].concat());
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    }
}

/// Where the kernel does not protect hard links, anybody can give a file of ours a second name there.
#[test]
fn file_in_place_with_another_name_in_a_sticky_directory_is_not_touched() {
    let etcd = Etcd::start();
    put(&etcd, &["b"]);
    let dir = scratch();
    let (shared, victim) = (dir.path().join("shared"), dir.path().join("victim"));
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(&victim, "old\n").unwrap();
    let path = shared.join("seeds");
    fs::hard_link(&victim, &path).unwrap();
    let mut daemon = Daemon::spawn(watch(&etcd, &["--seed-file-in-place", "--seed-file", arg(&path)]));
    let line = daemon.says(WARNED, PATIENCE);
    assert!(line.contains("it has another name elsewhere"), "{line}");
    stays("the victim", Duration::from_secs(2), &"old\n".to_owned(), || fs::read_to_string(&victim).unwrap());
    fs::remove_file(&path).unwrap();
    holds(&path, &["b"]);
    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
}

/// A stranger's link in /tmp must not end an announcement, so this is waited for, too.
#[test]
fn link_of_another_user_in_a_sticky_directory_is_not_followed_and_ends_nothing() {
    let etcd = Etcd::start();
    put(&etcd, &["b"]);
    let dir = scratch();
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "old\n").unwrap();
    for in_place in [&[][..], &["--seed-file-in-place"]] {
        let path = shared.join("seeds");
        symlink(&victim, &path).unwrap();
        lchown(&path, Some(54321), Some(54321)).unwrap();
        let mut daemon = Daemon::spawn(watch(&etcd, &[&["--seed-file", arg(&path)], in_place].concat()));
        let line = daemon.says(WARNED, PATIENCE);
        assert!(line.contains("the link \\\"seeds\\\" on the way was made by another user"), "{line}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "old\n");
        fs::remove_file(&path).unwrap();
        holds(&path, &["b"]);
        assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
        fs::remove_file(&path).unwrap();
    }
}
