//! Row 31: what may stand between us and etcd, and keeps nobody from doing its work: etcd's own proxies, and balancers
//! that end what is idle.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    key,
    support::{
        AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK, TTL,
        balancer::{Balancer, Manner, Withheld},
        daemon::{Daemon, tool},
        etcd::{Etcd, arg, scratch},
        eventually, eventually_eq, free_port, key_of,
        observer::{Observer, Raw},
    },
};

/// One tick at the most: a third of the TTL and a tenth more.
const TICK: Duration = Duration::from_millis(TTL.as_millis() as u64 / 3 * 11 / 10);

/// A proxy that etcd's own binary is. Killed when dropped.
struct EtcdProxy {
    child: Child,
    port: u16,
    _data: TempDir,
}

impl EtcdProxy {
    fn start(kind: &str, etcd: &Etcd, args: &[&str]) -> Self {
        let (port, data) = (free_port(), scratch());
        let at = format!("127.0.0.1:{port}");
        let mut command = Command::new("etcd");
        command
            .current_dir(data.path())
            .args([kind, "start", "--endpoints", &format!("127.0.0.1:{}", etcd.port())])
            .args(["--listen-addr", &at]);
        if kind == "grpc-proxy" {
            // That of 3.6.16 dials what it advertises, 127.0.0.1:23790 unless told otherwise, and ends after 5 s in vain.
            command.args(["--advertise-client-url", &at]);
        }
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the proxy listens", PATIENCE, || {
            TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|e| e.to_string())
        });
        Self { child, port, _data: data }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for EtcdProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An announcer that reaches etcd at `url` alone, and keeps a seed file.
struct Sidekick {
    daemon: Daemon,
    dir: TempDir,
}

impl Sidekick {
    fn announced(url: &str, ttl: &str) -> Self {
        let dir = scratch();
        let mut command = tool();
        command.args(["announce", "--host", "h1", "--ttl", ttl, "--endpoints", url]);
        command.args(["--seed-file", arg(&dir.path().join("seeds"))]);
        let mut daemon = Daemon::spawn(command);
        daemon.says("announced", PATIENCE);
        let sidekick = Self { daemon, dir };
        sidekick.seeds("h1:4300\n", PATIENCE);
        sidekick
    }

    #[track_caller]
    fn seeds(&self, expected: &str, within: Duration) {
        let file = self.dir.path().join("seeds");
        eventually_eq("the seed file holds", within, &expected.to_owned(), || {
            std::fs::read_to_string(&file).unwrap_or_default()
        });
    }

    /// Nothing was ever said of an outage or a loss.
    #[track_caller]
    fn is_content(&self) {
        let stderr = self.daemon.stderr();
        assert!(!stderr.contains("WARN") && !stderr.contains("again"), "{stderr}");
    }
}

/// All that a sidekick does, through what stands between; `namespace` is what is put before its keys.
fn works_as_directly(etcd: &Etcd, url: &str, namespace: &str, ttl: Duration, quiet: Duration) {
    let key = format!("{namespace}{}", key());
    let other = format!("{namespace}{}", key_of("h2"));
    let (observer, mut raw) = (Observer::start(etcd), Raw::connect(etcd));
    let mut sidekick = Sidekick::announced(url, &format!("{}s", ttl.as_secs()));
    sleep(quiet);
    sidekick.is_content();
    assert_eq!(observer.history(&key).len(), 1, "{}", sidekick.daemon.stderr());
    raw.put(other.as_bytes(), DEFAULT_VALUE.as_bytes());
    sidekick.seeds("h1:4300\nh2:4300\n", AT_ONCE + SLACK);
    raw.delete(other.as_bytes());
    sidekick.seeds("h1:4300\n", AT_ONCE + SLACK);
    raw.delete(key.as_bytes());
    let deleted = observer.next_delete(&key, 0, PATIENCE);
    let back = observer.next_put(&key, deleted.revision, 2 * TICK + SLACK);
    println!("{url}: back {} ms after a deletion", (back.at - deleted.at).as_millis());
    eventually_eq("it is told", AT_ONCE + SLACK, &1, || sidekick.daemon.lines("lost").len());
    let asked = Instant::now();
    assert_eq!(sidekick.daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert!(asked.elapsed() < AT_ONCE + SLACK);
    assert_eq!(etcd.key(&key), None);
    assert_eq!(etcd.leases(), Vec::<i64>::new());
    assert_eq!(sidekick.daemon.lines("endpoint left").len(), 0, "{}", sidekick.daemon.stderr());
}

#[test]
fn grpc_proxy_with_a_namespace_is_as_good_as_etcd() {
    let etcd = Etcd::start();
    let proxy = EtcdProxy::start("grpc-proxy", &etcd, &["--namespace", "/tenant"]);
    works_as_directly(&etcd, &proxy.url(), "/tenant", TTL, 4 * TICK);
}

#[test]
fn gateway_is_as_good_as_etcd() {
    let etcd = Etcd::start();
    let proxy = EtcdProxy::start("gateway", &etcd, &[]);
    works_as_directly(&etcd, &proxy.url(), "", TTL, 4 * TICK);
}

/// The longest tick is 22 s.
#[test]
fn balancer_that_resets_streams_idle_for_half_a_minute_finds_none() {
    let etcd = Etcd::start();
    let limit = Duration::from_secs(30);
    let balancer = Balancer::start(etcd.port(), Manner { idle_limit: limit, withholds: Withheld::Nothing });
    works_as_directly(&etcd, &balancer.url(), "", Duration::from_secs(60), limit + SLACK);
    assert_eq!(balancer.reset(), 0);
}

/// A watch that says nothing any more is found out by the look of the next tick.
#[test]
fn deaf_watch_is_found_out_by_the_tick() {
    let etcd = Etcd::start();
    let (observer, mut raw) = (Observer::start(&etcd), Raw::connect(&etcd));
    let manner = Manner { idle_limit: Duration::from_secs(3600), withholds: Withheld::Everything };
    let balancer = Balancer::start(etcd.port(), manner);
    let mut command = tool();
    command.args(["announce", "--host", "h1", "--ttl", &format!("{}s", TTL.as_secs())]);
    command.args(["--endpoints", &balancer.url()]);
    let mut daemon = Daemon::spawn(command);
    daemon.says("announced", PATIENCE);
    raw.delete(key().as_bytes());
    let deleted = observer.next_delete(&key(), 0, PATIENCE);
    let back = observer.next_put(&key(), deleted.revision, TICK + SLACK);
    println!("deaf watch: back {} ms after a deletion", (back.at - deleted.at).as_millis());
    assert_eq!(daemon.lines("endpoint left").len(), 0, "{}", daemon.stderr());
}

/// What was put shows itself in the revision alone, and in that the watch does not say that it has told of it; or in the
/// number of keys, where a watch says that it has told of all. A follower's tick is 22 s at most, and an attempt is left
/// for the answer.
#[test]
fn deaf_watch_of_a_follower_is_found_out_by_the_tick() {
    let etcd = Etcd::start();
    let mut raw = Raw::connect(&etcd);
    let mut following = [Withheld::Everything, Withheld::Events].map(|withholds| {
        let prefix = format!("/{withholds:?}");
        raw.put(format!("{prefix}/h2").as_bytes(), DEFAULT_VALUE.as_bytes());
        let balancer =
            Balancer::start(etcd.port(), Manner { idle_limit: Duration::from_secs(3600), withholds });
        let mut command = tool();
        command.args(["watch", "--endpoints", &balancer.url(), "--prefix", &prefix]);
        command.args(["--request-timeout", "2s"]);
        let mut daemon = Daemon::spawn_printing(command);
        daemon.prints("h2:4300\n", PATIENCE);
        (prefix, balancer, daemon)
    });
    // The watches are there by then.
    sleep(AT_ONCE);
    raw.put(b"/Everything/h2", br#"{"http":4200,"transport":4301}"#);
    raw.put(b"/Events/h3", DEFAULT_VALUE.as_bytes());
    let found = Duration::from_secs(24) + SLACK;
    for (prefix, _, daemon) in &mut following {
        let now = if prefix == "/Events" { "h2:4300,h3:4300" } else { "h2:4301" };
        daemon.prints(&format!("h2:4300\n{now}\n"), found);
        assert_eq!(daemon.lines("endpoint left").len(), 0, "{}", daemon.stderr());
    }
}

/// What is written elsewhere is no reason to list anew: the watch answers how far it has told.
#[test]
fn watch_that_answers_is_believed() {
    let etcd = Etcd::start();
    let mut raw = Raw::connect(&etcd);
    raw.put(key_of("h2").as_bytes(), DEFAULT_VALUE.as_bytes());
    let ranges = || {
        let labels = r#"grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
        etcd.metric(&format!("grpc_server_started_total{{{labels}}}"))
    };
    let before = ranges();
    let mut command = tool();
    command.args(["watch", "--endpoints", &etcd.url(), "--request-timeout", "2s"]);
    let mut daemon = Daemon::spawn_printing(command);
    daemon.prints("h2:4300\n", PATIENCE);
    // The watch is there by then, and has told of h2 once more.
    sleep(AT_ONCE);
    raw.put(b"/elsewhere", b"x");
    let tick = Duration::from_secs(22);
    eventually("the look of a tick", tick + SLACK, || match ranges() - before {
        looked if looked < 2.0 => Err(format!("{looked}")),
        _ => Ok(()),
    });
    // An attempt later it would have been listed.
    sleep(Duration::from_secs(2) + SLACK);
    assert_eq!(ranges() - before, 2.0, "a list and a look");
}
