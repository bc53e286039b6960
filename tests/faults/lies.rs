//! Row 33: an etcd that lies costs neither memory nor time nor log.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::support::{
    PATIENCE, TTL,
    daemon::{Daemon, run_within, tool},
    etcd::{arg, scratch},
    eventually,
    false_etcd::{FalseEtcd, Lie},
};

/// For so long an announcer is lied to.
const WATCHED: Duration = Duration::from_secs(8);

/// What a process has used up to now.
#[derive(Clone, Copy, Debug)]
struct Used {
    cpu: Duration,
    /// The most that was ever resident, without what is mapped from files, in KiB.
    peak: u64,
}

impl Used {
    fn by(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // Ticks of 10 ms in user and in kernel mode, the 14th and the 15th field; the name ends with the parenthesis.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let kib = |name: &str| -> u64 {
            let found = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            found.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Self { cpu: Duration::from_millis(10 * ticks), peak: kib("VmHWM:") - kib("RssFile:") }
    }
}

/// What an announcer does for some seconds that is told this lie.
struct Lied {
    etcd: FalseEtcd,
    lie: Lie,
    start: Instant,
    daemon: Daemon,
}

impl Lied {
    fn start(lie: Lie, args: &[&str]) -> Self {
        let etcd = FalseEtcd::start(lie);
        let mut command = tool();
        command.args(["announce", "--host", "h1", "--endpoints", &etcd.url()]).args(args);
        command.args(["--ttl", &format!("{}s", TTL.as_secs())]);
        let (start, daemon) = (Instant::now(), Daemon::spawn(command));
        Self { etcd, lie, start, daemon }
    }

    /// Holds that neither lines nor requests are more than a few for each second, and that no more than this part of a
    /// processor is used.
    #[track_caller]
    fn is_bounded(&mut self, processor: f64) {
        let Self { etcd, lie, start, daemon } = self;
        assert_eq!(daemon.ended(), None, "{lie:?}: {}", daemon.stderr());
        let (used, stderr, asked) = (Used::by(daemon.pid()), daemon.stderr(), etcd.asked());
        let lines = stderr.lines().count();
        println!(
            "{lie:?}: {lines} lines, {} bytes, {asked} requests, {:?} of the processor, {} KiB at most",
            stderr.len(),
            used.cpu,
            used.peak
        );
        assert!(asked > 0, "{lie:?}");
        // Thirty lines in a row of each of two kinds, and some that are said once.
        assert!(lines <= 75 && stderr.len() <= 12_000, "{lie:?}: {stderr}");
        // Fifty steps in a row and ten a second, of three requests at most.
        assert!(
            asked <= 3 * (50 + 10 * (1 + start.elapsed().as_secs() as usize)),
            "{lie:?}: {asked} requests"
        );
        assert!(used.cpu <= start.elapsed().mul_f64(processor), "{lie:?}: {used:?}");
        assert!(used.peak <= 16 * 1024, "{lie:?}: {used:?}");
    }
}

#[test]
fn announcer_that_is_lied_to_stays_quiet_small_and_idle() {
    let lies = [
        Lie::None,
        Lie::Grant(0),
        Lie::Grant(-5),
        Lie::Grant(i64::MAX),
        Lie::LeaseExists,
        Lie::LeaseEnded,
        Lie::LeaseGone,
        Lie::NothingTaken,
        Lie::OtherHolder,
        Lie::PutAgain,
        Lie::TooLarge,
        Lie::LongReason,
        Lie::Compacted,
        Lie::Cut,
    ];
    let mut lied: Vec<Lied> = lies.iter().map(|&lie| Lied::start(lie, &[])).collect();
    sleep(WATCHED);
    for lied in &mut lied {
        lied.is_bounded(0.1);
    }
}

#[test]
fn announcer_whose_watch_lies_without_end_stays_quiet_small_and_idle() {
    for lie in [Lie::Deleted, Lie::Overwritten, Lie::Repeated] {
        let mut lied = Lied::start(lie, &[]);
        sleep(WATCHED);
        lied.is_bounded(0.1);
    }
}

#[test]
fn list_that_is_none_is_an_error_in_time() {
    for lie in [Lie::EndlessList, Lie::StuckList, Lie::EmptyPages] {
        let etcd = FalseEtcd::start(lie);
        let mut hosts = tool();
        hosts.args(["hosts", "--endpoints", &etcd.url(), "--request-timeout", "1s"]);
        let start = Instant::now();
        let finished = run_within(hosts, PATIENCE);
        println!("{lie:?}: {} after {:?}: {}", finished.code, start.elapsed(), finished.stderr);
        assert_eq!((finished.code, &*finished.stdout), (69, ""), "{lie:?}: {}", finished.stderr);
    }
}

#[test]
fn follower_that_is_lied_to_stays_quiet_small_and_idle() {
    let dir = scratch();
    for lie in
        [Lie::EndlessHosts, Lie::EndlessList, Lie::StuckList, Lie::EmptyPages, Lie::Cut, Lie::Compacted]
    {
        let file = dir.path().join(format!("{lie:?}"));
        let mut lied = Lied::start(lie, &["--seed-file", arg(&file)]);
        sleep(WATCHED);
        lied.is_bounded(0.3);
        eventually("the file is there", PATIENCE, || fs::metadata(&file).map_err(|e| e.to_string()));
    }
}
