//! Row 34: every signal that ends a process asks `announce` and `watch` to end, and only the second one
//! ends them at once.

mod support;

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use support::{
    AT_ONCE, PATIENCE, SLACK, TTL,
    daemon::{Daemon, announce, hosts, tool_behind, watch},
    etcd::Etcd,
    eventually, eventually_eq, key_of,
    observer::Raw,
    stays,
};

/// Those of which a second one ends the process, with the exit codes.
const ASKING: [(Signal, i32); 6] = [
    (Signal::TERM, 143),
    (Signal::INT, 130),
    (Signal::QUIT, 131),
    (Signal::USR1, 138),
    (Signal::USR2, 140),
    (Signal::ALARM, 142),
];

/// All that ask.
fn all() -> impl Iterator<Item = (Signal, i32)> {
    ASKING.into_iter().chain([(Signal::HUP, 129)])
}

/// As `plain`, with no signal ignored at the start: the tests themselves may run under nohup.
fn hearing(plain: &Command) -> Command {
    let mut command = tool_behind("env", &["--default-signal"]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// `announce` for h1 that hears every signal, announced.
fn announced(etcd: &Etcd, args: &[&str]) -> Daemon {
    let mut daemon = Daemon::spawn(hearing(&announce(etcd, "h1", args)));
    daemon.says("announced", PATIENCE);
    daemon
}

#[test]
fn every_signal_that_ends_a_process_withdraws_the_key() {
    let etcd = Etcd::start();
    for (signal, _) in all() {
        let mut daemon = announced(&etcd, &["--ttl", "60s"]);
        assert_eq!(daemon.end(signal, AT_ONCE + SLACK), 0, "{signal:?}: {}", daemon.stderr());
        assert_eq!((etcd.key(&key_of("h1")), etcd.leases().len()), (None, 0), "{signal:?}");
    }
}

#[test]
fn every_signal_that_ends_a_process_ends_watch_well() {
    let etcd = Etcd::start();
    for (signal, _) in all() {
        let mut watching = Daemon::spawn_printing(hearing(&watch(&etcd, &[])));
        watching.prints("\n", PATIENCE);
        assert_eq!(watching.end(signal, AT_ONCE + SLACK), 0, "{signal:?}");
    }
}

#[test]
fn one_shot_verbs_end_with_the_number_of_the_signal() {
    let etcd = Etcd::start();
    for (signal, code) in all() {
        let mut waiting =
            Daemon::spawn(hearing(&hosts(&etcd, &["--wait-for", "1", "--timeout", "1m", "--log", "debug"])));
        waiting.says("", PATIENCE);
        eventually("it handles signals", PATIENCE, || {
            let caught = signals_of(&waiting, "SigCgt:");
            if caught >> (signal.as_raw() - 1) & 1 == 1 { Ok(()) } else { Err(format!("{caught:x}")) }
        });
        assert_eq!(waiting.end(signal, AT_ONCE + SLACK), code, "{}", waiting.stderr());
    }
}

/// A set of signals from the kernel's view of the process.
fn signals_of(daemon: &Daemon, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel says so");
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

/// One whose withdrawal takes long, because etcd is frozen.
fn withdrawing(etcd: &Etcd, first: Signal) -> Daemon {
    etcd.thaw();
    let mut daemon = announced(etcd, &["--ttl", "60s", "--stop-timeout", "1m"]);
    etcd.freeze();
    daemon.signal(first);
    daemon.says("withdrawing", AT_ONCE + SLACK);
    daemon
}

#[test]
fn second_signal_ends_at_once_whichever_it_is() {
    let etcd = Etcd::start();
    for (n, (second, code)) in ASKING.into_iter().enumerate() {
        let (first, _) = ASKING[(n + 1) % ASKING.len()];
        let mut daemon = withdrawing(&etcd, first);
        assert_eq!(daemon.end(second, AT_ONCE + SLACK), code, "{first:?}, {second:?}");
    }
}

/// A terminal that is closed sends it two or three times, and systemd may send it after SIGTERM.
#[test]
fn hangup_is_never_the_second_signal_nor_the_first_of_two() {
    let etcd = Etcd::start();
    for signals in [&[Signal::HUP, Signal::HUP, Signal::HUP, Signal::TERM][..], &[Signal::TERM, Signal::HUP]]
    {
        let daemon = withdrawing(&etcd, signals[0]);
        let mut daemon = daemon;
        for signal in &signals[1..] {
            daemon.signal(*signal);
            stays("the process", Duration::from_millis(300), &None, || daemon.ended());
        }
        etcd.thaw();
        assert_eq!(daemon.wait(PATIENCE), 0, "{signals:?}");
        assert_eq!(etcd.key(&key_of("h1")), None);
    }
}

/// `hosts` prints on its only thread, which waits for the reader of the data; so it has to.
#[test]
fn second_signal_ends_a_process_whose_thread_is_stuck() {
    let etcd = Etcd::start();
    let value = format!(r#"{{"http":4200,"transport":4300,"address":"{}"}}"#, "a".repeat(253));
    // More than a pipe takes.
    let many = (0..400).map(|n| (key_of(&format!("host-{n}")), value.clone()));
    Raw::connect(&etcd).put_all(many);
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut stuck = Daemon::spawn_writing_to(hearing(&hosts(&etcd, &[])), writer.into(), Stdio::null());
    eventually("it is stuck", PATIENCE, || {
        let sleeping = std::fs::read_to_string(format!("/proc/{}/wchan", stuck.pid())).unwrap();
        if sleeping.contains("pipe") { Ok(()) } else { Err(sleeping) }
    });
    stuck.signal(Signal::TERM);
    stays("the process", AT_ONCE, &None, || stuck.ended());
    assert_eq!(stuck.end(Signal::QUIT, AT_ONCE + SLACK), 131);
}

#[test]
fn hangup_that_was_ignored_at_the_start_stays_ignored() {
    let etcd = Etcd::start();
    let plain = announce(&etcd, "h1", &[]);
    let mut command = tool_behind("nohup", &[plain.get_program().to_str().unwrap()]);
    command.args(plain.get_args()).env("CRATE_DISCOVERY_TTL", "5s");
    let mut daemon = Daemon::spawn(command);
    daemon.says("announced", PATIENCE);
    daemon.signal(Signal::HUP);
    stays("the key", TTL + SLACK, &true, || etcd.key(&key_of("h1")).is_some());
    assert_eq!(daemon.lines("withdrawing"), Vec::<String>::new());
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&key_of("h1")), None);
}

#[test]
fn broken_pipe_stays_ignored_and_faults_stay_faults() {
    let etcd = Etcd::start();
    let mut daemon = announced(&etcd, &[]);
    let bit = |signal: Signal| 1 << (signal.as_raw() - 1);
    assert_eq!(signals_of(&daemon, "SigIgn:") & bit(Signal::PIPE), bit(Signal::PIPE));
    let faults = bit(Signal::ILL) | bit(Signal::ABORT) | bit(Signal::FPE);
    assert_eq!(signals_of(&daemon, "SigCgt:") & (faults | bit(Signal::PIPE)), 0);
    daemon.signal(Signal::PIPE);
    stays("the process", AT_ONCE, &None, || daemon.ended());
    assert_eq!(daemon.end(Signal::ABORT, AT_ONCE + SLACK), 134);
}

/// The terminal of a session goes away, with all that the kernel and the shell send then.
#[test]
fn closed_terminal_withdraws_the_key() {
    let etcd = Etcd::start();
    let plain = announce(&etcd, "h1", &["--ttl", "60s"]);
    let line: Vec<&str> =
        [plain.get_program()].into_iter().chain(plain.get_args()).map(|a| a.to_str().unwrap()).collect();
    // script(1) gives a terminal to an interactive shell, as a login does.
    let mut command = Command::new("script");
    command.args(["--quiet", "--command", &format!("bash -ic '{}; true'", line.join(" ")), "/dev/null"]);
    let mut command = hearing(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut script = command.spawn().unwrap();
    eventually_eq("announced", PATIENCE, &true, || etcd.key(&key_of("h1")).is_some());
    script.kill().unwrap();
    script.wait().unwrap();
    eventually_eq("withdrawn", AT_ONCE + SLACK, &(None, 0), || {
        (etcd.key(&key_of("h1")), etcd.leases().len())
    });
}
