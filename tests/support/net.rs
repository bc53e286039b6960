//! A name service of one's own, for one process: it may be slow, silent, or change its mind.
//!
//! The process runs in a mount namespace where `resolv.conf` names our server, on a loopback address
//! that nobody else has. That takes root.

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use tempfile::TempDir;

use super::{
    daemon::tool_behind,
    etcd::{arg, scratch},
};

/// A name service that knows one name. Its threads end with the process.
pub struct NameService {
    files: TempDir,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Nothing for a name that there is not.
    addresses: Vec<Ipv4Addr>,
    /// How long an answer takes; for ever, where this is nothing.
    delay: Option<Duration>,
    /// How often it was asked for A.
    asked: usize,
}

impl NameService {
    /// The one name.
    pub const NAME: &'static str = "crate1.example";

    /// One that knows the name at these addresses, and answers after `delay`.
    pub fn start(addresses: &[Ipv4Addr], delay: Duration) -> Self {
        let state = State { addresses: addresses.to_vec(), delay: Some(delay), asked: 0 };
        let state = Arc::new(Mutex::new(state));
        let socket = (0..100)
            .map(|_| RandomState::new().hash_one(0).to_be_bytes())
            .find_map(|[a, b, c, ..]| {
                UdpSocket::bind((Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254)), 53)).ok()
            })
            .expect("a name service needs port 53 of a loopback address, and so root");
        let files = scratch();
        let address = socket.local_addr().unwrap().ip();
        let write = |name: &str, text: String| std::fs::write(files.path().join(name), text).unwrap();
        write("resolv.conf", format!("nameserver {address}\n"));
        write("hosts", "127.0.0.1 localhost\n".to_owned());
        write("nsswitch.conf", "hosts: files dns\n".to_owned());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || serve(&socket, &shared));
        Self { files, state }
    }

    /// The binary, which asks this service alone.
    pub fn tool(&self) -> Command {
        let files = ["resolv.conf", "hosts", "nsswitch.conf"];
        let mounts: Vec<String> = files
            .map(|name| (self.files.path().join(name), PathBuf::from("/etc").join(name)))
            .into_iter()
            .map(|(ours, etc)| format!("mount --bind {} {}", arg(&ours), arg(&etc)))
            .collect();
        let script = format!("{} && exec \"$@\"", mounts.join(" && "));
        tool_behind("unshare", &["--mount", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_crate-discovery")])
    }

    /// From now on it answers with these.
    pub fn knows(&self, addresses: &[Ipv4Addr]) {
        self.state.lock().unwrap().addresses = addresses.to_vec();
    }

    /// From now on it answers after `delay`.
    pub fn answers_after(&self, delay: Duration) {
        self.state.lock().unwrap().delay = Some(delay);
    }

    /// From now on it never answers.
    pub fn falls_silent(&self) {
        self.state.lock().unwrap().delay = None;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }
}

fn serve(socket: &UdpSocket, state: &Mutex<State>) {
    let mut query = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut query) {
        let Ok(query) = Message::from_vec(&query[..length]) else { continue };
        let Some(question) = query.queries.first().cloned() else { continue };
        let of_ipv4 = question.query_type() == RecordType::A;
        let mut now = state.lock().unwrap();
        now.asked += usize::from(of_ipv4);
        let Some(delay) = now.delay else { continue };
        let mut answer = query.clone();
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.recursion_available = true;
        answer.additionals.clear();
        let is_ours = question.name().to_utf8().trim_end_matches('.') == NameService::NAME;
        if !is_ours || now.addresses.is_empty() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        } else if of_ipv4 {
            for address in &now.addresses {
                answer.answers.push(Record::from_rdata(question.name().clone(), 1, RData::A(A(*address))));
            }
        }
        drop(now);
        let (socket, answer) = (socket.try_clone().unwrap(), answer.to_vec().unwrap());
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            let _ = socket.send_to(&answer, client);
        });
    }
}

/// A port of an address where connections are neither accepted nor refused: the queue of its listener
/// is full, and so the kernel answers no SYN.
pub struct SilentPort {
    _listener: rustix::fd::OwnedFd,
    _queued: Vec<std::net::TcpStream>,
}

impl SilentPort {
    /// Makes this one silent.
    pub fn start(ip: Ipv4Addr, port: u16) -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt::set_socket_reuseaddr};
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        // As the standard library does: connections that are over are remembered for a minute.
        set_socket_reuseaddr(&listener, true).unwrap();
        let address = std::net::SocketAddr::new(IpAddr::V4(ip), port);
        bind(&listener, &address).unwrap();
        listen(&listener, 0).unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            queued.push(stream);
        }
        Self { _listener: listener, _queued: queued }
    }
}
