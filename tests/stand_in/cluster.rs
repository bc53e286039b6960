//! Who is master: CrateDB's coordination, as far as a test can see it.
//!
//! A fresh node elects nobody unless `cluster.initial_master_nodes` names it, and it sees more than half
//! of those named (`ClusterBootstrapService`). Later masters need more than half of the last voters,
//! which are known by id, so that a wiped node counts for nothing (`CoordinationState`, `Reconfigurator`).
//! Who has been in one cluster joins no other (`JoinHelper`).

mod answers;
mod discovery;
mod election;
mod lead;

pub use discovery::coordinate;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::{
    disk::{Cluster, Disk, Memory, Peer},
    log::say,
    settings::Settings,
    wire::{Ask, Tell, ask},
};

/// From one word of a master to the next.
const BEAT: Duration = Duration::from_millis(300);

/// How long a master, or a follower that does not answer but has not gone, is waited for.
const SILENCE: Duration = Duration::from_secs(4);

/// CrateDB's `discovery.unconfigured_bootstrap_timeout`: how long a node waits that was told nothing of
/// any others, before it elects itself.
const UNCONFIGURED: Duration = Duration::from_secs(3);

/// What a node does at the moment.
enum Mode {
    /// Its coordinator has not started.
    Starting,
    /// It knows no master.
    Candidate { since: Instant },
    /// It is the master; when each follower answered last, by id.
    Leader { answered: BTreeMap<String, Instant> },
    /// It follows that master, heard of then.
    Follower { master: Peer, heard: Instant },
}

/// One node; all threads of the process share it.
pub struct Node {
    name: String,
    cluster_name: String,
    address: SocketAddr,
    initial: Vec<String>,
    is_unconfigured: bool,
    expected: usize,
    disk: Disk,
    core: Mutex<Core>,
}

struct Core {
    memory: Memory,
    mode: Mode,
    decommissioned: Option<Instant>,
    told: String,
}

/// What `/` says of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// There is no state to be asked yet.
    Starting,
    /// No master is known.
    NoMaster,
    /// There is a master, but the data is not there yet.
    NotRecovered,
    /// All is there.
    Recovered,
}

impl Node {
    /// A node that others reach at `address`, with what its disk remembers. It does nothing yet.
    pub fn new(settings: &Settings, address: SocketAddr, disk: Disk) -> Arc<Self> {
        let memory = disk.read();
        disk.write(&memory);
        let named = ["discovery.seed_hosts", "discovery.seed_providers", "cluster.initial_master_nodes"];
        Arc::new(Self {
            name: settings.get("node.name").map_or_else(|| memory.id.clone(), str::to_owned),
            cluster_name: settings.get("cluster.name").unwrap_or("crate").to_owned(),
            address,
            initial: settings.list("cluster.initial_master_nodes"),
            is_unconfigured: named.iter().all(|key| settings.get(key).is_none()),
            expected: settings.number("gateway.expected_data_nodes").unwrap_or(0),
            disk,
            core: Mutex::new(Core {
                memory,
                mode: Mode::Starting,
                decommissioned: None,
                told: String::new(),
            }),
        })
    }

    /// Begins to look for a master, and to answer.
    pub fn start(&self) {
        self.core().mode = Mode::Candidate { since: Instant::now() };
    }

    /// `node.name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `cluster.name`.
    pub fn cluster_name(&self) -> &str {
        &self.cluster_name
    }

    /// What `/` says of it.
    pub fn health(&self) -> Health {
        let core = self.core();
        match core.mode {
            Mode::Starting => Health::Starting,
            Mode::Candidate { .. } => Health::NoMaster,
            _ if core.memory.cluster.as_ref().is_some_and(|cluster| cluster.recovered) => Health::Recovered,
            _ => Health::NotRecovered,
        }
    }

    /// Its cluster, while it has a master.
    pub fn cluster(&self) -> Option<Cluster> {
        let core = self.core();
        match core.mode {
            Mode::Leader { .. } | Mode::Follower { .. } => core.memory.cluster.clone(),
            _ => None,
        }
    }

    /// Lets the node of that name leave for good, as `ALTER CLUSTER DECOMMISSION` does. Whether there is
    /// such a node.
    pub fn decommission(&self, name: &str) -> bool {
        let Some(cluster) = self.cluster() else { return false };
        let Some(peer) = cluster.nodes.iter().find(|peer| peer.name == name || peer.id == name) else {
            return false;
        };
        if peer.id != self.core().memory.id {
            return matches!(ask(peer.address, &Ask::Decommission), Ok(Tell::Done));
        }
        self.core().decommissioned.get_or_insert_with(Instant::now);
        true
    }

    /// Whether it has been decommissioned, and has had the time to move its data away.
    pub fn is_decommissioned(&self) -> bool {
        self.core().decommissioned.is_some_and(|since| since.elapsed() > Duration::from_secs(1))
    }

    fn follow(&self, core: &mut Core, master: Peer, cluster: Cluster) {
        if core.memory.cluster.as_ref() != Some(&cluster) {
            core.memory.cluster = Some(cluster);
            self.disk.write(&core.memory);
        }
        // What is not committed may still be taken back.
        if core.memory.cluster.as_ref().is_some_and(|cluster| cluster.committed) {
            core.mode = Mode::Follower { master, heard: Instant::now() };
            self.tell(core);
        }
    }

    /// Says which cluster this node is in, and with whom, if that is new.
    fn tell(&self, core: &mut Core) {
        let Some(cluster) = core.memory.cluster.as_ref().filter(|cluster| cluster.committed) else { return };
        let mut names: Vec<&str> = cluster.nodes.iter().map(|peer| peer.name.as_str()).collect();
        names.sort_unstable();
        let master = self.master(core).map_or_else(String::new, |master| master.name);
        let now = format!("in cluster {} of {} under {master}", cluster.uuid, names.join(","));
        if core.told != now {
            say(&now);
            core.told = now;
        }
    }

    fn loses_its_master(&self, core: &mut Core, why: &str) {
        core.mode = Mode::Candidate { since: Instant::now() };
        core.told.clear();
        say(&format!("master lost: {why}"));
    }

    fn me(&self, core: &Core) -> Peer {
        Peer { id: core.memory.id.clone(), name: self.name.clone(), address: self.address }
    }

    fn master(&self, core: &Core) -> Option<Peer> {
        match &core.mode {
            Mode::Leader { .. } => Some(self.me(core)),
            Mode::Follower { master, .. } => Some(master.clone()),
            _ => None,
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().expect("no thread panics")
    }
}
