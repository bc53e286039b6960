//! Answers DNS SRV from memory, over UDP and TCP, for CrateDB's `discovery.seed_providers=srv`.
//!
//! CrateDB asks once a second while it has no master, and waits 100 ms for an answer (6.2;
//! `SrvUnicastHostsProvider`). [`mod@answer`] decides what is said, this module only listens.

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

/// Bytes of the longest query that is read; a question and EDNS(0) need less than 600.
const LONGEST_QUERY: usize = 4096;
/// TCP connections at a time. One more ends the oldest, so that no idle client keeps others out.
const MOST_CONNECTIONS: usize = 32;
/// Bytes of answers that the kernel keeps for one connection, of which it takes twice as many: one of the longest.
const SEND_BUFFER: u32 = 64 * 1024;
/// The same of queries.
const RECEIVE_BUFFER: u32 = LONGEST_QUERY as u32;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;
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
    udp: Udp,
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
        let udp = Udp::bind(address).await.map_err(unusable("UDP"))?;
        let tcp = listen(address).map_err(unusable("TCP"))?;
        Ok(Self { udp, tcp, address, service })
    }

    /// Answers for ever, each query from the snapshot that is then the newest; `None` is "not read
    /// yet". No error of a socket ends it; nor does the end of the channel's sender, whose last
    /// snapshot stays. Dropping it closes all connections and both sockets.
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

/// What all sockets share.
struct Responder {
    service: ServiceName,
    state: Mutex<State>,
    /// Held for an answer over TCP: between two of them everything else of the program has its turn, however many
    /// clients ask without a pause.
    turn: Semaphore,
}

struct State {
    snapshots: Snapshots,
    /// Of the newest snapshot that was asked for.
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
            return Some(state.answer(query, &self.service, Transport::Udp)?.message);
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
        let Answer { message, left_out } = state.answer(query, &self.service, Transport::Tcp)?;
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
    fn answer(&mut self, query: &[u8], service: &ServiceName, transport: Transport) -> Option<Answer> {
        self.refresh();
        if let Some((host, more)) = self.told.unfit(Instant::now()) {
            warn!(%host, more, "left out of SRV answers: where it is joined is no DNS name");
        }
        answer(query, service, self.records.as_ref(), transport, fastrand::usize(..))
    }

    /// Writes the records anew where there is another snapshot: once for each, and only when somebody asks.
    fn refresh(&mut self) {
        let snapshot = self.snapshots.borrow_and_update();
        if snapshot.has_changed() {
            // Not both at a time.
            self.records = None;
            self.records = snapshot.as_deref().map(Records::of);
            self.told.judged(self.records.as_ref().map_or(&[], Records::unfit));
        }
    }
}

/// A listening socket whose connections keep little in the kernel, which counts as memory of the container.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the connections of the run before it.
    socket.set_reuseaddr(true)?;
    // Inherited by each connection (`tcp(7)`).
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
