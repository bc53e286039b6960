//! A node to be probed: a port that can serve, hang and die.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::{JoinHandle, sleep},
    time::Duration,
};

use crate::support::{PATIENCE, eventually_eq, free_port};

/// What a [`FakeNode`] does with a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    /// Refuses it, as a dead process does.
    Closed,
    /// Answers 503, as CrateDB does until a master is elected.
    Serving,
    /// Accepts it and says nothing, as a frozen process does.
    Silent,
}

/// The port of a node that can die, hang and return.
pub struct FakeNode {
    port: u16,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    manner: Manner,
    /// How many of the next connections are met with silence although the node serves.
    hiccups: usize,
    /// Connections answered.
    answered: usize,
    /// Connections met with silence.
    ignored: usize,
    ended: bool,
}

impl FakeNode {
    fn start(manner: Manner) -> Self {
        let state = Arc::new(Mutex::new(State { manner, hiccups: 0, answered: 0, ignored: 0, ended: false }));
        let (port, shared) = (free_port(), Arc::clone(&state));
        let thread = std::thread::spawn(move || serve(port, &shared));
        let node = Self { port, state, thread: Some(thread) };
        node.behave(manner);
        node
    }

    /// A node that is not there yet.
    pub fn closed() -> Self {
        Self::start(Manner::Closed)
    }

    /// A node that is there.
    pub fn serving() -> Self {
        Self::start(Manner::Serving)
    }

    /// Changes its manner, and waits until that shows.
    pub fn behave(&self, manner: Manner) {
        self.state.lock().unwrap().manner = manner;
        eventually_eq("the port is as told", PATIENCE, &(manner != Manner::Closed), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
    }

    /// Meets the next `connections` with silence, and serves on.
    pub fn hiccup(&self, connections: usize) {
        self.state.lock().unwrap().hiccups = connections;
    }

    /// How many connections it met with silence.
    pub fn ignored(&self) -> usize {
        self.state.lock().unwrap().ignored
    }

    /// How many connections it answered.
    pub fn answered(&self) -> usize {
        self.state.lock().unwrap().answered
    }

    /// Its port, to be connected to.
    pub fn tcp(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// Its address, to be asked.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.state.lock().unwrap().ended = true;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The node's one thread: takes connections as it is told to, until it is told to end.
fn serve(port: u16, state: &Mutex<State>) {
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
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
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
        } else {
            drop(now);
            answer(stream, state);
        }
    }
}

/// Answers whoever asks. A `tcp://` probe asks nothing.
fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    if stream.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {
        // Counted before the prober can know.
        state.lock().unwrap().answered += 1;
        let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    }
}
