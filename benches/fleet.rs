//! Row 36 of `docs/design.md`: a fleet that starts at once on one etcd, with and without feeds. Feeds must delay no
//! announcement.
//!
//! `cargo bench --bench fleet [-- SIDEKICKS]`, 200 unless told otherwise. All of them share this machine's processors with
//! etcd, where a real fleet shares etcd alone: what etcd itself spent is the figure that carries over.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant},
};

use support::{
    PREFIX,
    daemon::{Daemon, tool},
    etcd::{Etcd, arg, scratch},
    eventually,
    observer::Observer,
};

const SIDEKICKS: usize = 200;
/// Of each kind, in turns; the best one of each counts, since the machine has other work, too.
const RUNS: usize = 3;

/// One start of a fleet.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// Until everybody is announced.
    announced: Duration,
    /// What all sidekicks, and etcd, had spent by then.
    sidekicks: Duration,
    etcd: Duration,
}

/// Processor time of a process.
fn spent(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Ticks of 10 ms in user and in kernel mode, the 14th and the 15th field; the name ends with the parenthesis.
    let fields = stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2);
    Duration::from_millis(fields.map(|ticks| 10 * ticks.parse::<u64>().unwrap()).sum())
}

fn start(sidekicks: usize, with_feeds: bool) -> Start {
    let (etcd, dir) = (Etcd::start(), scratch());
    let observer = Observer::start(&etcd);
    let began = Instant::now();
    let fleet: Vec<Daemon> = (0..sidekicks)
        .map(|i| {
            let mut command = tool();
            command.args(["announce", "--endpoints", &etcd.url(), "--host", &format!("h{i}")]);
            if with_feeds {
                command.args(["--seed-file", arg(&dir.path().join(format!("seeds-{i}")))]);
            }
            Daemon::spawn(command)
        })
        .collect();
    let last = eventually("everybody is announced", Duration::from_secs(300), || {
        let heard = observer.heard_under(PREFIX);
        let hosts: HashSet<_> = heard.iter().map(|event| &event.key).collect();
        match heard.iter().map(|event| event.at).max() {
            Some(last) if hosts.len() == sidekicks => Ok(last),
            _ => Err(format!("{} of {sidekicks}", hosts.len())),
        }
    });
    let all = fleet.iter().map(|daemon| spent(daemon.pid())).sum();
    Start { announced: last - began, sidekicks: all, etcd: spent(etcd.pid()) }
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let sidekicks = asked.unwrap_or(SIDEKICKS);
    let mut best: [Option<Start>; 2] = [None; 2];
    for _ in 0..RUNS {
        for (best, with_feeds) in best.iter_mut().zip([false, true]) {
            let this = start(sidekicks, with_feeds);
            println!("{} {this:.2?}", if with_feeds { "with feeds   " } else { "without feeds" });
            *best = Some(best.filter(|best| best.announced < this.announced).unwrap_or(this));
        }
    }
    let [Some(without), Some(with)] = best else { return };
    println!(
        "{sidekicks} sidekicks: announced within {:.2?}, with feeds within {:.2?}: {:.2} times; etcd spent {:.2} times as \
         much, the sidekicks {:.2} times",
        without.announced,
        with.announced,
        with.announced.div_duration_f64(without.announced),
        with.etcd.div_duration_f64(without.etcd),
        with.sidekicks.div_duration_f64(without.sidekicks),
    );
}
