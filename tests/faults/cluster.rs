//! Three members: rows 5 to 11. Whatever happens to one of them, nobody sees the key missing;
//! whatever happens to all of them, it is back within a round.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    OUTLIVED, key,
    support::{
        AT_ONCE, PATIENCE, SLACK, TTL,
        cluster::{Cluster, MEMBERS},
        daemon::{Daemon, field, message_of},
        disk::Disk,
        eventually, key_of,
        proxy::Mode,
        witness::Witness,
    },
};

/// Where a single member goes and nobody else may help out by starting leases anew: with the least
/// TTL only 2 s are left between the last keep-alive in vain and the lease's end.
const ROOMY: Duration = Duration::from_secs(10);
const ROOMY_ARGS: [&str; 2] = ["--ttl", "10s"];
/// As [`OUTLIVED`], for such a lease.
const ROOMY_OUTLIVED: Duration = Duration::from_secs(13);

/// An announced host and its witness.
fn announced(cluster: &Cluster, args: &[&str]) -> (Daemon, Witness) {
    let witness = Witness::start(cluster.members(), &key());
    let daemon = cluster.announced("h1", args);
    witness.asks_everybody();
    (daemon, witness)
}

/// Nobody saw the key missing, and nothing was ever announced anew.
#[track_caller]
fn was_never_missing(fault: &str, witness: &Witness, daemon: &Daemon) {
    witness.asks_everybody();
    println!("{fault}: worst absence {} ms", witness.worst_absence().as_millis());
    let history = witness.history();
    assert!(witness.absences().is_empty(), "{:?}\n{history:?}", witness.absences());
    assert_eq!(history.len(), 1, "(put, lease): {history:?}");
    assert!(daemon.lines("lost").is_empty(), "{}", daemon.stderr());
}

/// The key is there, as this member has it, and its lease lives.
#[track_caller]
fn is_back(cluster: &Cluster, index: usize, within: Duration) {
    eventually("the key is back under a living lease", within, || {
        let member = cluster.member(index);
        let fields = member.try_etcdctl(&["get", &key(), "--write-out=fields", "--command-timeout=1s"])?;
        let lease = fields.lines().find_map(|line| line.strip_prefix("\"Lease\" : ")).ok_or("no key")?;
        let lease: i64 = lease.parse().map_err(|e| format!("{lease}: {e}"))?;
        let state = member.try_etcdctl(&["lease", "timetolive", &format!("{lease:x}")])?;
        if state.contains("remaining(") { Ok(()) } else { Err(state) }
    });
}

/// Its log lines after `mark` bytes of its log that begin with `message`.
fn said_after(daemon: &Daemon, mark: usize, message: &str) -> Vec<String> {
    let said = daemon.stderr().split_off(mark);
    said.lines().filter(|line| message_of(line).starts_with(message)).map(str::to_owned).collect()
}

/// After `mark` bytes of its log it left this endpoint, said so once and why, and got an answer
/// elsewhere. Gives when it said so.
#[track_caller]
fn leaves(cluster: &Cluster, daemon: &Daemon, mark: usize, index: usize, within: Duration) -> Instant {
    let url = cluster.client_proxy(index).url();
    let of_it = |line: &String| field(line, "endpoint").as_ref() == Some(&url);
    let (line, at) = eventually("the endpoint is left", within, || {
        let line = said_after(daemon, mark, "endpoint left").into_iter().find(of_it);
        line.map(|line| (line, Instant::now())).ok_or_else(|| daemon.stderr())
    });
    assert!(field(&line, "reason").is_some_and(|reason| !reason.is_empty()), "{line}");
    // An election may take longer than a round.
    eventually("it is answered elsewhere", PATIENCE, || {
        let elsewhere = said_after(daemon, mark, "etcd answers again");
        if elsewhere.iter().any(|line| !of_it(line)) { Ok(()) } else { Err(daemon.stderr()) }
    });
    let times = said_after(daemon, mark, "endpoint left").iter().filter(|line| of_it(line)).count();
    assert_eq!(times, 1, "{}", daemon.stderr());
    at
}

/// Row 7: each in turn, beginning with ours, which leads.
#[test]
fn key_is_never_missing_while_each_member_in_turn_is_killed_and_restarted() {
    let mut cluster = Cluster::start();
    let (mut daemon, witness) = announced(&cluster, &[]);
    let ours = cluster.connected();
    cluster.lead(ours);
    for index in (ours..ours + MEMBERS).map(|index| index % MEMBERS) {
        let (connected, leader) = (cluster.connected() == index, cluster.leader() == index);
        println!("member {index}: connected {connected}, leader {leader}");
        let times = daemon.lines("etcd answers again").len();
        cluster.kill(index);
        if connected {
            daemon.says_times("etcd answers again", times + 1, PATIENCE);
        }
        cluster.leader();
        // Keep-alives in vain would come to light before the next leader starts the lease anew.
        sleep(TTL / 2);
        cluster.restart(index);
    }
    sleep(OUTLIVED);
    was_never_missing("row 7: each member killed in turn", &witness, &daemon);
}

/// Row 7: the leader, and the next one.
#[test]
fn key_is_never_missing_while_two_leaders_in_a_row_are_killed() {
    let mut cluster = Cluster::start();
    let (daemon, witness) = announced(&cluster, &[]);
    for _ in 0..2 {
        let leader = cluster.leader();
        cluster.kill(leader);
        cluster.leader();
        cluster.restart(leader);
    }
    sleep(OUTLIVED);
    was_never_missing("row 7: leader killed twice", &witness, &daemon);
}

/// Row 8, as `mode` has it: the connection stays, and nothing comes out of it.
fn silent_endpoint_is_left(row: &str, mode: Mode) {
    let cluster = Cluster::start();
    let (daemon, witness) = announced(&cluster, &ROOMY_ARGS);
    let ours = cluster.connected();
    let (since, mark) = (Instant::now(), daemon.stderr().len());
    cluster.client_proxy(ours).set(mode);
    let left = leaves(&cluster, &daemon, mark, ours, ROOMY / 2 + SLACK);
    let asked = cluster.client_proxy(ours).first_withheld().unwrap_or(since);
    println!("{row}: left {} ms after the first unanswered request", (left - asked).as_millis());
    assert!(left - asked < Cluster::attempt(ROOMY) + SLACK, "{:?}", left - asked);
    sleep(ROOMY_OUTLIVED);
    cluster.client_proxy(ours).set(Mode::Pass);
    // What comes out late must not matter any more.
    sleep(AT_ONCE);
    was_never_missing(row, &witness, &daemon);
}

/// Row 8.
#[test]
fn endpoint_that_swallows_everything_is_left_within_one_attempt() {
    silent_endpoint_is_left("row 8: black-holed", Mode::BlackHole);
}

/// Row 8.
#[test]
fn endpoint_that_stalls_is_left_within_one_attempt() {
    silent_endpoint_is_left("row 8: stalled", Mode::Stall);
}

/// Row 8: too slow to be of use is as bad as silent.
#[test]
fn endpoint_that_answers_later_than_an_attempt_is_left() {
    let cluster = Cluster::start();
    let (daemon, witness) = announced(&cluster, &ROOMY_ARGS);
    let ours = cluster.connected();
    let mark = daemon.stderr().len();
    cluster.client_proxy(ours).set(Mode::Delay(Cluster::attempt(ROOMY)));
    leaves(&cluster, &daemon, mark, ours, ROOMY / 2 + SLACK);
    sleep(ROOMY_OUTLIVED);
    was_never_missing("row 8: slow", &witness, &daemon);
}

/// Row 8: the connection is reset and the endpoint refuses for a while.
#[test]
fn key_is_never_missing_while_each_endpoint_in_turn_is_cut() {
    let cluster = Cluster::start();
    let (daemon, witness) = announced(&cluster, &[]);
    for _ in 0..2 * MEMBERS {
        let ours = cluster.connected();
        cluster.client_proxy(ours).set(Mode::Cut);
        eventually("it is connected elsewhere", AT_ONCE + SLACK, || {
            let open: Vec<usize> = (0..MEMBERS).map(|index| cluster.client_proxy(index).open()).collect();
            if open[ours] == 0 && open.contains(&1) { Ok(()) } else { Err(format!("{open:?}")) }
        });
        cluster.client_proxy(ours).set(Mode::Pass);
    }
    sleep(OUTLIVED);
    was_never_missing("row 8: cut", &witness, &daemon);
}

/// Row 9: a follower, ours.
#[test]
fn key_is_never_missing_while_the_member_we_use_is_frozen() {
    let mut cluster = Cluster::start();
    let (daemon, witness) = announced(&cluster, &ROOMY_ARGS);
    let ours = cluster.connected();
    cluster.lead((ours + 1) % MEMBERS);
    let (since, mark) = (Instant::now(), daemon.stderr().len());
    cluster.freeze(ours);
    // A keep-alive is due every third of the TTL, give or take 10 %.
    let left = leaves(&cluster, &daemon, mark, ours, ROOMY);
    let bound = ROOMY.mul_f64(1.1 / 3.0) + Cluster::attempt(ROOMY) + SLACK;
    assert!(left - since < bound, "{:?}", left - since);
    sleep(ROOMY_OUTLIVED);
    cluster.thaw(ours);
    sleep(AT_ONCE);
    was_never_missing("row 9: our member frozen", &witness, &daemon);
}

/// Row 9, the leader: frozen for longer than the TTL, then thawed.
fn leader_is_frozen(row: &str, we_use_it: bool) {
    let mut cluster = Cluster::start();
    let (daemon, witness) = announced(&cluster, &[]);
    let ours = cluster.connected();
    let leader = if we_use_it { ours } else { (ours + 1) % MEMBERS };
    cluster.lead(leader);
    cluster.freeze(leader);
    cluster.leader();
    sleep(OUTLIVED);
    assert!(witness.absences().is_empty(), "{row}, not yet thawed: {:?}", witness.absences());
    cluster.thaw(leader);
    // What the thawed one still proposes, it proposes at once.
    sleep(AT_ONCE + SLACK);
    // It takes itself for the leader and our lease for expired (etcd#15247). Since 3.5.13 it asks
    // first, unless its clock has ticked in between (server.go, `ensureLeadership`; seen on 3.7.3).
    println!("{row}: worst absence {} ms", witness.worst_absence().as_millis());
    assert!(witness.worst_absence() < AT_ONCE + SLACK, "{:?}", witness.absences());
    is_back(&cluster, ours, SLACK);
    let settled = witness.history();
    sleep(OUTLIVED);
    assert_eq!(witness.history(), settled, "{}", daemon.stderr());
}

/// Row 9.
#[test]
fn key_is_there_while_the_leader_that_we_use_is_frozen_and_thawed() {
    leader_is_frozen("row 9: leader frozen, ours", true);
}

/// Row 9.
#[test]
fn key_is_there_while_the_leader_that_another_member_follows_is_frozen_and_thawed() {
    leader_is_frozen("row 9: leader frozen, not ours", false);
}

/// Row 9, another way to stand still: a leader whose disk hangs goes on renewing leases in its memory, while the
/// others have elected another, at which these end (etcd#15247).
#[test]
fn key_is_there_while_the_disk_of_the_leader_that_we_use_hangs() {
    let disk = Disk::create();
    let cluster = Cluster::start_with_first_on(&disk.path());
    cluster.lead(0);
    let witness = Witness::start(cluster.members(), &key());
    let others = [1, 2].map(|index| cluster.client_proxy(index));
    others.iter().for_each(|proxy| proxy.set(Mode::Cut));
    let daemon = cluster.announced("h1", &ROOMY_ARGS);
    others.iter().for_each(|proxy| proxy.set(Mode::Pass));
    witness.asks_everybody();
    assert_eq!(cluster.connected(), 0);

    let mark = daemon.stderr().len();
    let hangs = disk.hang();
    // It stands still at the next thing it has to write. There is no answer.
    let _ = cluster.member(0).try_etcdctl(&["put", "/somebody/elses", "x", "--command-timeout=200ms"]);
    let since = Instant::now();
    let look = (ROOMY / 3).mul_f64(1.1);
    let left = leaves(&cluster, &daemon, mark, 0, look + Cluster::attempt(ROOMY) + SLACK);
    println!("row 9: left {} ms after the leader's disk hung", (left - since).as_millis());
    sleep(ROOMY_OUTLIVED);
    assert!(witness.absences().is_empty(), "the disk still hangs: {:?}", witness.absences());
    drop(hangs);
    sleep(AT_ONCE + SLACK);
    // What the old leader still proposes then is row 9's.
    println!("row 9: leader's disk: worst absence {} ms", witness.worst_absence().as_millis());
    assert!(witness.worst_absence() < AT_ONCE + SLACK, "{:?}", witness.absences());
    is_back(&cluster, 1, SLACK);
}

/// Row 11, for a follower or for the leader.
fn member_is_cut_off(row: &str, leads: bool) {
    let cluster = Cluster::start();
    let (daemon, witness) = announced(&cluster, &ROOMY_ARGS);
    let ours = cluster.connected();
    cluster.lead(if leads { ours } else { (ours + 1) % MEMBERS });
    let mark = daemon.stderr().len();
    cluster.cut_off(ours);
    // It goes on answering pings; keep-alives are forwarded to a leader that it cannot reach.
    leaves(&cluster, &daemon, mark, ours, ROOMY);
    sleep(ROOMY_OUTLIVED);
    cluster.rejoin();
    eventually("the member is back", PATIENCE, || {
        cluster.member(ours).try_etcdctl(&["get", &key_of("h1"), "--command-timeout=1s"])
    });
    sleep(AT_ONCE);
    was_never_missing(row, &witness, &daemon);
}

/// Row 11.
#[test]
fn key_is_never_missing_while_the_follower_that_we_use_is_cut_off_from_its_quorum() {
    member_is_cut_off("row 11: our follower cut off", false);
}

/// Row 11.
#[test]
fn key_is_never_missing_while_the_leader_that_we_use_is_cut_off_from_its_quorum() {
    member_is_cut_off("row 11: our leader cut off", true);
}

/// Row 10.
#[test]
fn key_returns_after_all_members_were_frozen_for_longer_than_its_ttl() {
    let mut cluster = Cluster::start();
    let (mut daemon, witness) = announced(&cluster, &[]);
    (0..MEMBERS).for_each(|index| cluster.freeze(index));
    daemon.says("no endpoint of etcd answers", TTL + SLACK);
    sleep(TTL);
    (0..MEMBERS).for_each(|index| cluster.thaw(index));
    cluster.leader();
    let serves = Instant::now();
    is_back(&cluster, 0, PATIENCE);
    // A thawed etcd may still end the lease after a keep-alive came in: what counts is where it settles.
    sleep(Cluster::round(TTL));
    println!("row 10: all frozen: worst absence {} ms", witness.worst_absence().as_millis());
    let settled = witness.history();
    let bound = serves + Cluster::round(TTL) + SLACK;
    let late = witness.absences().into_iter().find(|absence| absence.to > bound);
    assert!(late.is_none(), "{late:?} {settled:?}");
    sleep(OUTLIVED);
    assert_eq!(witness.history(), settled, "{}", daemon.stderr());
}

/// Row 5: the members prolong their leases when they elect, so the old one is still good.
#[test]
fn key_is_kept_when_all_members_return_with_their_data_after_more_than_a_ttl() {
    let mut cluster = Cluster::start();
    let (daemon, witness) = announced(&cluster, &[]);
    cluster.kill_all();
    sleep(TTL + AT_ONCE);
    cluster.restart_all();
    // Were it not found again within a round, the prolonged lease would end in here.
    sleep(OUTLIVED);
    was_never_missing("row 5: all gone", &witness, &daemon);
}

/// Row 6.
#[test]
fn key_returns_after_all_members_lost_their_data() {
    let mut cluster = Cluster::start();
    let (daemon, witness) = announced(&cluster, &[]);
    let before = witness.history();
    drop(witness);
    let serves = cluster.wipe_all();
    is_back(&cluster, 0, (serves + Cluster::round(TTL) + SLACK).saturating_duration_since(Instant::now()));
    println!("row 6: all wiped: back after {} ms at most", serves.elapsed().as_millis());
    // One return, under one new lease, for good.
    let witness = Witness::start(cluster.members(), &key());
    sleep(OUTLIVED);
    let after = witness.history();
    assert_eq!(after.len(), 1, "{after:?} {}", daemon.stderr());
    assert_ne!(after, before, "a lease id is never used again");
    assert!(witness.absences().is_empty(), "{:?}", witness.absences());
}

/// Row 7, for good: a member lost its disk and is replaced by an empty one under the same URLs.
#[test]
fn key_is_never_missing_while_our_member_is_replaced_by_an_empty_one() {
    let mut cluster = Cluster::start();
    let (daemon, witness) = announced(&cluster, &ROOMY_ARGS);
    let ours = cluster.connected();
    cluster.replace(ours);
    sleep(ROOMY_OUTLIVED);
    was_never_missing("row 7: our member replaced by an empty one", &witness, &daemon);
}
