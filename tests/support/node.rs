//! A node to be probed: a port that can serve, hang and die, with what a real CrateDB says.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, OnceLock},
    thread::{JoinHandle, sleep},
    time::Duration,
};

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};

use super::{PATIENCE, eventually, eventually_eq, free_port};

/// How long the answering thread waits for more of a request, and for the end of a connection.
const LONGEST: Duration = Duration::from_secs(5);

/// What a [`FakeNode`] does with a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Manner {
    /// Refuses it, as a dead process does.
    Closed,
    /// Accepts it and says nothing, as a frozen process does.
    Silent,
    /// Reads the request and ends it without an answer.
    HangsUp,
    /// Answers with these bytes, and ends it.
    Answers(Vec<u8>),
    /// Answers with these bytes, and waits for the other side to end it.
    AnswersAndStays(Vec<u8>),
    /// As [`Manner::Answers`], over TLS.
    AnswersOverTls(Vec<u8>),
    /// Each connection in the next of these manners, over and over.
    InTurn(Vec<Manner>),
}

/// What CrateDB 6.4.3 answers, byte for byte but for the hash of its build: 200 where it knows a
/// master, else 503.
pub fn cratedb(status: u16, cluster: &str) -> Vec<u8> {
    let (ok, phrase) = if status == 200 { (true, "OK") } else { (false, "Service Unavailable") };
    let body = format!(
        "{{\n  \"ok\" : {ok},\n  \"status\" : {status},\n  \"name\" : \"crate1\",\n  \"cluster_name\" : \"{cluster}\",\n  \
         \"version\" : {{\n    \"number\" : \"6.4.3\",\n    \"build_hash\" : \"d3b321c9b0d5a5ce0ab3ee6f2c5d1e0f1c7cf9a3\",\n    \
         \"build_timestamp\" : \"NA\",\n    \"build_snapshot\" : false,\n    \"lucene_version\" : \"10.4.0\"\n  }}\n}}\n"
    );
    let length = body.len();
    format!("HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into()
}

/// What CrateDB answers whoever has no or a wrong password.
pub fn locked() -> Vec<u8> {
    let body = "No valid auth.host_based.config entry found for host \"127.0.0.1\", user \"crate\", protocol \"http\"\n";
    let length = body.len();
    format!(
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: {length}\r\n\
         www-authenticate: Basic realm=\"CrateDB Authenticator\"\r\n\r\n{body}"
    )
    .into()
}

/// What another program answers.
pub fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

/// The port of a node that can die, hang and return.
pub struct FakeNode {
    ip: Ipv4Addr,
    port: u16,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    manner: Manner,
    /// How many of the next connections are met with silence although the node serves.
    hiccups: usize,
    /// Whoever asks with `user:password`, in base64, is answered with these bytes instead.
    unlocked: Option<(String, Vec<u8>)>,
    /// What was asked, each whole.
    asked: Vec<String>,
    /// Connections met with silence.
    ignored: usize,
    /// Connections that were reset before the node ended them.
    resets: usize,
    /// Connections that came to an orderly end.
    ends: usize,
    ended: bool,
}

impl FakeNode {
    /// A node that does this.
    pub fn start(manner: Manner) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, manner)
    }

    /// As [`FakeNode::start`], on another loopback address.
    pub fn start_at(ip: Ipv4Addr, manner: Manner) -> Self {
        let state = State {
            manner: manner.clone(),
            hiccups: 0,
            unlocked: None,
            asked: Vec::new(),
            ignored: 0,
            resets: 0,
            ends: 0,
            ended: false,
        };
        let state = Arc::new(Mutex::new(state));
        let (port, shared) = (free_port(), Arc::clone(&state));
        let thread = std::thread::spawn(move || serve(ip, port, &shared));
        let node = Self { ip, port, state, thread: Some(thread) };
        node.behave(manner);
        node
    }

    /// A node that is not there yet.
    pub fn closed() -> Self {
        Self::start(Manner::Closed)
    }

    /// A node that is there, and knows no master yet.
    pub fn serving() -> Self {
        Self::start(Manner::Answers(cratedb(503, "crate")))
    }

    /// Changes its manner, and waits until that shows.
    pub fn behave(&self, manner: Manner) {
        let open = manner != Manner::Closed;
        self.state.lock().unwrap().manner = manner;
        eventually_eq("the port is as told", PATIENCE, &open, || {
            TcpStream::connect((self.ip, self.port)).is_ok()
        });
    }

    /// Serves again, as a node that knows no master yet.
    pub fn serve(&self) {
        self.behave(Manner::Answers(cratedb(503, "crate")));
    }

    /// Meets the next `connections` with silence, and serves on.
    pub fn hiccup(&self, connections: usize) {
        self.state.lock().unwrap().hiccups = connections;
    }

    /// Answers whoever asks with `pair`, which is the base64 of `user:password`, with `answer`.
    pub fn unlock(&self, pair: &str, answer: Vec<u8>) {
        self.state.lock().unwrap().unlocked = Some((pair.to_owned(), answer));
    }

    /// How many connections it met with silence.
    pub fn ignored(&self) -> usize {
        self.state.lock().unwrap().ignored
    }

    /// How many requests it has had.
    pub fn answered(&self) -> usize {
        self.state.lock().unwrap().asked.len()
    }

    /// The last request.
    pub fn asked_last(&self) -> String {
        self.state.lock().unwrap().asked.last().cloned().unwrap_or_default()
    }

    /// Waits until it has had that many more requests.
    #[track_caller]
    pub fn is_asked(&self, times: usize) {
        let before = self.answered();
        eventually("the node is asked", PATIENCE, || match self.answered() - before {
            more if more >= times => Ok(()),
            more => Err(format!("{more} times")),
        });
    }

    /// How many of its connections came to an orderly end, and how many were reset.
    pub fn ends(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.ends, state.resets)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its port, to be connected to.
    pub fn tcp(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// Its address, to be asked.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Its address, to be asked as a CrateDB.
    pub fn cratedb(&self) -> String {
        format!("crate://127.0.0.1:{}", self.port)
    }

    /// Its address, to be asked as a CrateDB over TLS.
    pub fn cratedb_over_tls(&self) -> String {
        format!("crate+https://127.0.0.1:{}", self.port)
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.state.lock().unwrap().ended = true;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The node's own thread: takes connections as it is told to, until it is told to end. Those that it
/// answers have a thread each, which ends soon after.
fn serve(ip: Ipv4Addr, port: u16, state: &Arc<Mutex<State>>) {
    let mut listener = None;
    let mut held = Vec::new();
    while !state.lock().unwrap().ended {
        sleep(Duration::from_millis(2));
        if state.lock().unwrap().manner == Manner::Closed {
            listener = None;
            held.clear();
            continue;
        }
        let listener = listener.get_or_insert_with(|| {
            let listener = TcpListener::bind((ip, port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        let mut now = state.lock().unwrap();
        if now.manner == Manner::Silent || now.hiccups > 0 {
            now.hiccups = now.hiccups.saturating_sub(1);
            now.ignored += 1;
            held.push(stream);
            continue;
        }
        let mut manner = now.manner.clone();
        if let Manner::InTurn(manners) = &mut now.manner {
            manners.rotate_left(1);
            manner = manners[0].clone();
        }
        let state = Arc::clone(state);
        std::thread::spawn(move || {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(LONGEST)).unwrap();
            let _ = answer_as(stream, manner, &state);
        });
    }
}

/// Answers whoever asks. A `tcp://` probe asks nothing.
fn answer_as(mut stream: TcpStream, manner: Manner, state: &Mutex<State>) -> io::Result<()> {
    match manner {
        Manner::AnswersOverTls(answer) => {
            let connection = ServerConnection::new(tls()).map_err(io::Error::other)?;
            let mut stream = StreamOwned::new(connection, stream);
            converse(&mut stream, Some(&answer), state)?;
            stream.conn.send_close_notify();
            stream.conn.write_tls(&mut stream.sock)?;
            stream.sock.shutdown(Shutdown::Write)?;
            end(&mut stream.sock, state)
        }
        Manner::Answers(answer) => {
            converse(&mut stream, Some(&answer), state)?;
            stream.shutdown(Shutdown::Write)?;
            end(&mut stream, state)
        }
        Manner::AnswersAndStays(answer) => {
            converse(&mut stream, Some(&answer), state)?;
            end(&mut stream, state)
        }
        _ => converse(&mut stream, None, state),
    }
}

fn converse(stream: &mut (impl Read + Write), answer: Option<&[u8]>, state: &Mutex<State>) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if request.is_empty() && byte == [0x16] => {
                // Who begins with TLS begins with a line that is none of HTTP.
                let _ = stream.read(&mut [0; 4096])?;
                return stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            }
            _ => request.push(byte[0]),
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let mut now = state.lock().unwrap();
    let unlocked = now
        .unlocked
        .as_ref()
        .filter(|(pair, _)| request.lines().any(|line| line == format!("Authorization: Basic {pair}")));
    let unlocked = unlocked.map(|(_, answer)| answer.clone());
    // Counted before the prober can know.
    now.asked.push(request);
    drop(now);
    if let Some(answer) = answer {
        let answer = unlocked.as_deref().unwrap_or(answer);
        // In two parts: whoever leaves after the first one resets the connection.
        let (first, second) = answer.split_at(answer.len() / 2);
        stream.write_all(first)?;
        stream.flush()?;
        sleep(Duration::from_millis(20));
        let written = stream.write_all(second).and_then(|()| stream.flush());
        if let Err(error) = written {
            state.lock().unwrap().resets += 1;
            return Err(error);
        }
    }
    Ok(())
}

/// Waits for the other side to end the connection, and looks how it does.
fn end(stream: &mut TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let ended = loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    let mut now = state.lock().unwrap();
    match &ended {
        Ok(()) => now.ends += 1,
        Err(_) => now.resets += 1,
    }
    ended
}

/// A certificate that nobody has a reason to trust.
fn tls() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let make = || {
        let made = rcgen::generate_simple_self_signed(vec!["crate1".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Arc::new(config)
    };
    Arc::clone(CONFIG.get_or_init(make))
}
