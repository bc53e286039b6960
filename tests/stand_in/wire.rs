//! What stand-ins say to each other on their transport ports: a line of JSON, and a line back. It is no
//! more CrateDB's protocol than a connection that is closed at once, which is all that a sidekick sees.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::spawn,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    cluster::Node,
    disk::{Cluster, Peer},
};

/// CrateDB's `discovery.probe.connect_timeout`.
const CONNECT: Duration = Duration::from_secs(3);

/// CrateDB's `discovery.probe.handshake_timeout`.
const ANSWER: Duration = Duration::from_secs(1);

/// Longer than any state of a test's cluster.
const LONGEST: u64 = 1 << 20;

/// What one node asks another.
#[derive(Serialize, Deserialize)]
pub enum Ask {
    /// Who are you, and whom do you know?
    Hello { cluster_name: String },
    /// Let me be master in this term. `uuid` is of the cluster that the candidate is in, `version` its last
    /// state's.
    Vote { term: u64, candidate: Peer, uuid: Option<String>, version: u64 },
    /// Take me in. `uuid` is of the cluster that the asker has been in.
    Join { peer: Peer, uuid: Option<String> },
    /// This is the state now. Said all the time, so that followers know that their master lives.
    Publish { term: u64, master: Peer, cluster: Cluster },
    /// Leave for good.
    Decommission,
}

/// What it is told.
#[derive(Serialize, Deserialize)]
pub enum Tell {
    /// Of [`Ask::Hello`].
    Me { peer: Peer, master: Option<Peer>, known: Vec<Peer>, term: u64 },
    /// Of [`Ask::Vote`].
    Granted,
    /// Of [`Ask::Join`]: taken in.
    Joined { term: u64, master: Peer, cluster: Cluster },
    /// Done.
    Done,
    /// Not done, and why.
    Refused { why: String, term: u64 },
}

/// Why there was no answer.
pub enum Silence {
    /// Nobody listens there: the process is gone.
    Gone,
    /// Anything else, which may pass.
    Unclear,
}

/// Asks the node at `address`.
pub fn ask(address: SocketAddr, question: &Ask) -> Result<Tell, Silence> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT).map_err(|error| {
        if error.kind() == std::io::ErrorKind::ConnectionRefused { Silence::Gone } else { Silence::Unclear }
    })?;
    let answer = || -> std::io::Result<Tell> {
        stream.set_read_timeout(Some(ANSWER))?;
        let mut line = serde_json::to_string(question)?;
        line.push('\n');
        stream.write_all(line.as_bytes())?;
        Ok(serde_json::from_str(&read_line(&stream)?)?)
    };
    let mut answer = answer;
    answer().map_err(|_| Silence::Unclear)
}

/// Answers for `node`, each connection on its own thread. Who says nothing that is understood is left.
pub fn serve(listener: &TcpListener, node: &Arc<Node>) {
    for mut stream in listener.incoming().flatten() {
        let node = Arc::clone(node);
        spawn(move || -> std::io::Result<()> {
            stream.set_read_timeout(Some(ANSWER))?;
            let question = serde_json::from_str(&read_line(&stream)?)?;
            let mut line = serde_json::to_string(&node.answer(question))?;
            line.push('\n');
            stream.write_all(line.as_bytes())
        });
    }
}

fn read_line(stream: &TcpStream) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    Ok(line)
}
