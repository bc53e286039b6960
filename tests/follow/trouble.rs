//! What ends a watch: each time the hosts are right again, without a restart.

use std::time::{Duration, Instant};

use crate::{
    Kept, delete, lines, put,
    support::{
        AT_ONCE, DEFAULT_VALUE, PATIENCE, SLACK,
        cluster::{Cluster, MEMBERS},
        daemon::{Daemon, watch},
        etcd::{Etcd, arg, scratch},
        eventually_eq, key_of,
        observer::Raw,
        proxy::{Mode, Proxy},
        stays,
    },
};

/// Silence is noticed by the look of the next tick, 22 s at most, which fails after one attempt; then the next member is
/// asked.
const SILENCE: Duration = Duration::from_secs(22 + 5);

/// Compacted away while we could not look: behind a proxy that stalls, so that the watch has to begin anew.
#[test]
fn compaction_while_cut_off_leaves_no_gap() {
    let etcd = Etcd::start();
    put(&etcd, &["a", "b"]);
    let proxy = Proxy::start(etcd.port());
    let mut kept = Kept::holding_at(&proxy.url(), &["a", "b"], &["--hold", "1s"]);
    proxy.set(Mode::Cut);
    kept.daemon.says("the hosts are stale", PATIENCE);
    delete(&etcd, &["a"]);
    let mut raw = Raw::connect(&etcd);
    let last = (0..50).map(|n| raw.put(key_of("c").as_bytes(), announcement(4300 + n).as_bytes())).last();
    etcd.etcdctl(&["compact", &last.unwrap().to_string()]);
    proxy.set(Mode::Pass);
    let expected = "b:4300\nc:4349\n";
    eventually_eq("the file is right again", PATIENCE, &expected.to_owned(), || kept.content());
}

fn announcement(transport: u16) -> String {
    format!(r#"{{"http":4200,"transport":{transport}}}"#)
}

#[test]
fn compaction_under_a_live_watch_leaves_no_gap() {
    let etcd = Etcd::start();
    let kept = Kept::holding(&etcd, &[], &[]);
    for host in ["a", "b", "c"] {
        put(&etcd, &[host]);
        let revision = etcd.key(&key_of(host)).expect("just put").mod_revision;
        etcd.etcdctl(&["compact", &revision.to_string()]);
    }
    // Less than a tick, which would find out what a watch missed. Each compaction may cost a list, after a back-off.
    kept.holds(&["a", "b", "c"], 3 * (AT_ONCE + SLACK));
}

#[test]
fn endpoint_that_goes_silent_is_noticed_and_the_hosts_are_right_again() {
    for mode in [Mode::Stall, Mode::BlackHole] {
        let etcd = Etcd::start();
        put(&etcd, &["a"]);
        let proxy = Proxy::start(etcd.port());
        let mut kept = Kept::holding_at(&proxy.url(), &["a"], &["--request-timeout", "1s"]);
        let since = Instant::now();
        proxy.set(mode);
        put(&etcd, &["b"]);
        kept.daemon.says("endpoint left", SILENCE + SLACK);
        proxy.set(Mode::Pass);
        kept.holds(&["a", "b"], PATIENCE);
        println!("{mode:?}: right again after {:?}", since.elapsed());
        put(&etcd, &["c"]);
        kept.holds(&["a", "b", "c"], AT_ONCE + SLACK);
    }
}

/// `watch --seed-file` on all members of a cluster where `a` is announced.
fn following(cluster: &Cluster) -> Kept {
    put(cluster.member(0), &["a"]);
    Kept::holding_at(&cluster.endpoints(), &["a"], &[])
}

#[test]
fn each_member_may_be_killed_in_turn() {
    let mut cluster = Cluster::start();
    let mut kept = following(&cluster);
    let mut hosts = vec!["a"];
    for host in ["b", "c", "d"] {
        let ours = cluster.connected();
        cluster.kill(ours);
        kept.daemon.says_times("etcd answers again", hosts.len(), PATIENCE);
        cluster.leader();
        put(cluster.member((ours + 1) % MEMBERS), &[host]);
        hosts.push(host);
        kept.holds(&hosts, AT_ONCE + SLACK);
        cluster.restart(ours);
    }
    // A member that was left for the next one is no outage of the cluster.
    assert_eq!(kept.daemon.lines("missing after"), Vec::<String>::new());
}

#[test]
fn member_that_is_frozen_or_cut_off_is_left_for_another() {
    let mut cluster = Cluster::start();
    let kept = following(&cluster);
    let ours = cluster.connected();
    cluster.freeze(ours);
    cluster.leader();
    put(cluster.member((ours + 1) % MEMBERS), &["b"]);
    kept.holds(&["a", "b"], SILENCE + SLACK);
    cluster.thaw(ours);

    let ours = cluster.connected();
    cluster.cut_off(ours);
    // An election first, and the member has to find out that it is alone; or the next look finds it out.
    put(cluster.member((ours + 1) % MEMBERS), &["c"]);
    kept.holds(&["a", "b", "c"], SILENCE + SLACK);
    cluster.rejoin();
}

#[test]
fn all_members_may_be_away_and_come_back_without_their_data() {
    let mut cluster = Cluster::start();
    let kept = following(&cluster);
    cluster.wipe_all();
    put(cluster.member(0), &["b"]);
    kept.holds(&["a", "b"], PATIENCE);
}

#[test]
fn stale_login_is_renewed_and_nobody_is_held_for_it() {
    let mut etcd = Etcd::start_with_flags(&["--auth-token-ttl=2"]);
    put(&etcd, &["a", "b"]);
    etcd.enable_auth(&[("reader", "right", &[&["--prefix=true", "read", "/services/crate/"]])]);
    let dir = scratch();
    let path = dir.path().join("unicast_hosts.txt");
    let mut command = watch(&etcd, &["--seed-file", arg(&path)]);
    command.env("ETCDCTL_USER", "reader:right");
    let mut daemon = Daemon::spawn(command);
    let holds = |hosts: &[&str]| {
        let content = || std::fs::read_to_string(&path).unwrap_or_default();
        eventually_eq("the file holds", PATIENCE, &lines(hosts), content);
    };
    holds(&["a", "b"]);
    // The token is long forgotten when the member is asked again.
    etcd.kill();
    daemon.says("the hosts are stale", PATIENCE);
    etcd.restart();
    daemon.says("the hosts are live again", PATIENCE);
    etcd.etcdctl(&["put", &key_of("c"), DEFAULT_VALUE]);
    holds(&["a", "b", "c"]);
    stays("no refusal", Duration::from_secs(1), &0, || daemon.lines("etcd refuses").len());
}
