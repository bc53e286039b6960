//! Three members of a real etcd. Each client port and each peer port is behind a proxy, so that a
//! member can be cut off from its peers while clients still reach it, and the other way round.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use super::{
    PATIENCE, Pki, TTL,
    daemon::{Daemon, tool},
    etcd::{Etcd, arg},
    eventually, free_port,
    proxy::{Mode, Proxy},
};

/// How many members: the least of which one can be lost.
pub const MEMBERS: usize = 3;

/// A cluster that lives as long as this value.
pub struct Cluster {
    /// Before the proxies, so that nobody complains of a peer that went first.
    members: Vec<Etcd>,
    clients: Vec<Proxy>,
    peers: Vec<Proxy>,
    /// Whose process does not run, or stands still.
    away: [bool; MEMBERS],
}

impl Cluster {
    /// Starts an empty cluster and waits until every member is healthy.
    pub fn start() -> Self {
        Self::start_with_flags(&[])
    }

    /// As [`Cluster::start`], with more flags for every member.
    pub fn start_with_flags(extra: &[&str]) -> Self {
        Self::start_with(extra, |_| {})
    }

    /// As [`Cluster::start`], where each member also takes clients with a certificate of `pki`, at a port of its own,
    /// which is given beside it.
    pub fn start_with_tls_too(pki: &Pki) -> (Self, Vec<u16>) {
        let mut ports = Vec::new();
        let cluster = Self::start_with(&[], |members| {
            ports.clear();
            for member in members {
                let port = free_port();
                let both = format!("{},https://127.0.0.1:{port}", member.url());
                let Pki { ca, cert, key } = pki;
                member.add_flags(&["--listen-client-urls", &both, "--client-cert-auth"]);
                member.add_flags(&["--cert-file", arg(cert), "--key-file", arg(key)]);
                member.add_flags(&["--trusted-ca-file", arg(ca)]);
                ports.push(port);
            }
        });
        (cluster, ports)
    }

    fn start_with(extra: &[&str], mut prepare: impl FnMut(&mut [Etcd])) -> Self {
        for _ in 0..5 {
            let mut cluster = Self::unstarted(extra);
            prepare(&mut cluster.members);
            cluster.members.iter_mut().for_each(Etcd::launch);
            if cluster.members.iter_mut().all(Etcd::comes_up) {
                return cluster;
            }
            eprintln!("a member ended at its start, trying other ports");
        }
        panic!("the cluster does not start");
    }

    /// As [`Cluster::start`], with the first member's data in `directory`.
    pub fn start_with_first_on(directory: &Path) -> Self {
        let mut cluster = Self::unstarted(&[]);
        let data = directory.join("data");
        cluster.members[0].add_flags(&["--data-dir", &data.display().to_string()]);
        cluster.members.iter_mut().for_each(Etcd::launch);
        assert!(cluster.members.iter_mut().all(Etcd::comes_up), "a member ended at its start");
        cluster
    }

    fn unstarted(extra: &[&str]) -> Self {
        let mut members: Vec<Etcd> = (0..MEMBERS).map(|_| Etcd::unstarted(extra, false)).collect();
        let clients = members.iter().map(|member| Proxy::start(member.port())).collect();
        let peers: Vec<Proxy> = members.iter().map(|member| Proxy::start(member.peer_port())).collect();
        let all: Vec<String> =
            peers.iter().enumerate().map(|(i, peer)| format!("m{i}={}", peer.url())).collect();
        // Were a port to be used again by another test's cluster, neither may take the other for a peer.
        let token = peers.iter().map(Proxy::url).collect::<String>();
        for (i, member) in members.iter_mut().enumerate() {
            member.add_flags(&["--name", &format!("m{i}"), "--initial-cluster", &all.join(",")]);
            member.add_flags(&[
                "--initial-advertise-peer-urls",
                &peers[i].url(),
                "--initial-cluster-token",
                &token,
            ]);
        }
        Self { members, clients, peers, away: [false; MEMBERS] }
    }

    /// Where clients connect, all through the proxies, as `--endpoints` has it.
    pub fn endpoints(&self) -> String {
        self.clients.iter().map(Proxy::url).collect::<Vec<_>>().join(",")
    }

    /// `announce` for `host` on all members; `args` hold what is more, `--ttl` above all.
    pub fn announce(&self, host: &str, args: &[&str]) -> Command {
        let mut command = tool();
        command.args(["announce", "--endpoints", &self.endpoints(), "--host", host]).args(args);
        command.env("CRATE_DISCOVERY_TTL", format!("{}s", TTL.as_secs()));
        command
    }

    /// Starts [`Cluster::announce`] and waits until it says that it is announced.
    pub fn announced(&self, host: &str, args: &[&str]) -> Daemon {
        let mut daemon = Daemon::spawn(self.announce(host, args));
        daemon.says("announced", PATIENCE);
        daemon
    }

    /// One member, reached directly.
    pub fn member(&self, index: usize) -> &Etcd {
        &self.members[index]
    }

    /// All members, reached directly.
    pub fn members(&self) -> &[Etcd] {
        &self.members
    }

    /// The proxy between clients and this member.
    pub fn client_proxy(&self, index: usize) -> &Proxy {
        &self.clients[index]
    }

    /// Ends a member with SIGKILL; its data stays.
    pub fn kill(&mut self, index: usize) {
        self.away[index] = true;
        self.members[index].kill();
    }

    /// Starts a killed member again and waits until it is healthy.
    pub fn restart(&mut self, index: usize) {
        self.members[index].restart();
        self.away[index] = false;
    }

    /// Ends all members with SIGKILL; their data stays.
    pub fn kill_all(&mut self) {
        (0..MEMBERS).for_each(|index| self.kill(index));
    }

    /// Starts all killed members; gives the moment when the first of them was healthy.
    pub fn restart_all(&mut self) -> Instant {
        self.members.iter_mut().for_each(Etcd::launch);
        let up = |member: &mut Etcd| assert!(member.comes_up(), "no comeback:\n{}", member.log_tail());
        up(&mut self.members[0]);
        let serves = Instant::now();
        self.members.iter_mut().for_each(up);
        self.away = [false; MEMBERS];
        serves
    }

    /// Ends all members and starts them without their data; as [`Cluster::restart_all`].
    pub fn wipe_all(&mut self) -> Instant {
        self.kill_all();
        self.members.iter_mut().for_each(Etcd::forget);
        self.restart_all()
    }

    /// Replaces a member by one without data, as an operator does who lost a disk: out of the
    /// cluster, in again under the same URLs, started empty. The others have to have a quorum.
    pub fn replace(&mut self, index: usize) {
        let other = (index + 1) % MEMBERS;
        let id = self.id(index);
        self.kill(index);
        self.members[index].forget();
        let (name, url) = (format!("m{index}"), format!("--peer-urls={}", self.peers[index].url()));
        for change in [vec!["member", "remove", &id], vec!["member", "add", &name, &url]] {
            // Refused while the others are about to elect a leader.
            eventually("the membership changes", PATIENCE, || {
                self.members[other].try_etcdctl(&change).map(drop)
            });
        }
        self.members[index].add_flags(&["--initial-cluster-state=existing"]);
        self.restart(index);
    }

    /// Stops a member in its tracks: connections are accepted, nothing is answered.
    pub fn freeze(&mut self, index: usize) {
        self.away[index] = true;
        self.members[index].freeze();
    }

    /// Lets a frozen member go on.
    pub fn thaw(&mut self, index: usize) {
        self.members[index].thaw();
        self.away[index] = false;
    }

    /// Nothing passes between this member and the others any more; clients still reach it.
    pub fn cut_off(&self, index: usize) {
        let pid = self.members[index].pid();
        for (other, peer) in self.peers.iter().enumerate() {
            if other == index {
                peer.set(Mode::Stall);
            } else {
                peer.stall_from([pid]);
            }
        }
    }

    /// Undoes [`Cluster::cut_off`].
    pub fn rejoin(&self) {
        for peer in &self.peers {
            peer.set(Mode::Pass);
            peer.stall_from([]);
        }
    }

    /// Waits until exactly one of the members that run says that it leads, and gives that one.
    #[track_caller]
    pub fn leader(&self) -> usize {
        eventually("there is one leader", PATIENCE, || {
            let running = (0..MEMBERS).filter(|&index| !self.away[index]);
            let leaders: Vec<usize> =
                running.filter(|&index| self.members[index].metric("etcd_server_is_leader") == 1.0).collect();
            match leaders[..] {
                [leader] => Ok(leader),
                _ => Err(format!("{leaders:?}")),
            }
        })
    }

    /// Makes a member the leader.
    #[track_caller]
    pub fn lead(&self, index: usize) {
        eventually("the leader is moved", PATIENCE, || {
            let leader = self.leader();
            if leader == index {
                return Ok(());
            }
            self.members[leader].try_etcdctl(&["move-leader", &self.id(index)])?;
            Err("just moved".to_owned())
        });
    }

    /// A member's id in hex.
    fn id(&self, index: usize) -> String {
        let list = self.members[index].etcdctl(&["member", "list"]);
        let line = list.lines().find(|line| line.contains(&format!(", m{index}, "))).expect("it is a member");
        line.split(", ").next().expect("the id comes first").to_owned()
    }

    /// Waits until exactly one client's connection is open, and gives the member that it goes to.
    #[track_caller]
    pub fn connected(&self) -> usize {
        eventually("one connection is open", PATIENCE, || {
            let open: Vec<usize> = self.clients.iter().map(Proxy::open).collect();
            let used: Vec<usize> = (0..MEMBERS).filter(|&index| open[index] > 0).collect();
            match used[..] {
                [index] => Ok(index),
                _ => Err(format!("{open:?}")),
            }
        })
    }

    /// A round (`docs/design.md`, "Connection and timing") for a client of all members, the default request timeout, and
    /// a lease of `ttl`: one cap, an attempt at each, 1 s.
    pub fn round(ttl: Duration) -> Duration {
        let cap = (ttl / 6).min(Duration::from_secs(5));
        cap + MEMBERS as u32 * Self::attempt(ttl) + Duration::from_secs(1)
    }

    /// One attempt (`docs/design.md`, "Connection and timing") for such a client.
    pub fn attempt(ttl: Duration) -> Duration {
        (ttl / (2 * MEMBERS as u32)).min(Duration::from_secs(5))
    }
}
