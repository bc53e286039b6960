//! Thirty announcers on a three-member cluster under random faults:
//! `cargo bench --bench soak -- [MINUTES] [SEED]` (`make soak`).
//!
//! A third of them is given the members' addresses, a third one name that has all three addresses, and a third that
//! name and certificates.
//!
//! Two figures come out, and both must be 0: how long a key was missing although its announcer was
//! alive and etcd had been able to serve for longer than the bound, and how long a key was there
//! after a clean stop. Anything else comes with the seed and what happened to that host.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rustix::process::Signal;
use support::{
    AT_ONCE, PATIENCE, Pki, SLACK,
    cluster::{Cluster, MEMBERS},
    daemon::Daemon,
    etcd::{arg, scratch},
    free_port, key_of,
    net::NameService,
    observer::Observer,
    proxy::{Mode, Proxy},
};
use tempfile::TempDir;

const ANNOUNCERS: usize = 30;
const TTL: Duration = Duration::from_secs(10);

/// A stretch of time.
type Span = (Instant, Instant);

struct Host {
    name: String,
    daemon: Option<Daemon>,
    /// When the key may be missing: the process was away, or a hand took the key. The bound comes after.
    excused: Vec<Span>,
    /// From a clean exit to the next start.
    stopped: Vec<Span>,
    log: Vec<(Instant, String)>,
}

/// One name for all members: each is behind an address of its own, at one port.
struct Named {
    names: NameService,
    port: u16,
    proxies: Vec<Proxy>,
}

impl Named {
    /// The members listen at these ports of loopback.
    fn start(members: &[u16]) -> Self {
        let (port, addresses) = (free_port(), [1, 2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last)));
        let proxies = addresses.iter().zip(members).map(|(ip, member)| Proxy::start_at(*ip, port, *member));
        Self { proxies: proxies.collect(), port, names: NameService::start(&addresses, Duration::ZERO) }
    }

    fn announce(&self, scheme: &str, host: &str) -> Command {
        let mut command = self.names.tool();
        let url = format!("{scheme}://{}:{}", NameService::NAME, self.port);
        command.args(["announce", "--endpoints", &url, "--host", host]);
        command
    }
}

/// How an announcer reaches etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Addresses,
    Name,
    NameAndTls,
}

const WAYS: [Way; 3] = [Way::Addresses, Way::Name, Way::NameAndTls];

struct Soak {
    rng: Rng,
    begin: Instant,
    cluster: Cluster,
    plain: Named,
    tls: Named,
    pki: Pki,
    _certificates: TempDir,
    /// Nobody resolves the name: who is started now cannot announce.
    nameless: bool,
    hosts: Vec<Host>,
    /// When etcd could not serve, or (before 3.5.13) a thawed leader could end leases.
    excused: Vec<Span>,
    faults: Vec<(Instant, String)>,
    unconfirmed: usize,
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let minutes: f64 = arguments.next().map_or(5.0, |text| text.parse().expect("MINUTES is a number"));
    let seed: u64 = arguments
        .next()
        .map_or_else(|| fastrand::u64(1_000_000..), |text| text.parse().expect("SEED is a number"));
    println!("soak: {minutes} minutes, {ANNOUNCERS} announcers, TTL {TTL:?}, seed {seed}");

    let certificates = scratch();
    let pki = Pki::create(certificates.path());
    let (cluster, tls_ports) = Cluster::start_with_tls_too(&pki);
    let plain_ports: Vec<u16> = cluster.members().iter().map(support::etcd::Etcd::port).collect();
    let observers: Vec<Observer> = cluster.members().iter().map(Observer::start).collect();
    let begin = Instant::now();
    let hosts = (0..ANNOUNCERS).map(|n| Host {
        name: format!("h{n}"),
        daemon: None,
        excused: Vec::new(),
        stopped: Vec::new(),
        log: Vec::new(),
    });
    let mut soak = Soak {
        rng: Rng::with_seed(seed),
        begin,
        cluster,
        plain: Named::start(&plain_ports),
        tls: Named::start(&tls_ports),
        pki,
        _certificates: certificates,
        nameless: false,
        hosts: hosts.collect(),
        excused: Vec::new(),
        faults: Vec::new(),
        unconfirmed: 0,
    };
    (0..ANNOUNCERS).for_each(|n| soak.start(n));
    // The first claims have the bound like everything else.
    soak.excused.push((begin, Instant::now()));
    let end = begin + Duration::from_secs_f64(minutes * 60.0);
    let mut rounds = 0;
    while Instant::now() < end {
        soak.one_fault();
        rounds += 1;
    }
    // All that is owed is paid by then.
    sleep(Cluster::round(TTL) + 2 * SLACK);
    soak.judge(&observers, rounds);
}

impl Soak {
    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from..to))
    }

    fn start(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        let mut command = match WAYS[n % WAYS.len()] {
            Way::Addresses => self.cluster.announce(&host.name, &[]),
            Way::Name => self.plain.announce("http", &host.name),
            Way::NameAndTls => {
                let Pki { ca, cert, key } = &self.pki;
                let mut command = self.tls.announce("https", &host.name);
                command.args(["--cacert", arg(ca), "--cert", arg(cert), "--key", arg(key)]);
                command
            }
        };
        command.args(["--ttl", "10s"]);
        host.daemon = Some(Daemon::spawn(command));
        host.log.push((Instant::now(), "started".to_owned()));
    }

    /// What clients meet on their way to this member, whichever way they take.
    fn way(&self, member: usize, mode: Mode) {
        self.cluster.client_proxy(member).set(mode);
        self.plain.proxies[member].set(mode);
        self.tls.proxies[member].set(mode);
    }

    fn lookups(&self, become_so: impl Fn(&NameService)) {
        become_so(&self.plain.names);
        become_so(&self.tls.names);
    }

    fn fault(&mut self, what: String) {
        self.faults.push((Instant::now(), what));
    }

    /// Something happens to etcd, and meanwhile something happens to the announcers.
    fn one_fault(&mut self) {
        let member = self.rng.usize(0..MEMBERS);
        match self.rng.u8(0..15) {
            0 => {
                self.fault(format!("member {member} killed"));
                self.cluster.kill(member);
                self.meanwhile(8000, true);
                self.cluster.restart(member);
            }
            1 | 2 => {
                self.fault(format!("member {member} frozen"));
                self.cluster.freeze(member);
                self.meanwhile(12_000, true);
                self.cluster.thaw(member);
                // A leader of before 3.5.13 that was frozen may still end leases when it goes on.
                self.excused.push((Instant::now(), Instant::now()));
            }
            3 | 4 => {
                let mode = if self.rng.bool() { Mode::BlackHole } else { Mode::Stall };
                self.fault(format!("member {member} behind {mode:?}"));
                self.way(member, mode);
                self.meanwhile(12_000, true);
                self.way(member, Mode::Pass);
            }
            5 => {
                self.fault(format!("member {member} cut off from the others"));
                self.cluster.cut_off(member);
                self.meanwhile(12_000, true);
                self.cluster.rejoin();
            }
            6 => {
                self.fault("all members killed".to_owned());
                let from = Instant::now();
                self.cluster.kill_all();
                self.meanwhile(15_000, false);
                self.cluster.restart_all();
                self.excused.push((from, Instant::now()));
            }
            7 => {
                self.fault("all members frozen".to_owned());
                let from = Instant::now();
                (0..MEMBERS).for_each(|member| self.cluster.freeze(member));
                self.meanwhile(15_000, false);
                (0..MEMBERS).for_each(|member| self.cluster.thaw(member));
                self.cluster.leader();
                self.excused.push((from, Instant::now()));
            }
            8 => {
                self.fault("compacted".to_owned());
                let etcd = self.cluster.member(member);
                let status = etcd.try_etcdctl(&["endpoint", "status", "-w", "json"]).unwrap_or_default();
                let revision = status.split("\"revision\":").nth(1).and_then(|rest| rest.split(',').next());
                if let Some(revision) = revision {
                    // Too early or twice is an error, and as good.
                    let _ = etcd.try_etcdctl(&["compact", revision.trim_end_matches('}')]);
                }
                self.meanwhile(2000, true);
            }
            9 => {
                self.fault(format!("member {member} lost its data and is replaced"));
                self.cluster.replace(member);
                self.meanwhile(6000, true);
            }
            10 => {
                let delay = self.millis(100, 1000);
                self.fault(format!("member {member} slow by {delay:?} each way"));
                self.way(member, Mode::Delay(delay));
                self.meanwhile(12_000, true);
                self.way(member, Mode::Pass);
            }
            11 => {
                // Connection, TLS and answer take three of these there and back, which is within one attempt.
                let delay = self.millis(50, 200);
                self.fault(format!("all members slow by {delay:?} each way"));
                (0..MEMBERS).for_each(|member| self.way(member, Mode::Delay(delay)));
                self.meanwhile(15_000, true);
                (0..MEMBERS).for_each(|member| self.way(member, Mode::Pass));
            }
            12 => {
                let delay = self.millis(500, 3000);
                self.fault(format!("lookups take {delay:?}"));
                self.lookups(|names| names.answers_after(delay));
                self.meanwhile(12_000, true);
                self.lookups(|names| names.answers_after(Duration::ZERO));
            }
            13 => {
                self.fault(format!("no lookup is answered, and every connection to member {member} is cut"));
                self.nameless = true;
                self.lookups(NameService::falls_silent);
                self.way(member, Mode::Cut);
                self.meanwhile(15_000, true);
                self.way(member, Mode::Pass);
                self.lookups(|names| names.answers_after(Duration::ZERO));
                self.nameless = false;
            }
            _ => self.meanwhile(6000, true),
        }
        let calm = self.millis(0, 6000);
        sleep(calm);
    }

    /// Up to `longest` milliseconds in which announcers are stopped, killed and robbed; only where
    /// etcd `serves` they are stopped cleanly.
    fn meanwhile(&mut self, longest: u64, serves: bool) {
        let until = Instant::now() + self.millis(500, longest);
        while Instant::now() < until {
            let n = self.rng.usize(0..ANNOUNCERS);
            let from = Instant::now();
            match self.rng.u8(0..6) {
                0 => {
                    self.hosts[n].log.push((from, "SIGSTOP".to_owned()));
                    self.daemon(n).freeze();
                    let pause = self.millis(100, 3000);
                    // Longer than the TTL now and then.
                    sleep(if self.rng.u8(0..4) == 0 { pause + TTL } else { pause });
                    self.daemon(n).thaw();
                }
                1 | 2 if self.nameless && WAYS[n % WAYS.len()] != Way::Addresses => continue,
                1 => {
                    self.hosts[n].log.push((from, "SIGKILL".to_owned()));
                    self.daemon(n).end(Signal::KILL, PATIENCE);
                    let pause = self.millis(0, 3000);
                    sleep(pause);
                    self.start(n);
                }
                2 if serves => self.stop_cleanly(n),
                3 => self.by_hand(n, |key, _| vec!["del".to_owned(), key]),
                4 => self.by_hand(n, |_, lease| {
                    vec!["lease".to_owned(), "revoke".to_owned(), format!("{lease:x}")]
                }),
                _ => {
                    let pause = self.millis(100, 1500);
                    sleep(pause);
                    continue;
                }
            }
            self.hosts[n].excused.push((from, Instant::now()));
        }
    }

    fn stop_cleanly(&mut self, n: usize) {
        let code = self.daemon(n).end(Signal::TERM, PATIENCE);
        let exited = Instant::now();
        self.hosts[n].log.push((exited, format!("SIGTERM, exit code {code}")));
        let pause = self.millis(0, 5000);
        sleep(pause);
        match code {
            0 => self.hosts[n].stopped.push((exited, Instant::now())),
            69 => self.unconfirmed += 1,
            // Signalled within its first milliseconds, before it asked for signals: it has announced nothing, and
            // what a killed predecessor left ends with its lease.
            143 if self.daemon(n).stderr().is_empty() => {}
            other => panic!("exit code {other} after SIGTERM"),
        }
        self.start(n);
    }

    /// Somebody's hand; on a member that may not serve just now, which is a fault as good.
    fn by_hand(&mut self, n: usize, arguments: impl Fn(String, i64) -> Vec<String>) {
        let key = key_of(&self.hosts[n].name);
        let member = self.cluster.member(self.rng.usize(0..MEMBERS));
        let held = member.try_etcdctl(&["get", &key, "-w", "fields"]).unwrap_or_default();
        let lease =
            held.lines().find_map(|line| line.strip_prefix("\"Lease\" : ")).and_then(|id| id.parse().ok());
        let Some(lease) = lease else { return };
        let arguments = arguments(key, lease);
        let done = member.try_etcdctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        self.hosts[n].log.push((Instant::now(), format!("{arguments:?}: {}", done.is_ok())));
    }

    fn daemon(&mut self, n: usize) -> &mut Daemon {
        self.hosts[n].daemon.as_mut().expect("every announcer is started again")
    }

    fn judge(mut self, observers: &[Observer], rounds: usize) {
        let now = Instant::now();
        let bound = Cluster::round(TTL) + SLACK;
        let (mut missing, mut late, mut worst) = (Duration::ZERO, Duration::ZERO, String::new());
        for host in &mut self.hosts {
            let (present, events) = presence(observers, &key_of(&host.name), now);
            let owed: Vec<Span> =
                self.excused.iter().chain(&host.excused).map(|(from, to)| (*from, *to + bound)).collect();
            let absent = subtract(&[(self.begin, now)], &present);
            let unexcused = length(&subtract(&absent, &owed));
            let after_stop: Vec<Span> = host
                .stopped
                .iter()
                .map(|(from, to)| (*from + AT_ONCE, *to))
                .filter(|(from, to)| from < to)
                .collect();
            let outside = subtract(&[(self.begin, now)], &after_stop);
            let too_late = length(&subtract(&present, &outside));
            missing += unexcused;
            late += too_late;
            if unexcused + too_late > Duration::ZERO {
                let _ = writeln!(worst, "{}: missing {unexcused:?}, late {too_late:?}", host.name);
                let mut story = events;
                story.extend(host.log.iter().cloned());
                story.extend(self.faults.iter().cloned());
                story.extend(self.excused.iter().map(|(_, to)| (*to, "etcd is well again".to_owned())));
                story.sort_by_key(|(at, _)| *at);
                for (at, what) in story {
                    let _ = writeln!(worst, "  {:>9.3} s {what}", (at - self.begin).as_secs_f64());
                }
                let stderr = host.daemon.as_ref().map(Daemon::stderr).unwrap_or_default();
                let _ = writeln!(worst, "{stderr}");
            }
        }
        let hits: usize = self.hosts.iter().map(|host| host.log.len()).sum();
        let stops: usize = self.hosts.iter().map(|host| host.stopped.len()).sum();
        println!(
            "{rounds} rounds of faults, {hits} entries in the announcers' logs, {stops} clean stops, {} unconfirmed",
            self.unconfirmed
        );
        println!("missing beyond the bound: {} ms", missing.as_millis());
        println!("present after a clean stop: {} ms", late.as_millis());
        assert!(worst.is_empty(), "a key was wrong\n{worst}");
    }
}

/// When the key was there, and what was told of it, by the first of the members that told.
fn presence(observers: &[Observer], key: &str, now: Instant) -> (Vec<Span>, Vec<(Instant, String)>) {
    let mut told: Vec<_> = observers.iter().flat_map(|observer| observer.heard(key)).collect();
    told.sort_by_key(|event| (event.revision, event.at));
    told.dedup_by_key(|event| event.revision);
    let story = told.iter().map(|event| {
        let what = if event.put { format!("PUT under {:x}", event.lease) } else { "DELETE".to_owned() };
        (event.at, format!("{what} at revision {}", event.revision))
    });
    let story = story.collect();
    let mut spans = Vec::new();
    let mut since = None;
    for event in told {
        if event.put {
            since.get_or_insert(event.at);
        } else if let Some(from) = since.take() {
            spans.push((from, event.at.max(from)));
        }
    }
    spans.extend(since.map(|from| (from, now)));
    (spans, story)
}

/// What of `spans` is in none of `others`.
fn subtract(spans: &[Span], others: &[Span]) -> Vec<Span> {
    let mut left = spans.to_vec();
    for (from, to) in others {
        left = left
            .into_iter()
            .flat_map(|(a, b)| [(a, b.min(*from)), (a.max(*to), b)])
            .filter(|(a, b)| a < b)
            .collect();
    }
    left
}

fn length(spans: &[Span]) -> Duration {
    spans.iter().map(|(from, to)| *to - *from).sum()
}
