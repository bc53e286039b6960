//! Answers DNS SRV from memory, over UDP and TCP, for CrateDB's `discovery.seed_providers=srv`.
//!
//! CrateDB asks once a second while it has no master, and waits 100 ms for an answer (6.2;
//! `SrvUnicastHostsProvider`). [`mod@answer`] decides what is said, this module only listens.

pub mod answer;
pub mod name;

use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::{AbortHandle, JoinSet, yield_now},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use self::{
    answer::{Transport, answer, unfit},
    name::ServiceName,
};
use crate::{
    host::Host,
    snapshot::{Snapshot, Snapshots},
    text::plain_io,
};

/// Bytes of the longest query that is read; a question and EDNS(0) need less than 600.
const LONGEST_QUERY: usize = 4096;
/// TCP connections at a time. One more ends the oldest, so that no idle client keeps others out.
const MOST_CONNECTIONS: usize = 32;
/// Longest time for one query and its answer on a TCP connection, from the end of the one before.
const EXCHANGE: Duration = Duration::from_secs(5);
/// Between two tries to listen on an address that is not to be had.
const REBIND: Duration = Duration::from_secs(2);
/// Pause after a socket's error, such as too many open files, which would otherwise come back at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers on `address` for ever, as [`Server::run`] does. An address that is not to be had is warned about, and tried
/// again: it may be another process's for a while, or of a network that is not up yet.
pub async fn serve(address: SocketAddr, service: ServiceName, snapshots: Snapshots) -> Infallible {
    let mut warned = false;
    loop {
        match Server::bind(address, service.clone()).await {
            Ok(server) => return server.run(snapshots).await,
            Err(error) if !std::mem::replace(&mut warned, true) => warn!(%error, "no SRV answers yet"),
            Err(_) => {}
        }
        sleep(REBIND).await;
    }
}

/// The address of `--srv` cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on \"--srv\" address {address} over {transport}: {reason}")]
pub struct UnusableAddress {
    /// The address.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// Why.
    pub reason: String,
}

/// The sockets, bound: whoever asks from now on waits for [`Server::run`] instead of being refused.
/// Closed when dropped.
#[derive(Debug)]
pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
    service: ServiceName,
}

impl Server {
    /// Listens on `address`, over UDP and TCP, for questions about `service`.
    ///
    /// # Errors
    /// [`UnusableAddress`], where the address is taken, privileged or not of this machine.
    pub async fn bind(address: SocketAddr, service: ServiceName) -> Result<Self, UnusableAddress> {
        let unusable = |transport| {
            move |error: io::Error| UnusableAddress { address, transport, reason: plain_io(&error) }
        };
        let udp = UdpSocket::bind(address).await.map_err(unusable("UDP"))?;
        let tcp = TcpListener::bind(address).await.map_err(unusable("TCP"))?;
        Ok(Self { udp, tcp, address, service })
    }

    /// Answers for ever, each query from the snapshot that is then the newest; `None` is "not read
    /// yet". No error of a socket ends it; nor does the end of the channel's sender, whose last
    /// snapshot stays. Dropping it closes all connections and both sockets.
    pub async fn run(self, snapshots: Snapshots) -> Infallible {
        let Self { udp, tcp, address, service } = self;
        let reach = if address.ip().is_loopback() { "this machine" } else { "everybody who can reach it" };
        info!(%address, name = %service, "answering SRV for {reach}");
        let responder = Arc::new(Responder { service, snapshots, told: Mutex::default() });
        tokio::select! {
            never = serve_udp(udp, &responder) => never,
            never = serve_tcp(tcp, &responder) => never,
        }
    }
}

/// What all sockets share.
struct Responder {
    service: ServiceName,
    snapshots: Snapshots,
    told: Mutex<Told>,
}

/// What the log has been told, so that it is told once.
#[derive(Default)]
struct Told {
    /// The revision whose hosts were judged.
    revision: i64,
    /// Those of them that no answer can name.
    unfit: BTreeSet<Host>,
    /// That not all nodes fit into an answer.
    is_full: bool,
}

impl Responder {
    fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let snapshot = self.snapshots.borrow();
        let start = fastrand::usize(..);
        let answer = answer(query, &self.service, snapshot.as_deref(), transport, start)?;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for host in snapshot.as_deref().map(|snapshot| told.unfit(snapshot)).unwrap_or_default() {
            warn!(%host, "left out of SRV answers: where it is joined is no DNS name");
        }
        if transport == Transport::Tcp && told.is_first_full(answer.left_out) {
            let left_out = answer.left_out;
            warn!(left_out, "not all hosts fit into an SRV answer: each has another part of them");
        }
        Some(answer.message)
    }
}

impl Told {
    /// The hosts of `snapshot` that no answer can name and the log has not been told of.
    fn unfit(&mut self, snapshot: &Snapshot) -> Vec<Host> {
        // A query must not cost another walk over ten thousand hosts.
        if self.revision == snapshot.revision() {
            return vec![];
        }
        let unfit: BTreeSet<Host> = unfit(snapshot).map(|node| node.host.clone()).collect();
        let new = unfit.difference(&self.unfit).cloned().collect();
        (self.revision, self.unfit) = (snapshot.revision(), unfit);
        new
    }

    /// Whether this is the first time that hosts are left out.
    fn is_first_full(&mut self, left_out: usize) -> bool {
        left_out > 0 && !std::mem::replace(&mut self.is_full, true)
    }
}

async fn serve_udp(socket: UdpSocket, responder: &Responder) -> Infallible {
    let mut query = vec![0; LONGEST_QUERY];
    loop {
        match socket.recv_from(&mut query).await {
            Ok((length, asker)) => {
                if let Some(message) = responder.answer(&query[..length], Transport::Udp)
                    && let Err(error) = socket.send_to(&message, asker).await
                {
                    debug!(%asker, %error, "failed to send an SRV answer");
                }
                // Whoever asks without a pause must not hold up who keeps a lease alive.
                yield_now().await;
            }
            Err(error) => pause(&error, "UDP").await,
        }
    }
}

async fn serve_tcp(listener: TcpListener, responder: &Arc<Responder>) -> Infallible {
    // Dropped with this function, and the connections with it.
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                by_age.retain(|connection| !connection.is_finished());
                if by_age.len() == MOST_CONNECTIONS
                    && let Some(oldest) = by_age.pop_front()
                {
                    oldest.abort();
                }
                by_age.push_back(connections.spawn(converse(stream, Arc::clone(responder))));
            }
            Err(error) => pause(&error, "TCP").await,
        }
    }
}

async fn pause(error: &io::Error, transport: &str) {
    debug!(%error, transport, "failed to receive a query");
    sleep(PAUSE).await;
}

/// Query after query, until the other side has enough, is silent, or sends what is no query.
async fn converse(mut stream: TcpStream, responder: Arc<Responder>) {
    // The end of a long answer must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    while let Ok(Ok(true)) = timeout(EXCHANGE, exchange(&mut stream, &responder)).await {}
}

/// One query and its answer, each after its length in two bytes (RFC 1035, section 4.2.2). Gives
/// whether there may be another.
async fn exchange(stream: &mut TcpStream, responder: &Responder) -> io::Result<bool> {
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST_QUERY {
        return Ok(false);
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    let Some(message) = responder.answer(&query, Transport::Tcp) else { return Ok(false) };
    let Ok(length) = u16::try_from(message.len()) else { return Ok(false) };
    stream.write_all(&[length.to_be_bytes().as_slice(), &message].concat()).await?;
    yield_now().await;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{announcement::Announcement, snapshot::Node};

    fn snapshot(revision: i64, hosts: &[&str]) -> Snapshot {
        let announcement = Announcement::from_json(br#"{"http":4200,"transport":4300}"#).unwrap();
        let node = |host: &&str| Node { host: host.parse().unwrap(), announcement: announcement.clone() };
        Snapshot::new(revision, hosts.iter().map(node).collect())
    }

    #[test]
    fn the_log_is_told_once_of_each_host_that_is_left_out() {
        let mut told = Told::default();
        let mut hears = |revision, hosts: &[&str]| -> Vec<String> {
            told.unfit(&snapshot(revision, hosts)).iter().map(Host::to_string).collect()
        };
        assert_eq!(hears(1, &["a", "b..c"]), ["b..c"]);
        assert!(hears(1, &["a", "b..c"]).is_empty());
        assert_eq!(hears(2, &["a", "b..c", "d..e"]), ["d..e"]);
        assert!(hears(3, &["a"]).is_empty());
        assert_eq!(hears(4, &["b..c"]), ["b..c"]);
    }

    #[test]
    fn the_log_is_told_once_that_answers_are_full() {
        let mut told = Told::default();
        assert_eq!(
            [0, 5, 6, 0, 7].map(|left_out| told.is_first_full(left_out)),
            [false, true, false, false, false]
        );
    }
}
