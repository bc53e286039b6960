//! A TCP proxy that breaks the ways networks break: it stalls, swallows, cuts, delays.
//!
//! Between peers it also knows who is dialling, so that one member can be cut off from the others
//! while clients still reach it.

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Builder,
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};

use super::free_port;

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forward.
    Pass,
    /// Forward nothing, keep everything: it arrives late, when the mode changes.
    Stall,
    /// Swallow everything, for good: a connection that was in a black hole never works again.
    BlackHole,
    /// As [`Mode::BlackHole`], and let nobody in: no SYN is answered. There is no way back.
    Vanish,
    /// Close every connection, refuse new ones.
    Cut,
    /// Forward each piece this long after it came, as a long line does: what comes in between is on its way meanwhile.
    Delay(Duration),
}

/// A proxy in front of one port, on a thread of its own; ends when dropped.
pub struct Proxy {
    ip: Ipv4Addr,
    port: u16,
    mode: watch::Sender<Mode>,
    /// Processes whose connections stall; see [`Proxy::stall_from`].
    stalled: watch::Sender<HashSet<u32>>,
    open: Arc<AtomicUsize>,
    withheld: Withheld,
    /// What fills the queue of the listener where nobody gets in.
    queued: Mutex<Vec<std::net::TcpStream>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// When a request first came that was not passed on.
type Withheld = Arc<Mutex<Option<Instant>>>;

/// What one connection has to know.
#[derive(Clone)]
struct Rules {
    mode: watch::Receiver<Mode>,
    stalled: watch::Receiver<HashSet<u32>>,
    withheld: Withheld,
}

impl Proxy {
    /// Listens on a free port of loopback and forwards to `target` of loopback.
    pub fn start(target: u16) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, free_port(), target)
    }

    /// As [`Proxy::start`], at an address of ours and a port that must be free there.
    pub fn start_at(ip: Ipv4Addr, port: u16, target: u16) -> Self {
        let (mode, mode_seen) = watch::channel(Mode::Pass);
        let (stalled, stalled_seen) = watch::channel(HashSet::new());
        let (stop, mut stopped) = watch::channel(false);
        let (open, withheld) = (Arc::new(AtomicUsize::new(0)), Withheld::default());
        let rules = Rules { mode: mode_seen, stalled: stalled_seen, withheld: Arc::clone(&withheld) };
        let counter = Arc::clone(&open);
        let (ready, listens) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let at = SocketAddr::from((ip, port));
                let first = listen(at).await;
                ready.send(()).unwrap();
                tokio::select! {
                    () = serve(first, at, target, rules, counter) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        });
        listens.recv().expect("the proxy listens");
        let queued = Mutex::default();
        Self { ip, port, mode, stalled, open, withheld, queued, stop, thread: Some(thread) }
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.ip, self.port)
    }

    /// Changes what happens, for open connections too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        if mode == Mode::Vanish {
            // Nobody takes from the queue any more; the kernel drops every SYN once it is full.
            let address = SocketAddr::from((self.ip, self.port));
            let mut queued = self.queued.lock().unwrap();
            while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300))
            {
                queued.push(stream);
            }
        }
    }

    /// Stalls the connections that these processes dialled, and no others.
    pub fn stall_from(&self, pids: impl IntoIterator<Item = u32>) {
        self.stalled.send_replace(pids.into_iter().collect());
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// When the first HTTP/2 request came that was not passed on, pings and the like not counted.
    pub fn first_withheld(&self) -> Option<Instant> {
        *self.withheld.lock().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Listens, except while everything is cut.
async fn serve(first: TcpListener, at: SocketAddr, target: u16, rules: Rules, open: Arc<AtomicUsize>) {
    let mut listener = Some(first);
    let mut mode = rules.mode.clone();
    // Ends when the other end of the channel is gone, with the proxy.
    while mode.wait_for(|mode| *mode != Mode::Cut).await.is_ok() {
        let accepting = match listener.take() {
            Some(listener) => listener,
            None => listen(at).await,
        };
        let mut lets_in = rules.mode.clone();
        loop {
            let lets_in = async {
                let _ = lets_in.wait_for(|mode| *mode != Mode::Vanish).await;
                accepting.accept().await
            };
            tokio::select! {
                accepted = lets_in => {
                    let Ok((client, dialler)) = accepted else { continue };
                    let (rules, open) = (rules.clone(), Arc::clone(&open));
                    open.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(async move {
                        connection(client, Dialler::at(dialler), target, rules).await;
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                _ = mode.wait_for(|mode| *mode == Mode::Cut) => break,
            }
        }
    }
}

/// The port was ours before; whoever has it in between gives it back.
async fn listen(at: SocketAddr) -> TcpListener {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        match socket.bind(at).and_then(|()| socket.listen(128)) {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection(client: TcpStream, dialler: Dialler, target: u16, rules: Rules) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut mode = rules.mode.clone();
    tokio::select! {
        () = pump(from_client, to_server, rules.clone(), dialler.clone(), true) => {}
        () = pump(from_server, to_client, rules, dialler, false) => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

/// Forwards one direction until either end closes it.
async fn pump(
    from: impl AsyncReadExt + Unpin,
    to: impl AsyncWriteExt + Unpin,
    rules: Rules,
    dialler: Dialler,
    from_client: bool,
) {
    let (on_its_way, arriving) = mpsc::unbounded_channel();
    tokio::join!(take_in(from, on_its_way, rules, dialler, from_client), hand_out(to, arriving));
}

/// A piece, and when it is due at the other end.
type Piece = (Instant, Vec<u8>);

async fn hand_out(mut to: impl AsyncWriteExt + Unpin, mut arriving: mpsc::UnboundedReceiver<Piece>) {
    while let Some((due, piece)) = arriving.recv().await {
        sleep_until(due.into()).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}

async fn take_in(
    mut from: impl AsyncReadExt + Unpin,
    on_its_way: mpsc::UnboundedSender<Piece>,
    rules: Rules,
    dialler: Dialler,
    from_client: bool,
) {
    let Rules { mut mode, mut stalled, withheld } = rules;
    let mut buffer = vec![0; 64 * 1024];
    let mut swallowed = false;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let passes = matches!(*mode.borrow(), Mode::Pass | Mode::Delay(_));
        if from_client && !passes && is_request(&buffer[..count]) {
            withheld.lock().unwrap().get_or_insert_with(Instant::now);
        }
        if stalled.wait_for(|stalled| !stalled.iter().any(|&pid| dialler.is(pid))).await.is_err() {
            return;
        }
        let now = match mode.wait_for(|mode| *mode != Mode::Stall).await {
            Ok(now) => *now,
            Err(_) => return,
        };
        swallowed |= matches!(now, Mode::BlackHole | Mode::Vanish);
        if swallowed {
            continue;
        }
        let delay = if let Mode::Delay(delay) = now { delay } else { Duration::ZERO };
        if on_its_way.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
            return;
        }
    }
    if swallowed {
        // The one who gave up is not heard by the other side either.
        std::future::pending().await
    }
}

/// Whether these HTTP/2 frames hold a request or a part of one: HEADERS or DATA. A writer sends
/// whole frames at once, so that a piece begins with one.
fn is_request(mut frames: &[u8]) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    frames = frames.strip_prefix(PREFACE).unwrap_or(frames);
    while let [a, b, c, kind, ..] = *frames {
        if kind <= 1 {
            return true;
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        frames = frames.get(9 + length..).unwrap_or_default();
    }
    false
}

/// Who dialled us: a process of this machine. etcd's peers do not say in every request who they are.
#[derive(Clone)]
struct Dialler {
    port: u16,
    /// Its socket as `/proc/<pid>/fd` names it. Looked up when it is asked for, for that is slow.
    socket: Arc<OnceLock<Option<String>>>,
}

impl Dialler {
    fn at(address: SocketAddr) -> Self {
        Self { port: address.port(), socket: Arc::default() }
    }

    fn is(&self, pid: u32) -> bool {
        let Some(socket) = self.socket.get_or_init(|| self.find()) else { return false };
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let mut targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        targets.any(|target| target.as_os_str() == socket.as_str())
    }

    fn find(&self) -> Option<String> {
        let local = format!(" 0100007F:{:04X} ", self.port);
        let sockets = fs::read_to_string("/proc/net/tcp").ok()?;
        // Its own end: the local address comes first, the inode is the tenth field.
        let line = sockets.lines().find(|line| line.get(..24).is_some_and(|head| head.contains(&local)))?;
        Some(format!("socket:[{}]", line.split_whitespace().nth(9)?))
    }
}

/// A port that lets nobody in: its queue is full, so the kernel drops every further SYN, as a
/// firewall would. Lives as long as this value.
pub struct BlackHole {
    port: u16,
    _listener: std::net::TcpListener,
    _queued: Vec<std::net::TcpStream>,
}

impl BlackHole {
    /// Opens it.
    pub fn open() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))).unwrap();
            socket.listen(0).unwrap().into_std().unwrap()
        });
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            queued.push(stream);
        }
        Self { port: address.port(), _listener: listener, _queued: queued }
    }

    /// Where nobody gets in.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// A port that refuses: it is taken, so that nobody else can open it, and nobody listens.
pub struct Refusing {
    port: u16,
    _socket: TcpSocket,
}

impl Refusing {
    /// Takes it.
    pub fn open() -> Self {
        let (port, socket) = (free_port(), TcpSocket::new_v4().unwrap());
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap();
        Self { port, _socket: socket }
    }

    /// Where to be refused.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
