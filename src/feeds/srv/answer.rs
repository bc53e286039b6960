//! A query in, an answer out, and nothing else: no socket, no clock, no chance.

use std::net::IpAddr;

use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE, header_buffer,
};

use super::{
    name::{ServiceName, literal},
    records::{Records, asked_address},
};

/// Bytes of a UDP answer to a query without EDNS(0), and the least that EDNS(0) can offer (RFC 6891,
/// section 6.2.3).
const SMALLEST_UDP: u16 = 512;
/// Bytes of any UDP answer: what crosses every network unfragmented (DNS Flag Day 2020), and all that
/// a query with a forged sender can get out of us.
const LARGEST_UDP: u16 = 1232;
/// Bytes of any answer, and so of one over TCP. A length of two bytes would allow one more, but then Netty's decoder,
/// and so CrateDB, refuses the frame (`TcpDnsResponseDecoder`: 64 KiB with the length).
pub(super) const LARGEST: usize = 65_534;

/// Bytes of a message's header (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
/// Bytes of the OPT record without options (RFC 6891, section 6.1.2).
const OPT_RECORD: usize = 11;
/// "This version of EDNS is not spoken here" (RFC 6891, section 9). Eight of its bits are in the OPT record.
const BADVERS: u16 = 16;

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
    /// The message to send, with room for two bytes more.
    pub message: Vec<u8>,
    /// How many nodes did not fit into it.
    pub left_out: usize,
}

/// The answer to `query`, from the `records` of a snapshot, to a question about `service`; `None` for what must not
/// be answered: answers, other kinds of messages, and what cannot be read.
///
/// | question | answer |
/// | --- | --- |
/// | SRV of the service | a record for each node, sorted by host; none where nobody is announced |
/// | another type of the service | no records |
/// | A or AAAA of a target that is an address | that address |
/// | below the service | NXDOMAIN |
/// | anything else | REFUSED |
/// | any, in EDNS of another version than 0 | BADVERS |
///
/// Without records it is SERVFAIL: "nobody" would be a lie. CrateDB logs no answer, no records,
/// NXDOMAIN and SERVFAIL alike, as "DNS lookup exception", and asks again a second later (Netty's
/// `DnsResolveContext.finishResolve` makes an `UnknownHostException` of each).
///
/// Where not all nodes fit, the answer has those from the node number `start` on, and around the end:
/// with a `start` by chance every node is heard of sooner or later, and none is asked by all. Over UDP
/// it is then marked as truncated. CrateDB 6.2 asks again over TCP; an older one takes what is there.
///
/// The time that it takes does not grow with the number of nodes, only with the bytes of the answer.
pub fn answer(
    query: &[u8],
    service: &ServiceName,
    records: Option<&Records>,
    transport: Transport,
    start: usize,
) -> Option<Answer> {
    let query = Query::read(query)?;
    let room = query.limit(transport) - query.fixed_len();
    let asks = |wanted: TYPE| query.question.qtype == QTYPE::TYPE(wanted);
    let mut content = Content::default();
    match (Subject::of(&query.question.qname, service), records) {
        _ if query.edns.as_ref().is_some_and(|edns| edns.version != 0) => content.code = BADVERS,
        _ if !query.is_internet() => content.code = RCODE::Refused as u16,
        (Subject::Below, _) => content.code = RCODE::NameError as u16,
        (Subject::Other, _) => content.code = RCODE::Refused as u16,
        (Subject::Service | Subject::Literal(_), None) => content.code = RCODE::ServerFailure as u16,
        (Subject::Service, Some(records)) => {
            if asks(TYPE::SRV) || query.question.qtype == QTYPE::ANY {
                content.add_nodes(records, room, start);
                content.is_truncated = content.left_out > 0 && transport == Transport::Udp;
            }
        }
        (Subject::Literal(ip), Some(records)) if records.is_announced(ip) => {
            if asks(if ip.is_ipv4() { TYPE::A } else { TYPE::AAAA }) {
                let address = asked_address(ip);
                return Some(query.reply(&Content { answers: [&address, &[]], answer_count: 1, ..content }));
            }
        }
        (Subject::Literal(_), Some(_)) => content.code = RCODE::Refused as u16,
    }
    Some(query.reply(&content))
}

/// The answer without records to `query` that asks its sender to come back over TCP, whatever the question is; `None`
/// as for [`answer`]. It is not longer than the query.
pub(super) fn truncated(query: &[u8]) -> Option<Vec<u8>> {
    let content = Content { is_truncated: true, ..Content::default() };
    Some(Query::read(query)?.reply(&content).message)
}

/// A query that is in order: one question and at most one more record, EDNS's.
struct Query<'a> {
    id: u16,
    is_recursion_desired: bool,
    question: Question<'a>,
    /// The same, byte for byte.
    asked: &'a [u8],
    edns: Option<Edns>,
}

/// What an OPT record says of the message (RFC 6891, section 6.1.3). simple-dns 0.13 reads the version from the bits
/// of DO.
struct Edns {
    /// Bytes of a UDP answer that the asker can take.
    udp_size: u16,
    version: u8,
}

impl<'a> Query<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
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
        let mut packet =
            Packet::parse(message).ok().filter(|query| query.opcode() == OPCODE::StandardQuery)?;
        let asked = &message[HEADER..question_end(message)?];
        let edns = match packet.opt() {
            Some(_) => Some(Edns::read(&message[HEADER + asked.len()..])?),
            None => None,
        };
        let question = packet.questions.pop()?;
        let is_recursion_desired = packet.has_flags(PacketFlag::RECURSION_DESIRED);
        Some(Self { id: packet.id(), is_recursion_desired, question, asked, edns })
    }

    fn is_internet(&self) -> bool {
        self.question.qclass == QCLASS::CLASS(CLASS::IN) && !self.question.unicast_response
    }

    /// Bytes of the longest answer.
    fn limit(&self, transport: Transport) -> usize {
        match (transport, &self.edns) {
            (Transport::Tcp, _) => LARGEST,
            (Transport::Udp, None) => SMALLEST_UDP.into(),
            (Transport::Udp, Some(edns)) => edns.udp_size.clamp(SMALLEST_UDP, LARGEST_UDP).into(),
        }
    }

    /// Bytes of the answer that has no records: at most 282.
    fn fixed_len(&self) -> usize {
        HEADER + self.asked.len() + if self.edns.is_some() { OPT_RECORD } else { 0 }
    }

    fn reply(&self, content: &Content<'_>) -> Answer {
        let [low, high] = [content.code & 0x0f, content.code >> 4];
        let mut flags = PacketFlag::RESPONSE;
        let is_ours = [RCODE::NoError as u16, RCODE::NameError as u16].contains(&content.code);
        flags.set(PacketFlag::AUTHORITATIVE_ANSWER, is_ours);
        flags.set(PacketFlag::TRUNCATION, content.is_truncated);
        flags.set(PacketFlag::RECURSION_DESIRED, self.is_recursion_desired);
        let [first, second] = content.answers;
        let records = first.len() + second.len() + content.additional.len();
        let mut message = Vec::with_capacity(self.fixed_len() + records + 2);
        let mut number = |number: u16| message.extend(number.to_be_bytes());
        number(self.id);
        number(flags.bits() | low);
        number(1);
        // Not more than there are bytes.
        number(content.answer_count as u16);
        number(0);
        number(content.additional_count as u16 + u16::from(self.edns.is_some()));
        message.extend(self.asked);
        message.extend(first);
        message.extend(second);
        if self.edns.is_some() {
            // The name of the root, OPT, what we take, the code's upper bits, version 0, no flags, no options.
            message.extend([0]);
            message.extend(u16::from(TYPE::OPT).to_be_bytes());
            message.extend(LARGEST_UDP.to_be_bytes());
            message.extend([high as u8, 0, 0, 0, 0, 0]);
        }
        message.extend(content.additional);
        Answer { message, left_out: content.left_out }
    }
}

impl Edns {
    /// From an OPT record, which begins with the name of the root, type and size.
    fn read(record: &[u8]) -> Option<Self> {
        match record {
            &[0, _, _, high, low, _, version, ..] => {
                Some(Self { udp_size: u16::from_be_bytes([high, low]), version })
            }
            _ => None,
        }
    }
}

/// Where the question ends. There is nothing before it that its name could repeat, so a name that does is not in
/// order.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
    // The root, type and class.
    let end = at + 5;
    (end <= message.len()).then_some(end)
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

/// What an answer says.
#[derive(Default)]
struct Content<'a> {
    /// The response code, all twelve bits of it.
    code: u16,
    is_truncated: bool,
    /// The answer section, in two pieces.
    answers: [&'a [u8]; 2],
    answer_count: usize,
    additional: &'a [u8],
    additional_count: usize,
    left_out: usize,
}

impl<'a> Content<'a> {
    /// Adds the nodes, and then the addresses of those that announced one, as far as there is `room`, in bytes.
    fn add_nodes(&mut self, records: &'a Records, room: usize, start: usize) {
        let nodes = &records.nodes;
        let first = if nodes.len() <= room { 0 } else { start % nodes.count() };
        let (after, after_count) = nodes.from(first, room);
        let rest = room - after.len();
        // Around the end, but not past where it began.
        let is_at_end = first + after_count == nodes.count();
        let (before, before_count) = if is_at_end { nodes.until(first, rest) } else { (&[][..], 0) };
        self.answers = [after, before];
        self.answer_count = after_count + before_count;
        self.left_out = nodes.count() - self.answer_count;
        if self.left_out == 0 {
            (self.additional, self.additional_count) = records.addresses.from(0, rest - before.len());
        }
    }
}

#[cfg(test)]
mod tests;
