//! `--seed-file`: CrateDB's `unicast_hosts.txt`.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    Kept, delete, identity, lines, put,
    support::{
        AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK,
        daemon::{Daemon, announce, tool, watch},
        etcd::{Etcd, arg, scratch},
        eventually_eq, key_of,
        observer::Raw,
        proxy::{Mode, Proxy},
        seed_hosts_reader, stays,
    },
};

#[test]
fn joins_and_leaves_reach_the_file() {
    let etcd = Etcd::start();
    let kept = Kept::start(&etcd, &[]);
    kept.holds(&[], PATIENCE);
    let mut first = Daemon::announced(&etcd, "b", &[]);
    kept.holds(&["b"], AT_ONCE + SLACK);
    let _second = Daemon::announced(&etcd, "a", &[]);
    kept.holds(&["a", "b"], AT_ONCE + SLACK);
    assert_eq!(first.end(Signal::TERM, PATIENCE), 0);
    kept.holds(&["a"], AT_ONCE + SLACK);
    assert_eq!(kept.daemon.stdout(), "", "what is kept is not printed");
}

#[test]
fn announcer_keeps_a_file_with_everybody_and_leaves_it_behind() {
    let etcd = Etcd::start();
    let dir = scratch();
    let path = dir.path().join("unicast_hosts.txt");
    put(&etcd, &["b"]);
    let mut daemon = Daemon::announced(&etcd, "a", &["--seed-file", arg(&path)]);
    let holds = |hosts: &[&str]| {
        eventually_eq("the file holds", AT_ONCE + SLACK, &lines(hosts), || {
            fs::read_to_string(&path).unwrap()
        });
    };
    holds(&["a", "b"]);
    put(&etcd, &["c"]);
    holds(&["a", "b", "c"]);
    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
    assert_eq!(etcd.key(&key_of("a")), None);
    assert_eq!(fs::read_to_string(&path).unwrap(), lines(&["a", "b", "c"]));
}

/// What happens while it withdraws is no news to its own node any more, its withdrawal above all.
#[test]
fn announcer_that_withdraws_leaves_the_file_as_it_is() {
    let etcd = Etcd::start();
    let proxy = Proxy::start(etcd.port());
    let dir = scratch();
    let path = dir.path().join("unicast_hosts.txt");
    let mut command = tool();
    command.args(["announce", "--endpoints", &proxy.url(), "--host", "a", "--seed-file", arg(&path)]);
    let mut daemon = Daemon::spawn(command);
    eventually_eq("the file holds", PATIENCE, &lines(&["a"]), || {
        fs::read_to_string(&path).unwrap_or_default()
    });
    // The answer to the withdrawal comes later than the news.
    proxy.set(Mode::Delay(Duration::from_millis(400)));
    daemon.signal(Signal::TERM);
    put(&etcd, &["b"]);
    assert_eq!(daemon.wait(PATIENCE), 0);
    assert_eq!(fs::read_to_string(&path).unwrap(), lines(&["a"]));
}

#[test]
fn announcer_takes_its_feeds_from_the_environment() {
    let etcd = Etcd::start();
    let dir = scratch();
    let path = dir.path().join("unicast_hosts.txt");
    fs::write(&path, "").unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let mut command = announce(&etcd, "a", &[]);
    command
        .env("CRATE_DISCOVERY_SEED_FILE", &path)
        .env("CRATE_DISCOVERY_SEED_FILE_IN_PLACE", "true")
        .env("CRATE_DISCOVERY_HOLD", "1s");
    let daemon = Daemon::spawn(command);
    eventually_eq("the file holds", PATIENCE, &lines(&["a"]), || fs::read_to_string(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert!(!daemon.stderr().contains("unknown"), "{}", daemon.stderr());
}

#[test]
fn each_line_is_one_that_cratedb_takes() {
    let etcd = Etcd::start();
    let kept = Kept::holding(&etcd, &[], &[]);
    let mut raw = Raw::connect(&etcd);
    for (host, value) in [
        ("node_1.example-2.org", DEFAULT_VALUE),
        ("10.0.0.5", r#"{"http":4200,"transport":65535}"#),
        ("2001:db8::1", DEFAULT_VALUE),
        ("named", r#"{"http":4200,"transport":4301,"address":"::ffff:10.0.0.6"}"#),
        ("#comment", DEFAULT_VALUE),
        (" ", DEFAULT_VALUE),
        ("", DEFAULT_VALUE),
        ("two\nlines", DEFAULT_VALUE),
        ("[::1]", DEFAULT_VALUE),
        ("a:1", DEFAULT_VALUE),
    ] {
        raw.put(key_of(host).as_bytes(), value.as_bytes());
    }
    let expected = [
        ("10.0.0.5", 65535),
        ("2001:db8::1", 4300),
        ("::ffff:10.0.0.6", 4301),
        ("node_1.example-2.org", 4300),
    ];
    let expected = expected.map(|(host, port)| (host.to_owned(), port)).to_vec();
    eventually_eq("everybody is there", PATIENCE, &expected, || seed_hosts_reader::read(&kept.path));
    assert_eq!(kept.content().lines().count(), 4);
    assert!(kept.content().contains("[2001:db8::1]:4300\n[::ffff:10.0.0.6]:4301\n"), "{}", kept.content());
}

#[test]
fn file_is_made_empty_before_etcd_answers_and_never_emptied() {
    let mut etcd = Etcd::start();
    put(&etcd, &["a"]);
    etcd.kill();
    for in_place in [&[][..], &["--seed-file-in-place"]] {
        let mut kept = Kept::start(&etcd, in_place);
        kept.daemon.says("no endpoint of etcd answers", PATIENCE);
        let meta = fs::metadata(&kept.path).unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o7777), (0, 0o644));
        assert_eq!(kept.daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);

        fs::write(&kept.path, "old:4300\n").unwrap();
        let before = identity(&kept.path);
        let mut command = watch(&etcd, &["--seed-file", arg(&kept.path)]);
        command.args(in_place);
        let mut again = Daemon::spawn(command);
        again.says("no endpoint of etcd answers", PATIENCE);
        assert_eq!(kept.content(), "old:4300\n");
        assert_eq!(identity(&kept.path), before);
    }
}

#[test]
fn nothing_is_written_when_nothing_changes() {
    let mut etcd = Etcd::start();
    put(&etcd, &["a", "b"]);
    for in_place in [&[][..], &["--seed-file-in-place"]] {
        let mut kept = Kept::holding(&etcd, &["a", "b"], in_place);
        let before = identity(&kept.path);
        // The same again, what does not show, junk, a restart of etcd, and one of ours.
        put(&etcd, &["a", "b"]);
        let mut raw = Raw::connect(&etcd);
        raw.put(key_of("b").as_bytes(), br#"{"http":1,"transport":4300}"#);
        raw.put(key_of("junk").as_bytes(), b"junk");
        kept.daemon.says("skipped a key", PATIENCE);
        etcd.kill();
        kept.daemon.says("the hosts are stale", PATIENCE);
        etcd.restart();
        kept.daemon.says("the hosts are live again", PATIENCE);
        assert_eq!(kept.daemon.end(Signal::TERM, PATIENCE), 0);
        let mut command = watch(&etcd, &["--seed-file", arg(&kept.path), "--log", "debug"]);
        command.args(in_place);
        let mut again = Daemon::spawn(command);
        again.says("written", PATIENCE);
        assert_eq!(identity(&kept.path), before);
        raw.delete(key_of("junk").as_bytes());
    }
}

#[test]
fn file_in_place_keeps_its_inode_and_a_replaced_one_does_not() {
    let etcd = Etcd::start();
    for (in_place, keeps) in [(&[][..], false), (&["--seed-file-in-place"], true)] {
        let kept = Kept::holding(&etcd, &[], in_place);
        fs::set_permissions(&kept.path, fs::Permissions::from_mode(0o640)).unwrap();
        // What a bind mount of the file alone shows.
        let mounted = fs::File::open(&kept.path).unwrap();
        let inode = fs::metadata(&kept.path).unwrap().ino();
        put(&etcd, &["a", "b", "c"]);
        kept.holds(&["a", "b", "c"], PATIENCE);
        delete(&etcd, &["a", "c"]);
        kept.holds(&["b"], PATIENCE);
        let meta = fs::metadata(&kept.path).unwrap();
        assert_eq!(meta.ino() == inode, keeps);
        assert_eq!(meta.permissions().mode() & 0o7777, 0o640);
        assert_eq!(mounted.metadata().unwrap().len(), if keeps { 7 } else { 0 });
        let directory = kept.path.parent().unwrap();
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1, "no temporary file is left");
        delete(&etcd, &["b"]);
        kept.holds(&[], PATIENCE);
    }
}

/// Reads `path` over and over, until `churn`, done again and again, has shown it in this many contents.
fn read_in_a_loop(path: &Path, check: impl Fn(&str) + Send + 'static, mut churn: impl FnMut()) {
    const ENOUGH: usize = 200;
    let seen = Arc::new(AtomicUsize::new(0));
    let (path, counter) = (path.to_owned(), Arc::clone(&seen));
    let reader = std::thread::spawn(move || {
        let mut last = String::new();
        while counter.load(Ordering::Relaxed) < ENOUGH {
            let content = fs::read_to_string(&path).expect("the file is always there");
            check(&content);
            if content != last {
                counter.fetch_add(1, Ordering::Relaxed);
                last = content;
            }
        }
    });
    let since = Instant::now();
    while !reader.is_finished() {
        assert!(since.elapsed() < 3 * PATIENCE, "{} contents are no test", seen.load(Ordering::Relaxed));
        churn();
    }
    reader.join().expect("it saw nothing wrong");
}

/// Everybody's seed in `content`, as a reader in a loop must see them: `h0` to `h<n>`, and none between missing.
fn is_whole(content: &str) {
    let seeds = seed_hosts_reader::parse(content);
    let mut numbers: Vec<usize> = seeds.iter().map(|(host, _)| host[1..].parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(
        !numbers.is_empty() && numbers.iter().enumerate().all(|(i, number)| i == *number),
        "a part: {content:?}"
    );
}

#[test]
fn reader_in_a_loop_never_sees_a_part_of_a_replaced_file() {
    let etcd = Etcd::start();
    put(&etcd, &["h0"]);
    let kept = Kept::holding(&etcd, &["h0"], &[]);
    let hosts: Vec<String> = (1..500).map(|i| format!("h{i}")).collect();
    let mut raw = Raw::connect(&etcd);
    read_in_a_loop(&kept.path, is_whole, || {
        for host in &hosts {
            raw.put(key_of(host).as_bytes(), DEFAULT_VALUE.as_bytes());
        }
        for host in hosts.iter().rev() {
            raw.delete(key_of(host).as_bytes());
        }
    });
}

#[test]
fn file_that_cannot_be_written_later_ends_nothing_and_is_tried_again() {
    let etcd = Etcd::start();
    let dir = scratch();
    let gone = dir.path().join("config");
    fs::create_dir(&gone).unwrap();
    let path = gone.join("unicast_hosts.txt");
    let mut daemon = Daemon::announced(&etcd, "a", &["--seed-file", arg(&path)]);
    eventually_eq("the file holds", PATIENCE, &lines(&["a"]), || fs::read_to_string(&path).unwrap());

    fs::remove_dir_all(&gone).unwrap();
    put(&etcd, &["b"]);
    let warning = daemon.says("feeds: the file is left as it is", PATIENCE);
    assert!(warning.contains(arg(&path)), "{warning}");
    put(&etcd, &["c"]);
    stays("the key", Duration::from_secs(2), &true, || etcd.key(&key_of("a")).is_some());
    assert_eq!(daemon.lines("feeds: the file is left as it is").len(), 1, "{}", daemon.stderr());

    fs::create_dir(&gone).unwrap();
    eventually_eq("the file is back", PATIENCE, &lines(&["a", "b", "c"]), || {
        fs::read_to_string(&path).unwrap_or_default()
    });
    daemon.says("feeds: the file can be written again", PATIENCE);
    assert_eq!(daemon.end(Signal::TERM, PATIENCE), 0);
}

#[test]
fn announcer_without_feeds_has_one_connection() {
    let etcd = Etcd::start();
    let sockets = |pid: u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let tcp = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let is_tcp = |link: String| {
            let inode =
                link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).map(str::to_owned);
            inode.is_some_and(|inode| tcp.lines().any(|line| line.split_whitespace().nth(9) == Some(&inode)))
        };
        open.filter_map(|fd| fs::read_link(fd.path()).ok())
            .filter(|link| is_tcp(link.display().to_string()))
            .count()
    };
    let dir = scratch();
    let plain = Daemon::announced(&etcd, "a", &[]);
    let path = dir.path().join("seeds");
    let feeding = Daemon::announced(&etcd, "b", &["--seed-file", arg(&path)]);
    eventually_eq("the file holds", PATIENCE, &lines(&["a", "b"]), || fs::read_to_string(&path).unwrap());
    assert_eq!((sockets(plain.pid()), sockets(feeding.pid())), (1, 2));
}
