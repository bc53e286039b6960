//! A smoke test of the real thing, as often as one likes; the model in `tests/model` goes through all the orders there are.
//! Nodes that start all at once, some of them killed or stopped and started again, on a cluster
//! that loses a member meanwhile.

use std::{
    collections::BTreeSet,
    env,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    Asking,
    support::{
        PATIENCE,
        cluster::{Cluster, MEMBERS},
        daemon::tool,
        proxy::Mode,
        signal,
    },
};

/// How many, unless `CRATE_DISCOVERY_BOOTSTRAP_TRIALS` says otherwise.
const TRIALS: u64 = 2;
const NODES: usize = 5;
const EXPECT: &str = "3";
/// How long the candidates have to be there, or three times that, since a member is killed.
const HOLD: &str = "200ms";
/// All nodes are started within this many milliseconds.
const START: u64 = 200;
/// A node is killed at most this many milliseconds after its start: most answers are there by then.
const KILL: u64 = 1000;
/// Each piece to and from a member takes up to this many milliseconds: looking and freezing are then
/// far enough apart for others to come in between.
const DELAY: u64 = 100;

enum Event {
    Start(usize),
    Kill(usize),
    Stop(usize),
    KillMember(usize),
}

fn command(cluster: &Cluster, prefix: &str, node: usize) -> Command {
    let mut command = tool();
    command.args(["bootstrap", "--endpoints", &cluster.endpoints(), "--prefix", prefix]);
    command.args(["--expect", EXPECT, "--node-name", &format!("crate{node}"), "--timeout", "60s"]);
    command.args(["--hold", HOLD]);
    command
}

/// What happens when, in milliseconds: each node started, some killed and started again, one member of
/// etcd killed.
fn plan(random: &mut fastrand::Rng) -> (Vec<(u64, Event)>, usize) {
    let mut events = Vec::new();
    for node in 0..NODES {
        let mut at = random.u64(0..START);
        events.push((at, Event::Start(node)));
        while random.u8(0..2) == 0 {
            at += random.u64(0..KILL);
            // One that is told to end is no candidate any more at once, which moves the list most.
            events.push((at, if random.bool() { Event::Kill(node) } else { Event::Stop(node) }));
            at += random.u64(0..50);
            events.push((at, Event::Start(node)));
        }
    }
    let member = random.usize(0..MEMBERS);
    events.push((random.u64(0..START + KILL), Event::KillMember(member)));
    events.sort_by_key(|(at, _)| *at);
    (events, member)
}

#[test]
fn five_nodes_at_once_get_one_list_whoever_is_killed_meanwhile() {
    let asked = env::var("CRATE_DISCOVERY_BOOTSTRAP_TRIALS").ok();
    let trials = asked.map_or(TRIALS, |trials| trials.parse().expect("a number of trials"));
    let mut cluster = Cluster::start();
    let (mut kills, mut longest) = (0, Duration::ZERO);
    for trial in 0..trials {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let prefix = format!("/trial/{trial}");
        let (events, member) = plan(&mut random);
        for index in 0..MEMBERS {
            let delay = Duration::from_millis(random.u64(1..DELAY));
            cluster.client_proxy(index).set(Mode::Delay(delay));
        }
        let mut running: [Option<Asking>; NODES] = Default::default();
        let mut handed = BTreeSet::new();
        let begun = Instant::now();
        for (at, event) in events {
            sleep(Duration::from_millis(at).saturating_sub(begun.elapsed()));
            match event {
                Event::Start(node) => running[node] = Some(Asking::start(command(&cluster, &prefix, node))),
                Event::Kill(node) | Event::Stop(node) => {
                    let asking = running[node].take().expect("started before");
                    // It may have had its answer already: that counts as well.
                    let printed = if matches!(event, Event::Kill(_)) {
                        asking.kill()
                    } else {
                        signal(asking.pid(), Signal::TERM);
                        asking.finish(PATIENCE).stdout
                    };
                    kills += u32::from(printed.is_empty());
                    handed.extend((!printed.is_empty()).then_some(printed));
                }
                Event::KillMember(member) => cluster.kill(member),
            }
        }
        for asking in running.into_iter().flatten() {
            let finished = asking.finish(Duration::from_secs(60));
            assert_eq!(finished.code, 0, "trial {trial}, seed {seed}: {}", finished.stderr);
            handed.insert(finished.stdout);
        }
        longest = longest.max(begun.elapsed());
        assert_eq!(handed.len(), 1, "trial {trial}, seed {seed}: {handed:?}");
        let list = handed.pop_first().expect("one");
        let names: BTreeSet<&str> = list.trim_end().split(',').collect();
        let all: BTreeSet<String> = (0..NODES).map(|node| format!("crate{node}")).collect();
        assert!(names.len() == 3 && names.iter().all(|name| all.contains(*name)), "seed {seed}: {list:?}");
        cluster.restart(member);
    }
    println!(
        "{trials} trials, {kills} nodes killed before their answer; the slowest trial took {longest:.1?}"
    );
}
