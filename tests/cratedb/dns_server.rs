//! A name server that a test makes slow, short or absent.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, Mutex},
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SRV},
    },
};

/// What it answers.
#[derive(Clone, Default)]
pub struct Zone {
    /// Target and port of each SRV record.
    pub targets: Vec<(String, u16)>,
    /// How many of those fit into an answer over UDP; all of them, if that is not said.
    pub fit: Option<usize>,
    /// How long an SRV answer takes.
    pub delay: Duration,
    /// Names, their address, and how long that takes.
    pub names: Vec<(String, IpAddr, Duration)>,
}

/// One question, and when it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub over_tcp: bool,
    pub kind: RecordType,
    pub name: String,
}

/// The server; it ends with the test process.
#[derive(Clone)]
pub struct DnsServer {
    zone: Arc<Mutex<Zone>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl DnsServer {
    /// Answers at `address`, over UDP and TCP.
    pub fn start(address: SocketAddr, zone: Zone) -> Self {
        let server = Self { zone: Arc::new(Mutex::new(zone)), asked: Arc::default() };
        let udp = Arc::new(UdpSocket::bind(address).unwrap());
        let tcp = TcpListener::bind(address).unwrap();
        let of_udp = server.clone();
        spawn(move || {
            let mut question = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut question) {
                let (server, udp, question) = (of_udp.clone(), Arc::clone(&udp), question[..length].to_vec());
                spawn(move || {
                    if let Some(answer) = server.answer(&question, false) {
                        let _ = udp.send_to(&answer, from);
                    }
                });
            }
        });
        let of_tcp = server.clone();
        spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let server = of_tcp.clone();
                spawn(move || -> std::io::Result<()> {
                    let mut length = [0; 2];
                    stream.read_exact(&mut length)?;
                    let mut question = vec![0; u16::from_be_bytes(length).into()];
                    stream.read_exact(&mut question)?;
                    if let Some(answer) = server.answer(&question, true) {
                        stream.write_all(&(answer.len() as u16).to_be_bytes())?;
                        stream.write_all(&answer)?;
                    }
                    Ok(())
                });
            }
        });
        server
    }

    /// Answers otherwise from now on.
    pub fn change(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.lock().unwrap());
    }

    /// The questions of that kind so far.
    pub fn asked(&self, kind: RecordType) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.kind == kind).cloned().collect()
    }

    fn answer(&self, question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let name = query.name().to_utf8().trim_end_matches('.').to_owned();
        let kind = query.query_type();
        self.asked.lock().unwrap().push(Asked { at: Instant::now(), over_tcp, kind, name: name.clone() });
        let zone = self.zone.lock().unwrap().clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        let mut add = |data: RData| {
            answer.add_answer(Record::from_rdata(query.name().clone(), 0, data));
        };
        let mut known = true;
        match kind {
            RecordType::SRV => {
                sleep(zone.delay);
                let fit = if over_tcp { usize::MAX } else { zone.fit.unwrap_or(usize::MAX) };
                for (target, port) in zone.targets.iter().take(fit) {
                    add(RData::SRV(SRV::new(0, 0, *port, Name::from_utf8(target).unwrap())));
                }
                answer.metadata.truncation = fit < zone.targets.len();
                known = !zone.targets.is_empty();
            }
            _ => match zone.names.iter().find(|(other, ..)| *other == name) {
                Some((_, address, delay)) => {
                    sleep(*delay);
                    if let (RecordType::A, IpAddr::V4(address)) = (kind, address) {
                        add(RData::A(A(*address)));
                    }
                }
                None => known = false,
            },
        }
        if !known {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer.to_vec().ok()
    }
}
