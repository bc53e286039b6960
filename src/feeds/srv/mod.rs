//! Answers DNS SRV from memory, over UDP and TCP, for CrateDB's `discovery.seed_providers=srv`.
//!
//! CrateDB asks once per second while it has no master, and waits 100 ms for an answer (6.2;
//! `SrvUnicastHostsProvider`). [`mod@answer`] makes the answers; this module only handles the sockets.

pub mod answer;
mod limit;
pub mod name;
pub mod records;
mod told;
mod udp;

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    task::{AbortHandle, JoinSet, yield_now},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use self::{
    answer::{Answer, Transport, answer, truncated},
    limit::Limit,
    name::ServiceName,
    records::Records,
    told::Told,
    udp::{Received, Udp},
};
use crate::{snapshot::Snapshots, text::plain_io};

/// The longest query that is read, in bytes. A question and EDNS(0) need less than 600.
const LONGEST_QUERY: usize = 4096;
/// The most TCP connections at once. One more ends the oldest, so that idle clients do not keep others out.
const MOST_CONNECTIONS: usize = 32;
/// How many bytes of answers the kernel buffers for one connection: one of the longest answers. The kernel uses twice
/// as much memory.
const SEND_BUFFER: u32 = 64 * 1024;
/// How many bytes of queries the kernel buffers for one connection.
const RECEIVE_BUFFER: u32 = LONGEST_QUERY as u32;
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 128;
/// The longest time for one query and its answer on a TCP connection. It starts at the end of the answer before.
const EXCHANGE: Duration = Duration::from_secs(5);
/// The pause between two tries to listen on an address that cannot be used.
const REBIND: Duration = Duration::from_secs(2);
/// The pause after an error of a socket, for example too many open files, which would otherwise come back at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers on `address` for ever, as [`Server::run`]. If the address cannot be used, there is one warning, and it is
/// tried again: another process may have it for a while, or its network may not be up yet.
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

/// The address of `--srv` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on \"--srv\" address {address} over {transport}: {reason}")]
pub struct UnusableAddress {
    /// The address.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// The reason.
    pub reason: String,
}

/// The bound sockets. From now on a query waits for [`Server::run`], and is not refused. Dropping it closes them.
#[derive(Debug)]
pub struct Server {
    udp: Udp,
    tcp: TcpListener,
    address: SocketAddr,
    service: ServiceName,
}

impl Server {
    /// Listens on `address`, over UDP and TCP, for questions about `service`.
    ///
    /// # Errors
    /// [`UnusableAddress`] if the address is taken, needs privileges, or does not belong to this machine.
    pub async fn bind(address: SocketAddr, service: ServiceName) -> Result<Self, UnusableAddress> {
        let unusable = |transport| {
            move |error: io::Error| UnusableAddress { address, transport, reason: plain_io(&error) }
        };
        let udp = Udp::bind(address).await.map_err(unusable("UDP"))?;
        let tcp = listen(address).map_err(unusable("TCP"))?;
        Ok(Self { udp, tcp, address, service })
    }

    /// Answers for ever, each query from the newest snapshot. `None` in the channel means that nothing was read yet. No
    /// error of a socket ends it. If the sender of the channel is dropped, the last snapshot stays. Dropping the future
    /// closes all connections and both sockets.
    pub async fn run(self, snapshots: Snapshots) -> Infallible {
        let Self { udp, tcp, address, service } = self;
        let reach = if address.ip().is_loopback() { "this machine" } else { "everybody who can reach it" };
        info!(%address, name = %service, "answering SRV for {reach}");
        let responder = Arc::new(Responder::new(service, snapshots));
        tokio::select! {
            never = serve_udp(udp, &responder) => never,
            never = serve_tcp(tcp, &responder) => never,
        }
    }
}

/// The state that all sockets share.
struct Responder {
    service: ServiceName,
    state: Mutex<State>,
    /// Held while an answer over TCP is made. Everything else in the program has its turn between two such answers,
    /// however many clients ask without a pause.
    turn: Semaphore,
}

struct State {
    snapshots: Snapshots,
    /// The records of the newest snapshot that was needed for an answer.
    records: Option<Records>,
    limit: Limit,
    told: Told,
}

impl Responder {
    fn new(service: ServiceName, mut snapshots: Snapshots) -> Self {
        snapshots.mark_changed();
        let limit = Limit::new(Instant::now());
        let state = Mutex::new(State { snapshots, records: None, limit, told: Told::default() });
        Self { service, state, turn: Semaphore::new(1) }
    }

    /// The answer to `query`, which came over UDP from `asker`.
    fn answer_udp(&self, query: &[u8], asker: SocketAddr) -> Option<Vec<u8>> {
        let now = Instant::now();
        let mut state = self.state();
        if state.limit.allows(asker.ip(), now) {
            return Some(state.fresh_answer(query, &self.service, Transport::Udp)?.message);
        }
        let message = truncated(query)?;
        if state.told.is_limited_due(now) {
            let asker = asker.ip();
            warn!(%asker, "SRV is asked for too often over UDP: answers are empty and ask to come over TCP");
        }
        Some(message)
    }

    /// The answer to `query`, which came over TCP.
    fn answer_tcp(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state();
        let Answer { message, left_out } = state.fresh_answer(query, &self.service, Transport::Tcp)?;
        if state.told.is_first_full(left_out) {
            warn!(left_out, "not all hosts fit into an SRV answer: each has another part of them");
        }
        Some(message)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fresh_answer(&mut self, query: &[u8], service: &ServiceName, transport: Transport) -> Option<Answer> {
        self.refresh();
        if let Some((host, more)) = self.told.unfit(Instant::now()) {
            warn!(%host, more, "left out of SRV answers: where it is joined is no DNS name");
        }
        answer(query, service, self.records.as_ref(), transport, fastrand::usize(..))
    }

    /// Makes the records again if there is a new snapshot. That happens once for each snapshot, and only when a query
    /// comes.
    fn refresh(&mut self) {
        let snapshot = self.snapshots.borrow_and_update();
        if snapshot.has_changed() {
            // The old records are dropped first, so that the memory never holds both.
            self.records = None;
            self.records = snapshot.as_deref().map(Records::of);
            self.told.judged(self.records.as_ref().map_or(&[], Records::unfit));
        }
    }
}

/// A listening socket. Its connections have small buffers in the kernel, because these count as memory of the
/// container.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not have to wait for old connections of this port.
    socket.set_reuseaddr(true)?;
    // Each connection inherits these sizes (`tcp(7)`).
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn serve_udp(socket: Udp, responder: &Responder) -> Infallible {
    let mut query = vec![0; LONGEST_QUERY];
    loop {
        match socket.receive(&mut query).await {
            Ok(Received { length, asker, asked }) => {
                if let Some(message) = responder.answer_udp(&query[..length], asker)
                    && let Err(error) = socket.send(&message, asker, asked).await
                {
                    debug!(%asker, %error, "failed to send an SRV answer");
                }
                // A client that asks without a pause must not delay the keep-alive of a lease.
                yield_now().await;
            }
            Err(error) => pause(&error, "UDP").await,
        }
    }
}

async fn serve_tcp(listener: TcpListener, responder: &Arc<Responder>) -> Infallible {
    // This is dropped with the function, and ends the connections.
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

/// Answers one query after the other, until the client closes, is silent for too long, or sends something that is no
/// query.
async fn converse(mut stream: TcpStream, responder: Arc<Responder>) {
    // Without this, the end of a long answer could wait for an acknowledgement of the client.
    let _ = stream.set_nodelay(true);
    while let Ok(Ok(true)) = timeout(EXCHANGE, exchange(&mut stream, &responder)).await {}
}

/// Reads one query and sends its answer, each after its length in two bytes (RFC 1035, section 4.2.2). Returns whether
/// another query may follow.
async fn exchange(stream: &mut TcpStream, responder: &Responder) -> io::Result<bool> {
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST_QUERY {
        return Ok(false);
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    let answer = {
        let _turn = responder.turn.acquire().await.map_err(io::Error::other)?;
        let answer = responder.answer_tcp(&query);
        yield_now().await;
        answer
    };
    let Some(mut message) = answer else { return Ok(false) };
    let Ok(length) = u16::try_from(message.len()) else { return Ok(false) };
    message.splice(..0, length.to_be_bytes());
    stream.write_all(&message).await?;
    Ok(true)
}
