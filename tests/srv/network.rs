//! Askers on other addresses than loopback, and a server with several: in a network namespace of the test's own, which
//! takes root.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    time::Duration,
};

use hickory_proto::op::Message;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    Feed, read_answer, receive, snapshot,
    support::{
        PATIENCE,
        dns::{CRATE_DB_TCP, CRATE_DB_UDP},
        eventually,
    },
    targets,
};

/// Addresses of this machine that are not loopback's.
const ADDRESSES: [&str; 4] = ["10.99.0.1", "10.99.0.2", "fd00::1", "fd00::2"];

/// A network that the calling thread, and every thread that it starts, is in from now on. It has [`ADDRESSES`].
struct Network(Child);

impl Network {
    fn enter() -> Self {
        let mut script = "ip link set lo up".to_owned();
        for address in ADDRESSES {
            let (length, nodad) = if address.contains(':') { (128, " nodad") } else { (32, "") };
            script += &format!(" && ip addr add {address}/{length} dev lo{nodad}");
        }
        script += " && echo up && exec cat";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "a network of one's own needs `unshare --net` and `ip`: run as root");
        let network = File::open(format!("/proc/{}/ns/net", child.id())).unwrap();
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        Self(child)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The end of its input is the end of it.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Asks `to` from `from`, as CrateDB does: its socket is connected and takes no other's answer.
fn asker(from: &str, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from.parse::<IpAddr>().unwrap(), 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn at(ip: &str, feed: &Feed) -> SocketAddr {
    (ip.parse::<IpAddr>().unwrap(), feed.address.port()).into()
}

fn answers_from(server: IpAddr, pairs: &[(&str, &str)]) {
    let _network = Network::enter();
    let feed = Feed::start_beside(server, Some(snapshot(1, ["a"])), std::future::pending());
    for (from, to) in pairs {
        let asker = asker(from, at(to, &feed));
        asker.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut buffer = [0; 1232];
        // Asked again, as CrateDB does: the kernel takes a moment until an address that it was given is in use.
        let length = eventually(&format!("{to} answers {from}"), PATIENCE, || {
            asker.send(CRATE_DB_UDP).map_err(|error| error.to_string())?;
            asker.recv(&mut buffer).map_err(|error| error.to_string())
        });
        assert_eq!(targets(&Message::from_vec(&buffer[..length]).unwrap()), ["a."], "{to}");
        let mut stream = TcpStream::connect(at(to, &feed)).unwrap();
        stream.write_all(CRATE_DB_TCP).unwrap();
        assert_eq!(targets(&read_answer(&mut stream).0), ["a."], "{to}");
    }
}

/// The route to the asker has the asker's own address here, so that is what a plain socket would answer from.
const IPV4: [(&str, &str); 4] = [
    ("10.99.0.1", "10.99.0.2"),
    ("10.99.0.2", "10.99.0.1"),
    ("127.0.0.1", "127.0.0.5"),
    ("10.99.0.1", "10.99.0.1"),
];

#[test]
fn wildcard_answers_from_the_address_that_was_asked() {
    answers_from(Ipv4Addr::UNSPECIFIED.into(), &IPV4);
}

#[test]
fn ipv6_wildcard_answers_from_the_address_that_was_asked_over_both() {
    let ipv6 = [("fd00::1", "fd00::2"), ("fd00::2", "fd00::1"), ("::1", "::1"), ("fd00::2", "::1")];
    answers_from(Ipv6Addr::UNSPECIFIED.into(), &[ipv6.as_slice(), &IPV4].concat());
}

/// Asks so often, one query after the other, and gives how many answers had records. The others are empty and
/// truncated.
fn ask(asker: &UdpSocket, times: usize) -> usize {
    let is_whole = |_: &usize| {
        asker.send(CRATE_DB_UDP).unwrap();
        let reply = receive(asker);
        assert_eq!(reply.metadata.id, 0x1673);
        assert_eq!(reply.metadata.truncation, reply.answers.is_empty(), "{reply:?}");
        !reply.answers.is_empty()
    };
    (0..times).filter(is_whole).count()
}

#[test]
fn whoever_asks_too_often_over_udp_is_sent_to_tcp_and_nobody_else_is() {
    let _network = Network::enter();
    let feed =
        Feed::start_beside(Ipv4Addr::UNSPECIFIED.into(), Some(snapshot(1, ["a"])), std::future::pending());
    let (often, seldom) =
        (asker("10.99.0.1", at("10.99.0.2", &feed)), asker("10.99.0.2", at("10.99.0.1", &feed)));
    let began = std::time::Instant::now();
    let whole = ask(&often, 3000);
    // Two hundred at once, and a hundred a second.
    let most = 201 + began.elapsed().as_millis() as usize / 10;
    assert!((200..=most).contains(&whole) && whole < 3000, "{whole} of 3000, {most} at most");
    // By chance both share a limit, one time in 1024: not for so long that it would matter.
    eventually("another asker is answered", PATIENCE, || match ask(&seldom, 1) {
        1 => Ok(()),
        _ => Err("empty".to_owned()),
    });
    let mut stream = TcpStream::connect(at("10.99.0.2", &feed)).unwrap();
    for _ in 0..500 {
        stream.write_all(CRATE_DB_TCP).unwrap();
        assert_eq!(targets(&read_answer(&mut stream).0), ["a."]);
    }
    // Once a second, as CrateDB asks, is always answered.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(ask(&often, 1), 1);
    }
    assert_eq!(ask(&asker("127.0.0.1", at("127.0.0.1", &feed)), 3000), 3000, "loopback is limited");
}
