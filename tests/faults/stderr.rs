//! Row 27: a stderr that nobody reads. Nothing waits for it, whatever it is.

use std::{
    fs::{File, OpenOptions},
    io::{PipeReader, Read, pipe},
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open},
    io::Errno,
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Action, tcflow},
};

use crate::{
    key,
    support::{
        AT_ONCE, PATIENCE, SLACK, TTL,
        daemon::{Daemon, announce, copy_binary, hosts, message_of, tool, tool_behind, watch},
        disk::Disk,
        dns::seeds,
        etcd::{Etcd, scratch},
        eventually, eventually_eq, free_port, key_of,
        observer::Raw,
        stays,
    },
};

/// Deletions by hand: each makes the tool write some lines.
const DELETIONS: usize = 12;
/// Keys that are no announcements: each is worth a line, and all lines together are more than the tool
/// keeps for a reader.
const JUNK: usize = 5000;

/// Writes to `stderr` until it takes nothing more. Its mode is shared, so it is as before afterwards.
fn fill(stderr: impl AsFd) {
    let mode = fcntl_getfl(&stderr).unwrap();
    fcntl_setfl(&stderr, mode | OFlags::NONBLOCK).unwrap();
    for size in [4096, 1] {
        let error = loop {
            if let Err(error) = rustix::io::write(&stderr, &vec![b'x'; size]) {
                break error;
            }
        };
        assert_eq!(error, Errno::AGAIN);
    }
    fcntl_setfl(&stderr, mode).unwrap();
}

fn full_pipe() -> (PipeReader, OwnedFd) {
    let (reader, writer) = pipe().unwrap();
    fill(&writer);
    (reader, writer.into())
}

/// A terminal: the side of the emulator and the side of the program.
fn terminal() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    (master, open(name, flags, Mode::empty()).unwrap())
}

/// An announcer with an SRV feed, whose stderr nobody reads.
struct Unread {
    etcd: Etcd,
    server: SocketAddr,
    daemon: Daemon,
}

impl Unread {
    fn start(stderr: impl Into<OwnedFd>) -> Self {
        let etcd = Etcd::start();
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let command = announce(&etcd, "h1", &["--srv", &server.to_string()]);
        let daemon = Daemon::spawn_logging_to(command, stderr.into().into());
        Self { etcd, server, daemon }
    }

    /// The key is there, and back after each of a dozen deletions; SRV answers, and SIGTERM withdraws.
    #[track_caller]
    fn works(&self) {
        let is_there = || self.etcd.key(&key()).is_some();
        eventually_eq("announced", PATIENCE, &true, is_there);
        let began = Instant::now();
        for n in 0..DELETIONS {
            self.etcd.etcdctl(&["del", &key()]);
            // The tool puts a key back once a second.
            eventually_eq(&format!("back after deletion {n}"), AT_ONCE * 2 + SLACK, &true, is_there);
        }
        stays("the key", (TTL * 2).saturating_sub(began.elapsed()), &true, is_there);
        let answer = Ok(vec!["h1:4300".to_owned()]);
        eventually_eq("the answer", SLACK, &answer, || seeds(self.server));

        self.daemon.signal(Signal::TERM);
        let left = || (self.etcd.key(&key()), self.etcd.leases().len());
        eventually_eq("withdrawn", AT_ONCE + SLACK, &(None, 0), left);
    }

    #[track_caller]
    fn works_and_ends(mut self) {
        self.works();
        assert_eq!(self.daemon.wait(AT_ONCE + SLACK), 0);
    }
}

#[test]
fn full_pipe_holds_nothing_up() {
    let (_reader, stderr) = full_pipe();
    Unread::start(stderr).works_and_ends();
}

/// As the journal's, whose daemon is frozen.
#[test]
fn full_socket_holds_nothing_up() {
    let (_journald, stderr) = UnixStream::pair().unwrap();
    fill(&stderr);
    Unread::start(stderr).works_and_ends();
}

#[test]
fn terminal_that_is_stopped_holds_nothing_up() {
    let (_emulator, stderr) = terminal();
    // What ^S does.
    tcflow(&stderr, Action::OOff).unwrap();
    Unread::start(stderr).works_and_ends();
}

#[test]
fn terminal_whose_emulator_reads_nothing_holds_nothing_up() {
    let (_emulator, stderr) = terminal();
    fill(&stderr);
    Unread::start(stderr).works_and_ends();
}

#[test]
fn file_on_a_frozen_disk_holds_nothing_up_but_the_very_end() {
    let disk = Disk::create();
    let mut unread = Unread::start(File::create(disk.path().join("log")).unwrap());
    let hangs = disk.hang();
    unread.works();
    // Linux ends no process with a thread that waits for this disk; nothing depends on it by now.
    drop(hangs);
    assert_eq!(unread.daemon.wait(PATIENCE), 0);
}

/// A file system in memory, taken down when dropped.
struct Small(PathBuf);

impl Small {
    /// Mounts one of 64 KiB at `path`.
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        let args = ["-t", "tmpfs", "-o", "size=64k", "none"];
        assert!(Command::new("mount").args(args).arg(&path).status().unwrap().success(), "as root?");
        Self(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The number in each line that says how many lines are missing.
fn told(log: &str) -> Vec<usize> {
    let number = |line: &str| message_of(line).split_once(" log lines were dropped")?.0.parse().ok();
    log.lines().filter_map(number).collect()
}

#[test]
fn lines_that_a_full_disk_does_not_take_are_counted_and_told() {
    let dir = scratch();
    let disk = Small::mount(dir.path().join("small"));
    let log = disk.0.join("log");
    let stderr = OpenOptions::new().create(true).append(true).open(&log).unwrap();
    let filler = disk.0.join("filler");
    assert!(std::fs::write(&filler, vec![0; 1 << 20]).is_err(), "it is not full");

    let etcd = Etcd::start();
    let mut daemon = Daemon::spawn_logging_to(announce(&etcd, "h1", &[]), stderr.into());
    let back = || eventually("announced", PATIENCE, || etcd.key(&key()).ok_or("no key".to_owned()));
    back();
    for _ in 0..3 {
        etcd.etcdctl(&["del", &key()]);
        back();
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
    std::fs::remove_file(&filler).unwrap();
    etcd.etcdctl(&["del", &key()]);
    back();
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);

    let log = std::fs::read_to_string(&log).unwrap();
    let all: Vec<&str> = ["starting", "announced"]
        .into_iter()
        .chain(["lost", "announced"].repeat(4))
        .chain(["withdrawing", "withdrawn"])
        .collect();
    let dropped = told(&log);
    // The key can be seen a moment before the line that tells of it is written: the eighth may find room.
    assert!(dropped == [7] || dropped == [8], "{log}");
    let messages: Vec<&str> = log.lines().map(message_of).collect();
    assert_eq!(
        messages[0],
        format!("{} log lines were dropped: stderr did not take them in time", dropped[0])
    );
    let (written, expected) = (&messages[1..], &all[dropped[0]..]);
    assert_eq!(written.len(), expected.len(), "{log}");
    assert!(written.iter().zip(expected).all(|(message, start)| message.starts_with(start)), "{log}");
}

fn junk(etcd: &Etcd) {
    let junk = (0..JUNK).map(|n| (key_of(&format!("junk/{n}")), "x".to_owned()));
    Raw::connect(etcd).put_all(junk);
}

/// Reads until the other side ends, in a thread: the writer must not wait for us to be asked.
fn read_to_end(mut reader: PipeReader) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[test]
fn lines_that_find_no_room_are_counted_and_told_where_they_are_missing() {
    let etcd = Etcd::start();
    junk(&etcd);
    Raw::connect(&etcd).put(key_of("h9").as_bytes(), br#"{"http":4200,"transport":4300}"#);
    let (reader, writer) = pipe().unwrap();
    // All that the libraries have to say: far more than the pipe and the queue take.
    let command = watch(&etcd, &["--log", "trace"]);
    let mut daemon = Daemon::spawn_writing_to(command, std::process::Stdio::piped(), writer.into());
    // Everything is read and said by then.
    daemon.prints("h9:4300\n", PATIENCE);
    // Each of these is a message of its own.
    let mut raw = Raw::connect(&etcd);
    for n in 0..500 {
        raw.put(key_of(&format!("junk/more/{n}")).as_bytes(), b"x");
    }
    raw.put(key_of("i1").as_bytes(), br#"{"http":4200,"transport":4300}"#);
    daemon.prints("h9:4300\nh9:4300,i1:4300\n", PATIENCE);
    let log = read_to_end(reader);
    // What is written after the others, for the order.
    raw.put(key_of("late").as_bytes(), br#"{"http":4200,"transport":4300}"#);
    daemon.prints("h9:4300\nh9:4300,i1:4300\nh9:4300,i1:4300,late:4300\n", PATIENCE);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);

    let log = log.join().unwrap();
    let told = told(&log);
    assert!(!told.is_empty() && told.iter().all(|dropped| *dropped > 0), "told {told:?}");
    let place = log.lines().position(|line| line.contains("log lines were dropped")).unwrap();
    let (before, after) = (place, log.lines().count() - place - 1);
    assert!(before > 100 && after > 0, "{before} lines before those that are missing, {after} after them");
}

/// Runs it with a stderr that is full from the beginning. Gives its exit code and what it printed.
#[track_caller]
fn run_unread(command: Command) -> (i32, String) {
    let (_reader, stderr) = full_pipe();
    let mut daemon = Daemon::spawn_writing_to(command, std::process::Stdio::piped(), stderr.into());
    let code = daemon.wait(PATIENCE);
    (code, daemon.stdout())
}

#[test]
fn one_shot_verbs_end_in_time() {
    let etcd = Etcd::start();
    junk(&etcd);
    Raw::connect(&etcd).put(key_of("h9").as_bytes(), br#"{"http":4200,"transport":4300}"#);
    assert_eq!(run_unread(hosts(&etcd, &[])), (0, "h9:4300\n".to_owned()));

    let status = |args: &[&str]| {
        let mut command = tool();
        command.args(["status", "--endpoints", &etcd.url()]).args(args);
        run_unread(command)
    };
    let (code, printed) = status(&["--host", "h9"]);
    assert!(code == 0 && printed.contains("h9"), "{code} {printed}");
    assert_eq!(status(&["--host", "nobody"]).0, 3);

    let mut command = tool();
    command.args(["hosts", "--endpoints", "http://127.0.0.1:1"]);
    assert_eq!(run_unread(command).0, 69);
    let mut command = tool();
    command.args(["hosts", "--no-such-flag"]);
    assert_eq!(run_unread(command).0, 2);
}

/// As long as somebody reads, everything arrives, in order: the reader may be slower than the tool.
#[test]
fn slow_reader_of_a_one_shot_verb_gets_every_line() {
    let etcd = Etcd::start();
    junk(&etcd);
    let (mut reader, writer) = pipe().unwrap();
    // It lists again and again, and the libraries say what they do.
    let command = hosts(&etcd, &["--log", "trace", "--wait-for", "9", "--timeout", "3s"]);
    let mut daemon = Daemon::spawn_logging_to(command, writer.into());
    let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
    loop {
        match reader.read(&mut some).unwrap() {
            0 => break,
            n => bytes.extend_from_slice(&some[..n]),
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    assert_eq!(daemon.wait(PATIENCE), 69);
    let log = String::from_utf8(bytes).unwrap();
    assert_eq!(told(&log), [0; 0]);
    let skipped: Vec<&str> = log.lines().filter(|line| message_of(line).starts_with("skipped")).collect();
    assert_eq!(skipped.len(), 101, "a hundred keys by name, and then how many more");
    assert!(skipped[100].ends_with(&format!("keys={}", JUNK - 100)), "{}", skipped[100]);
    assert!(log.len() > 3 * 64 * 1024, "{} bytes are no more than the pipe takes", log.len());
}

/// `announce` as a user that may have no second process or thread: limits do not bind root.
fn without_threads(etcd: &Etcd, binary: &Path) -> Command {
    let user = ["--reuid=64123", "--regid=64123", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"];
    let args = [&["--nproc=1", "setpriv"], &user[..], &[binary.to_str().unwrap()]].concat();
    let mut command = tool_behind("prlimit", &args);
    command.args(["announce", "--endpoints", &etcd.url(), "--host", "h1", "--ttl", "5s"]);
    command.args(["--address", "10.0.0.1"]);
    command
}

#[test]
fn lines_are_written_without_waiting_where_no_thread_can_be_started() {
    let etcd = Etcd::start();
    let dir = scratch();
    let binary = dir.path().join("crate-discovery");
    copy_binary(&binary);
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();

    let mut daemon = Daemon::spawn(without_threads(&etcd, &binary));
    daemon.says("announced", PATIENCE);
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    assert!(status.contains("\nThreads:\t1\n"), "{status}");
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    daemon.lines("withdrawn").first().expect("the last line is there, too");

    let (master, emulated) = terminal();
    fill(&emulated);
    let (_journald, socket) = UnixStream::pair().unwrap();
    fill(&socket);
    let (mut reader, pipe) = full_pipe();
    for (kind, stderr) in [("terminal", emulated), ("socket", socket.into()), ("pipe", pipe)] {
        // It belongs to whoever logs in there.
        let _ = rustix::fs::fchown(&stderr, Some(rustix::fs::Uid::from_raw(64123)), None);
        let mut daemon = Daemon::spawn_logging_to(without_threads(&etcd, &binary), stderr.into());
        eventually(kind, PATIENCE, || etcd.key(&key()).ok_or("no key".to_owned()));
        if kind == "pipe" {
            // There is room again.
            let mut some = vec![0; 65536];
            reader.read_exact(&mut some).unwrap();
            assert!(some.iter().all(|byte| *byte == b'x'));
            etcd.etcdctl(&["del", &key()]);
            eventually("back", PATIENCE, || etcd.key(&key()).ok_or("no key".to_owned()));
        }
        assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0, "{kind}");
        assert_eq!(etcd.key(&key()), None);
    }
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    // starting, announced, lost, announced, withdrawing, withdrawn. The key can be seen a moment before the line that
    // tells of it is written, so that line may find room or not: each line is there or counted.
    let dropped = told(&log);
    let written = log.lines().filter(|line| told(line).is_empty()).count();
    assert_eq!(dropped.len(), 1, "{log}");
    assert!(dropped[0] >= 1 && dropped[0] + written == 6, "{log}");
    drop(master);
}

#[test]
fn stderr_keeps_its_mode() {
    let etcd = Etcd::start();
    let (reader, stderr) = full_pipe();
    let before = fcntl_getfl(&stderr).unwrap();
    let ours = stderr.try_clone().unwrap();
    let mut daemon = Daemon::spawn_logging_to(announce(&etcd, "h1", &[]), stderr.into());
    eventually("announced", PATIENCE, || etcd.key(&key()).ok_or("no key".to_owned()));
    // It is shared with whoever started us.
    assert_eq!(fcntl_getfl(&ours).unwrap(), before);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    drop(reader);
}
