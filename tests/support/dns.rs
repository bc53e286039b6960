//! Asks for SRV as CrateDB does: over UDP, and again over TCP where not all fitted.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RData,
};

/// What CrateDB sends, byte for byte: recorded from Netty 4.2.17, which CrateDB 6.5-dev has, with the
/// resolver that `SrvUnicastHostsProvider.buildResolver` builds. Over UDP with EDNS(0) and 4096 bytes,
/// over TCP without.
pub const CRATE_DB_UDP: &[u8] = b"\x16\x73\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\
    \x06_crate\x04_tcp\x05crate\x05local\x00\x00\x21\x00\x01\
    \x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00";
/// The same over TCP, its length first.
pub const CRATE_DB_TCP: &[u8] = b"\x00\x29\x05\x40\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
    \x06_crate\x04_tcp\x05crate\x05local\x00\x00\x21\x00\x01";

/// Longer than CrateDB waits (100 ms), for machines that are busy.
const LONGEST: Duration = Duration::from_secs(2);

/// The seeds that `server` gives, in its order; or why there are none. Waits longer than CrateDB does.
pub fn seeds(server: SocketAddr) -> Result<Vec<String>, String> {
    ask(server, LONGEST, true)
}

/// As [`seeds`], with CrateDB's own `patience`; where not all fits into UDP, over TCP, or, if it may not,
/// with what did fit.
pub fn ask(server: SocketAddr, patience: Duration, may_use_tcp: bool) -> Result<Vec<String>, String> {
    let ask = || -> std::io::Result<Message> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(CRATE_DB_UDP)?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer)?;
        let answer = Message::from_vec(&answer[..length]).map_err(std::io::Error::other)?;
        if !answer.metadata.truncation || !may_use_tcp {
            return Ok(answer);
        }
        let mut stream = TcpStream::connect_timeout(&server, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(CRATE_DB_TCP)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        Message::from_vec(&answer).map_err(std::io::Error::other)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    if answer.metadata.response_code != ResponseCode::NoError {
        return Err(answer.metadata.response_code.to_string());
    }
    let seed = |data: &RData| match data {
        RData::SRV(srv) => Ok(format!("{}:{}", srv.target.to_utf8().trim_end_matches('.'), srv.port)),
        other => Err(format!("no SRV: {other:?}")),
    };
    answer.answers.iter().map(|record| seed(&record.data)).collect()
}
