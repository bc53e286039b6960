//! DNS SRV over real sockets: asked by `dig`, by hickory's parser, and in CrateDB's own bytes.

#[path = "../support/mod.rs"]
mod support;

mod network;
mod turns;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::pending,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate_discovery::{
    announcement::Announcement,
    feeds::srv::{Server, UnusableAddress, name::ServiceName},
    snapshot::{Node, Snapshot},
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RData,
};
use support::{
    PATIENCE, SLACK,
    dns::{CRATE_DB_TCP, CRATE_DB_UDP},
    eventually, free_port,
};
use tokio::sync::{oneshot, watch};

const SERVICE: &str = "_crate._tcp.crate.local";

/// The feed, on a thread of its own with the runtime that `main` has.
struct Feed {
    address: SocketAddr,
    snapshots: Option<watch::Sender<Option<Arc<Snapshot>>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Feed {
    fn start(snapshot: Option<Snapshot>) -> Self {
        Self::start_beside(Ipv4Addr::LOCALHOST.into(), snapshot, pending())
    }

    /// At this address, with something else on the same thread. The thread is in the caller's namespaces.
    fn start_beside(
        ip: IpAddr,
        snapshot: Option<Snapshot>,
        other: impl Future<Output = Infallible> + Send + 'static,
    ) -> Self {
        let (snapshots, receiver) = watch::channel(snapshot.map(Arc::new));
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            runtime().block_on(async {
                // Somebody else may be quicker than we are.
                let (server, address) = loop {
                    let address = (ip, free_port()).into();
                    if let Ok(server) = bind(address).await {
                        break (server, address);
                    }
                };
                bound.send(address).unwrap();
                tokio::select! {
                    never = server.run(receiver) => match never {},
                    never = other => match never {},
                    _ = stopped => {}
                }
            });
        });
        let address = address.recv_timeout(PATIENCE).expect("the feed is bound");
        Self { address, snapshots: Some(snapshots), stop: Some(stop), thread: Some(thread) }
    }

    fn publish(&self, snapshot: Snapshot) {
        self.snapshots.as_ref().unwrap().send(Some(Arc::new(snapshot))).unwrap();
    }

    fn asker(&self) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// One query over UDP.
    fn ask(&self, query: &[u8]) -> Message {
        let asker = self.asker();
        asker.send(query).unwrap();
        receive(&asker)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What `dig` prints.
    fn dig(&self, args: &[&str]) -> String {
        let port = self.address.port().to_string();
        let output = Command::new("dig")
            .args(["@127.0.0.1", "-p", &port, "+norecurse", "+time=5", "+tries=1"])
            .args(args)
            .output()
            .expect("dig runs: .ci/install dig");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "dig {args:?}: {text}");
        // `dig` also says what it finds wrong with an answer; that about .local is about the question.
        let is_complaint = |line: &&str| {
            line.to_lowercase().starts_with(";; warning") && !line.contains(".local is reserved")
        };
        assert_eq!(text.lines().find(is_complaint), None, "{text}");
        text
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the feed panicked");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn bind(address: SocketAddr) -> Result<Server, UnusableAddress> {
    Server::bind(address, ServiceName::default()).await
}

fn snapshot<H: AsRef<str>>(revision: i64, hosts: impl IntoIterator<Item = H>) -> Snapshot {
    let announcement = Announcement::from_json(br#"{"http":4200,"transport":4300}"#).unwrap();
    let node = |host: H| Node { host: host.as_ref().parse().unwrap(), announcement: announcement.clone() };
    Snapshot::new(revision, hosts.into_iter().map(node).collect())
}

fn many(count: usize) -> Snapshot {
    snapshot(1, (0..count).map(|n| format!("crate-{n:05}.example.com")))
}

fn receive(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer).expect("an answer");
    Message::from_vec(&buffer[..length]).expect("hickory reads it")
}

/// The next answer on a TCP connection, and its length.
fn read_answer(stream: &mut TcpStream) -> (Message, usize) {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).expect("all of the answer");
    (Message::from_vec(&message).expect("hickory reads it"), message.len())
}

fn targets(reply: &Message) -> Vec<String> {
    let target = |data: &RData| match data {
        RData::SRV(srv) => srv.target.to_utf8(),
        other => panic!("no SRV: {other:?}"),
    };
    reply.answers.iter().map(|record| target(&record.data)).collect()
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn dig_gets_every_node_over_udp_and_over_tcp() {
    let feed = Feed::start(Some(snapshot(1, ["crate1", "10.0.0.5", "2001:db8::1"])));
    let expected = "0 0 4300 10.0.0.5.\n0 0 4300 [2001:db8::1].\n0 0 4300 crate1.\n";
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(feed.dig(&["+short", transport, SERVICE, "SRV"]), expected, "{transport}");
        let upper = SERVICE.to_uppercase();
        assert_eq!(feed.dig(&["+short", transport, &upper, "SRV"]), expected, "{transport}");
        assert_eq!(feed.dig(&["+short", transport, "10.0.0.5", "A"]), "10.0.0.5\n");
        assert_eq!(feed.dig(&["+short", transport, "[2001:db8::1]", "AAAA"]), "2001:db8::1\n");
    }
}

#[test]
fn dig_is_told_what_is_not_served() {
    let feed = Feed::start(Some(snapshot(1, ["crate1"])));
    for (name, status) in
        [("example.com", "REFUSED"), ("crate1", "REFUSED"), ("a._crate._tcp.crate.local", "NXDOMAIN")]
    {
        let text = feed.dig(&[name, "SRV"]);
        assert!(text.contains(&format!("status: {status},")) && text.contains("ANSWER: 0,"), "{text}");
    }
}

#[test]
fn dig_is_told_of_an_edns_version_that_is_not_known() {
    let feed = Feed::start(Some(snapshot(1, ["crate1"])));
    for transport in ["+notcp", "+tcp"] {
        let text = feed.dig(&["+edns=1", "+noednsnegotiation", transport, SERVICE, "SRV"]);
        assert!(text.contains("status: BADVERS,") && text.contains("EDNS: version: 0,"), "{text}");
        // That is how it finds the version that is spoken here.
        let text = feed.dig(&["+edns=1", "+ednsnegotiation", transport, SERVICE, "SRV"]);
        assert!(text.contains("status: NOERROR,") && text.contains("ANSWER: 1,"), "{text}");
    }
}

#[test]
fn not_read_yet_is_a_failure_and_nobody_announced_is_an_empty_answer() {
    let feed = Feed::start(None);
    assert!(feed.dig(&[SERVICE, "SRV"]).contains("status: SERVFAIL,"));
    feed.publish(snapshot(1, Vec::<String>::new()));
    let text = feed.dig(&[SERVICE, "SRV"]);
    assert!(text.contains("status: NOERROR,") && text.contains("ANSWER: 0,"), "{text}");
}

#[test]
fn dig_comes_back_over_tcp_for_what_udp_cannot_carry() {
    let feed = Feed::start(Some(many(1000)));
    let cut = feed.dig(&["+ignore", SERVICE, "SRV"]);
    assert!(cut.contains(" tc") && !cut.contains("ANSWER: 0,") && !cut.contains("ANSWER: 1000"), "{cut}");
    let whole: BTreeSet<String> =
        feed.dig(&["+short", SERVICE, "SRV"]).lines().map(ToOwned::to_owned).collect();
    assert_eq!(whole.len(), 1000);
}

#[test]
fn cratedb_gets_all_of_a_thousand_nodes_in_its_own_two_steps() {
    let feed = Feed::start(Some(many(1000)));
    let first = feed.ask(CRATE_DB_UDP);
    assert!(first.metadata.truncation && first.metadata.id == 0x1673);
    assert!(!first.answers.is_empty(), "before 6.2 it takes what is there");
    let mut stream = feed.connect();
    stream.write_all(CRATE_DB_TCP).unwrap();
    let (second, _) = read_answer(&mut stream);
    assert!(!second.metadata.truncation && second.metadata.id == 0x0540 && second.edns.is_none());
    assert_eq!(targets(&second), targets_of(1000));
}

fn targets_of(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("crate-{n:05}.example.com.")).collect()
}

#[test]
fn ten_thousand_nodes_are_answered_while_cratedb_waits_and_each_is_heard_of() {
    let feed = Feed::start(Some(many(10_000)));
    let mut stream = feed.connect();
    let (mut heard, mut quickest, began) = (BTreeSet::new(), Duration::MAX, Instant::now());
    while heard.len() < 10_000 {
        let asked = Instant::now();
        stream.write_all(CRATE_DB_TCP).unwrap();
        let (reply, length) = read_answer(&mut stream);
        quickest = quickest.min(asked.elapsed());
        assert!((65_000..=65_534).contains(&length), "{length}");
        heard.extend(targets(&reply));
        assert!(began.elapsed() < PATIENCE, "only {} of 10000 are heard of", heard.len());
    }
    // Built without optimisation and on a busy machine, so only the quickest counts: see `make bench`.
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
    let (mut heard, asker) = (BTreeSet::new(), feed.asker());
    for _ in 0..20 {
        asker.send(CRATE_DB_UDP).unwrap();
        heard.extend(targets(&receive(&asker)));
    }
    assert!(heard.len() > 100, "every UDP answer names the same few: {}", heard.len());
}

#[test]
fn the_newest_snapshot_is_answered_and_the_last_one_stays() {
    let mut feed = Feed::start(Some(snapshot(1, ["a"])));
    for revision in 2..50 {
        let host = format!("a{revision}");
        feed.publish(snapshot(revision, [&host]));
        assert_eq!(targets(&feed.ask(CRATE_DB_UDP)), [format!("{host}.")]);
    }
    drop(feed.snapshots.take());
    assert_eq!(targets(&feed.ask(CRATE_DB_UDP)), ["a49."]);
}

#[test]
fn queries_in_one_piece_or_byte_by_byte_are_answered_in_their_order() {
    let feed = Feed::start(Some(snapshot(1, ["a"])));
    let mut stream = feed.connect();
    let mut pipelined = Vec::new();
    for id in 0..100u8 {
        let mut query = CRATE_DB_TCP.to_vec();
        query[3] = id;
        pipelined.extend(query);
    }
    stream.write_all(&pipelined).unwrap();
    for id in 0..100 {
        assert_eq!(read_answer(&mut stream).0.metadata.id, 0x0500 + id);
    }
    stream.set_nodelay(true).unwrap();
    for byte in CRATE_DB_TCP {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(targets(&read_answer(&mut stream).0), ["a."]);
}

#[test]
fn idle_connections_keep_nobody_out_and_are_closed() {
    let feed = Feed::start(Some(snapshot(1, ["a"])));
    let began = Instant::now();
    let mut idle: Vec<TcpStream> = (0..100).map(|_| feed.connect()).collect();
    let mut stream = feed.connect();
    stream.write_all(CRATE_DB_TCP).unwrap();
    assert_eq!(targets(&read_answer(&mut stream).0), ["a."]);
    assert!(is_closed(&mut idle[0]) && began.elapsed() < Duration::from_secs(4), "the oldest stays");
    let began = Instant::now();
    // Half a query is as idle as none.
    idle[99].write_all(&CRATE_DB_TCP[..10]).unwrap();
    assert!(is_closed(&mut idle[99]) && is_closed(&mut stream), "an idle connection stays");
    assert!(began.elapsed() < Duration::from_secs(5) + SLACK, "{:?}", began.elapsed());
}

#[test]
fn a_reader_that_does_not_read_is_left_alone() {
    let feed = Feed::start(Some(many(10_000)));
    let mut deaf = feed.connect();
    // More answers than the kernel's buffers hold; ours must not wait for room, nor keep them.
    let queries = CRATE_DB_TCP.repeat(1000);
    deaf.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let _ = deaf.write_all(&queries);
    let reply = feed.ask(CRATE_DB_UDP);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
}

#[test]
fn what_is_no_query_gets_no_answer_and_harms_nobody() {
    let feed = Feed::start(Some(snapshot(1, ["a"])));
    let asker = feed.asker();
    let mut response = CRATE_DB_UDP.to_vec();
    response[2] |= 0x80;
    let long = [CRATE_DB_UDP, &[0; 60_000]].concat();
    for junk in [b"".as_slice(), b"x", &CRATE_DB_UDP[..30], &response, &[0xff; 12], &[0xc0; 600]] {
        asker.send(junk).unwrap();
    }
    // Trailing bytes are no part of the message.
    asker.send(&long).unwrap();
    let mut last = CRATE_DB_UDP.to_vec();
    last[1] = 0x74;
    asker.send(&last).unwrap();
    assert_eq!(receive(&asker).metadata.id, 0x1673, "the long one");
    assert_eq!(receive(&asker).metadata.id, 0x1674, "an answer to what is no query");

    for junk in [b"\0\0".as_slice(), b"\xff\xff", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = feed.connect();
        stream.write_all(junk).unwrap();
        assert!(is_closed(&mut stream), "{junk:?}");
    }
    assert_eq!(targets(&feed.ask(CRATE_DB_UDP)), ["a."]);
}

#[test]
fn askers_that_are_gone_do_not_end_it() {
    let feed = Feed::start(Some(snapshot(1, ["a"])));
    for _ in 0..200 {
        // Our answer comes back as ICMP "port unreachable".
        feed.asker().send(CRATE_DB_UDP).unwrap();
        let mut stream = feed.connect();
        stream.write_all(CRATE_DB_TCP).unwrap();
    }
    eventually("it still answers", PATIENCE, || {
        let asker = feed.asker();
        asker.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        asker.send(CRATE_DB_UDP).unwrap();
        asker.recv(&mut [0; 1232]).map_err(|error| error.to_string())
    });
    let mut stream = feed.connect();
    stream.write_all(CRATE_DB_TCP).unwrap();
    assert_eq!(targets(&read_answer(&mut stream).0), ["a."]);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let refused = |address: SocketAddr| runtime().block_on(bind(address)).unwrap_err();
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
    let taken = TcpListener::bind(address).unwrap();
    let error = refused(address);
    assert_eq!(
        error.to_string(),
        format!("failed to listen on \"--srv\" address {address} over TCP: address already in use")
    );
    drop(taken);
    let taken = UdpSocket::bind(address).unwrap();
    assert!(refused(address).to_string().contains(&format!("{address} over UDP: ")));
    drop(taken);
    // Of another machine.
    let error = refused("192.0.2.1:5399".parse().unwrap());
    assert!(error.to_string().ends_with("cannot assign requested address"), "{error}");
    runtime().block_on(bind(address)).expect("a restart binds at once");
}
