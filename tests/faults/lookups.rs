//! Row 30, of etcd: a name service that is slow, falls silent, or cannot be asked.

use std::{
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    OUTLIVED, key,
    support::{
        AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK, TTL,
        daemon::{Daemon, copy_binary, run, tool_behind},
        etcd::{Etcd, scratch},
        eventually, key_of,
        net::NameService,
        observer::Observer,
        proxy::{Mode, Proxy},
        stays,
    },
};

/// Longer than any attempt, and than glibc's resolver waits before it asks once more.
const SLOW: Duration = Duration::from_millis(5200);

/// A verb on the etcd behind `port` of the name.
fn verb(names: &NameService, verb: &str, port: u16) -> Command {
    let mut command = names.tool();
    command.args([verb, "--endpoints", &format!("http://{}:{port}", NameService::NAME)]);
    command
}

fn announced(names: &NameService, port: u16, within: Duration) -> Daemon {
    let mut command = verb(names, "announce", port);
    command.args(["--host", "h1", "--ttl", &format!("{}s", TTL.as_secs())]);
    let mut daemon = Daemon::spawn(command);
    daemon.says("announced", within);
    daemon
}

#[test]
fn slow_name_service_delays_the_announcement_by_one_lookup() {
    let etcd = Etcd::start();
    let names = NameService::start(&[Ipv4Addr::LOCALHOST], SLOW);
    let start = Instant::now();
    let mut daemon = announced(&names, etcd.port(), 2 * SLOW);
    println!("a lookup of {SLOW:?}: announced after {:?}", start.elapsed());
    assert!(start.elapsed() >= SLOW, "{:?}", start.elapsed());
    let said = daemon.lines("endpoint left");
    let pending = format!("the name {} is still being looked up", NameService::NAME);
    assert!(said.len() == 1 && said[0].contains(&pending), "the name service is named: {said:?}");
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&key()), None);
}

#[test]
fn one_shot_verbs_give_a_slow_name_service_its_time() {
    let etcd = Etcd::start();
    etcd.etcdctl(&["put", &key_of("h1"), DEFAULT_VALUE]);
    let names = NameService::start(&[Ipv4Addr::LOCALHOST], SLOW);
    assert_eq!(run(verb(&names, "hosts", etcd.port())).printed(), "h1:4300\n");
    let mut bootstrap = verb(&names, "bootstrap", etcd.port());
    bootstrap.args(["--prefix", "/new", "--expect", "1", "--node-name", "crate1", "--hold", "1s", "--wait"]);
    assert_eq!(run(bootstrap).printed(), "crate1\n");
}

/// The address is kept, also after a lookup that failed: what is cut is connected again although nobody says where to.
#[test]
fn key_is_never_missing_when_the_name_service_falls_silent_and_every_connection_is_cut() {
    let etcd = Etcd::start();
    let (observer, proxy) = (Observer::start(&etcd), Proxy::start(etcd.port()));
    let names = NameService::start(&[Ipv4Addr::LOCALHOST], Duration::ZERO);
    let port = proxy.url().rsplit(':').next().unwrap().parse().unwrap();
    let mut daemon = announced(&names, port, PATIENCE);
    names.falls_silent();
    for cut in 1..=3 {
        let asked = names.asked();
        proxy.set(Mode::Cut);
        daemon.says_times("endpoint left", cut, PATIENCE);
        proxy.set(Mode::Pass);
        daemon.says_times("etcd answers again", cut, PATIENCE);
        if cut == 2 {
            // The name is doubted, and looked up again as soon as the last answer is five seconds old. The resolver asks
            // once more after five seconds, and gives up after ten.
            eventually("it is asked twice", PATIENCE, || match names.asked() - asked {
                0 | 1 => Err("not yet".to_owned()),
                _ => Ok(()),
            });
            sleep(Duration::from_secs(6));
        } else {
            sleep(Duration::from_secs(5));
        }
    }
    sleep(OUTLIVED);
    let history = observer.history(&key());
    assert_eq!(history.len(), 1, "{history:#?}\n{}", daemon.stderr());
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
}

/// Tokio's own lookup panics where no thread can be started.
#[test]
fn process_that_may_start_no_thread_says_so_and_goes_on_when_it_may() {
    let (etcd, dir) = (Etcd::start(), scratch());
    // For an account of its own, which must be able to run it.
    let binary = dir.path().join("crate-discovery");
    copy_binary(&binary);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let account = ["--reuid=54322", "--clear-groups"];
    let mut command = tool_behind("prlimit", &["--nproc=1:4096", "setpriv"]);
    command.args(account).arg(&binary);
    command.args(["announce", "--host", "h1", "--address", "127.0.0.1"]);
    command.args(["--endpoints", &format!("http://localhost:{}", etcd.port())]);
    let mut daemon = Daemon::spawn(command);
    let said = daemon.says("endpoint left", PATIENCE);
    assert!(said.contains("the name localhost cannot be looked up: no thread can be started"), "{said}");
    stays("alive", AT_ONCE, &None, || daemon.ended());
    let raised = Command::new("setpriv")
        .args(account)
        .args(["prlimit", "--pid", &daemon.pid().to_string(), "--nproc=4096"])
        .status()
        .unwrap();
    assert!(raised.success());
    daemon.says("announced", PATIENCE);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
}
