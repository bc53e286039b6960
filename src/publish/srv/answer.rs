//! A query in, an answer out, and nothing else: no socket, no clock, no chance.

use std::{collections::BTreeSet, net::IpAddr};

use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE, header_buffer,
    rdata::{A, AAAA, OPT, RData, SRV},
};

use super::name::{ServiceName, Target, literal};
use crate::snapshot::{Node, Snapshot};

/// Seconds that an answer may be kept: none, because the next snapshot may be different.
const TTL: u32 = 0;
/// Bytes of a UDP answer to a query without EDNS(0), and the least that EDNS(0) can offer (RFC 6891,
/// section 6.2.3).
const SMALLEST_UDP: u16 = 512;
/// Bytes of any UDP answer: what crosses every network unfragmented (DNS Flag Day 2020), and all that
/// a query with a forged sender can get out of us.
const LARGEST_UDP: u16 = 1232;
/// Bytes of a TCP answer. A length of two bytes would allow one more, but then Netty's decoder, and so
/// CrateDB, refuses the frame (`TcpDnsResponseDecoder`: 64 KiB with the length).
const LARGEST_TCP: usize = 65_534;

/// Bytes of a message's header (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
/// Bytes of the OPT record without options (RFC 6891, section 6.1.2).
const OPT_RECORD: usize = 11;
/// Bytes of a record's type, class, TTL and length (RFC 1035, section 4.1.3).
const RECORD: usize = 10;
/// Bytes of a name that repeats an earlier one (RFC 1035, section 4.1.4).
const POINTER: usize = 2;

/// What carries the query, and so how long the answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// 512 bytes, or what the query offers, up to 1232.
    Udp,
    /// 65,534 bytes.
    Tcp,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The message to send.
    pub message: Vec<u8>,
    /// How many nodes did not fit into it.
    pub left_out: usize,
}

/// The answer to `query`, from `snapshot`, to a question about `service`; `None` for what must not be
/// answered: answers, other kinds of messages, and what cannot be read.
///
/// | question | answer |
/// | --- | --- |
/// | SRV of the service | a record for each node, sorted by host; none where nobody is announced |
/// | another type of the service | no records |
/// | A or AAAA of a target that is an address | that address |
/// | below the service | NXDOMAIN |
/// | anything else | REFUSED |
///
/// Without a snapshot it is SERVFAIL: "nobody" would be a lie. CrateDB logs no answer, no records,
/// NXDOMAIN and SERVFAIL alike, as "DNS lookup exception", and asks again a second later (Netty's
/// `DnsResolveContext.finishResolve` makes an `UnknownHostException` of each).
///
/// Where not all nodes fit, the answer has those from the node number `start` on, and around the end:
/// with a `start` by chance every node is heard of sooner or later, and none is asked by all. Over UDP
/// it is then marked as truncated. CrateDB 6.2 asks again over TCP; an older one takes what is there.
pub fn answer(
    query: &[u8],
    service: &ServiceName,
    snapshot: Option<&Snapshot>,
    transport: Transport,
    start: usize,
) -> Option<Answer> {
    let mut query = read(query)?;
    let limit = match (transport, query.opt()) {
        (Transport::Tcp, _) => LARGEST_TCP,
        (Transport::Udp, None) => SMALLEST_UDP.into(),
        (Transport::Udp, Some(opt)) => opt.udp_packet_size.clamp(SMALLEST_UDP, LARGEST_UDP).into(),
    };
    let question = query.questions.pop()?;
    let mut reply = Packet::new_reply(query.id());
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if query.opt().is_some() {
        // There is no version but 0, and simple-dns 0.13 reads it from the bits of DO.
        *reply.opt_mut() = Some(OPT { opt_codes: vec![], udp_packet_size: LARGEST_UDP, version: 0 });
    }

    let is_internet = question.qclass == QCLASS::CLASS(CLASS::IN) && !question.unicast_response;
    let asks = |wanted: TYPE| question.qtype == QTYPE::TYPE(wanted);
    let mut left_out = 0;
    let code = match (Subject::of(&question.qname, service), snapshot) {
        _ if !is_internet => RCODE::Refused,
        (Subject::Below, _) => RCODE::NameError,
        (Subject::Other, _) => RCODE::Refused,
        (Subject::Service | Subject::Literal(_), None) => RCODE::ServerFailure,
        (Subject::Service, Some(snapshot)) => {
            if asks(TYPE::SRV) || question.qtype == QTYPE::ANY {
                let taken = HEADER + encoded_len(&question.qname) + 4 + OPT_RECORD;
                left_out = add_nodes(&mut reply, &question.qname, snapshot.nodes(), limit - taken, start);
                if left_out > 0 && transport == Transport::Udp {
                    reply.set_flags(PacketFlag::TRUNCATION);
                }
            }
            RCODE::NoError
        }
        (Subject::Literal(ip), Some(snapshot)) => {
            let is_announced =
                snapshot.nodes().iter().filter_map(Target::of).any(|target| target.ip == Some(ip));
            if is_announced && asks(if ip.is_ipv4() { TYPE::A } else { TYPE::AAAA }) {
                reply.answers.push(address(question.qname.clone(), ip));
            }
            if is_announced { RCODE::NoError } else { RCODE::Refused }
        }
    };
    if matches!(code, RCODE::NoError | RCODE::NameError) {
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    }
    *reply.rcode_mut() = code;
    reply.questions.push(question);
    Some(Answer { message: reply.build_bytes_vec_compressed().ok()?, left_out })
}

/// The nodes that no answer can name, because their host is no DNS name.
pub fn unfit(snapshot: &Snapshot) -> impl Iterator<Item = &Node> {
    snapshot.nodes().iter().filter(|node| Target::of(node).is_none())
}

/// A query of one question and at most one more record, EDNS(0)'s.
fn read(message: &[u8]) -> Option<Packet<'_>> {
    // From the header alone: a message of 12 bytes may claim 65,535 records, for which the parser
    // would make room.
    let is_plain = !header_buffer::has_flags(message, PacketFlag::RESPONSE).ok()?
        && header_buffer::questions(message).ok()? == 1
        && header_buffer::answers(message).ok()? == 0
        && header_buffer::name_servers(message).ok()? == 0
        && header_buffer::additional_records(message).ok()? <= 1;
    if !is_plain {
        return None;
    }
    Packet::parse(message).ok().filter(|query| query.opcode() == OPCODE::StandardQuery)
}

/// What a question is about.
enum Subject {
    Service,
    /// A name under the service's.
    Below,
    /// The target name of this address.
    Literal(IpAddr),
    Other,
}

impl Subject {
    fn of(name: &Name<'_>, service: &ServiceName) -> Self {
        let service = service.name();
        if *name == service {
            Self::Service
        } else if name.is_subdomain_of(&service) {
            Self::Below
        } else {
            literal(name).map_or(Self::Other, Self::Literal)
        }
    }
}

/// Adds a record for each of `nodes`, and then the addresses of those that announced one, as far as
/// there is `room`, in bytes. Gives how many nodes were left out.
fn add_nodes<'a>(
    reply: &mut Packet<'a>,
    service: &Name<'a>,
    nodes: &'a [Node],
    mut room: usize,
    start: usize,
) -> usize {
    // The target of an SRV record is never compressed (RFC 2782).
    let size = |target: &Target| POINTER + RECORD + 6 + target.encoded_len();
    let targets = || nodes.iter().filter_map(Target::of);
    let (count, all) = targets().fold((0, 0), |(count, bytes), target| (count + 1, bytes + size(&target)));
    let first = if all <= room { 0 } else { start % nodes.len() };
    let (before, after) = nodes.split_at(first);
    for target in after.iter().chain(before).filter_map(Target::of) {
        let Some(rest) = room.checked_sub(size(&target)) else { break };
        room = rest;
        let data = SRV { priority: 0, weight: 0, port: target.port, target: target.name() };
        reply.answers.push(ResourceRecord::new(service.clone(), CLASS::IN, TTL, RData::SRV(data)));
    }
    let left_out = count - reply.answers.len();
    if left_out == 0 {
        let mut added = BTreeSet::new();
        for target in targets() {
            let Some(ip) = target.ip.filter(|ip| !added.contains(ip)) else { continue };
            let bytes = if ip.is_ipv4() { 4 } else { 16 };
            let Some(rest) = room.checked_sub(target.encoded_len() + RECORD + bytes) else { break };
            room = rest;
            reply.additional_records.push(address(target.name(), ip));
            added.insert(ip);
        }
    }
    left_out
}

fn address(name: Name<'_>, ip: IpAddr) -> ResourceRecord<'_> {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A { address: ip.to_bits() }),
        IpAddr::V6(ip) => RData::AAAA(AAAA { address: ip.to_bits() }),
    };
    ResourceRecord::new(name, CLASS::IN, TTL, data)
}

fn encoded_len(name: &Name<'_>) -> usize {
    name.as_bytes().map(|label| label.len() + 1).sum::<usize>() + 1
}

#[cfg(test)]
mod tests;
