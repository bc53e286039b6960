//! Makes the answer to a query. It has no socket, no clock and no random numbers.

use std::net::IpAddr;

use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE, header_buffer,
};

use super::{
    name::{ServiceName, literal},
    records::{Records, asked_address},
};

/// The largest UDP answer in bytes to a query without EDNS(0), and the smallest size that EDNS(0) can offer (RFC 6891,
/// section 6.2.3).
const SMALLEST_UDP: u16 = 512;
/// The largest UDP answer in bytes. It crosses every network without being fragmented (DNS Flag Day 2020), and a query
/// with a forged sender cannot get more out of us.
const LARGEST_UDP: u16 = 1232;
/// The largest answer in bytes, which is that over TCP. A length of two bytes would allow one more, but then Netty's
/// decoder, and so CrateDB, refuses the frame (`TcpDnsResponseDecoder`: 64 KiB with the length).
pub(super) const LARGEST: usize = 65_534;

/// The size of the header of a message in bytes (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
/// The size of the OPT record without options in bytes (RFC 6891, section 6.1.2).
const OPT_RECORD: usize = 11;
/// The code for a version of EDNS that we do not support (RFC 6891, section 9). Its upper eight bits are in the OPT
/// record.
const BADVERS: u16 = 16;

/// How the query came. That limits the size of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// At most 512 bytes, or what the query offers, up to 1232.
    Udp,
    /// At most 65,534 bytes.
    Tcp,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The message to send. Its buffer has room for two more bytes, which TCP needs.
    pub message: Vec<u8>,
    /// How many nodes did not fit into the message.
    pub left_out: usize,
}

/// The answer to `query` from the `records` of a snapshot, for questions about `service`. `None` if there must be no
/// answer: the message is an answer itself, another kind of message, or cannot be read.
///
/// | question | answer |
/// | --- | --- |
/// | SRV of the service | one record for each node, sorted by host; no records if no node is announced |
/// | another type of the service | no records |
/// | A or AAAA of a target that is an address | that address |
/// | a name below the service | NXDOMAIN |
/// | anything else | REFUSED |
/// | any, with a version of EDNS other than 0 | BADVERS |
///
/// If `records` is `None`, the answer is SERVFAIL, because an empty answer would say that no node is announced. CrateDB
/// treats a missing answer, no records, NXDOMAIN and SERVFAIL in the same way: it logs "DNS lookup exception", and asks
/// again a second later (Netty's `DnsResolveContext.finishResolve` makes an `UnknownHostException` of each).
///
/// If not all nodes fit, the answer has the nodes from number `start` on, and goes on with the first ones after the
/// last. With a random `start`, every node is named sooner or later, and no node is asked by all. Over UDP, such an
/// answer is marked as truncated: CrateDB 6.2 asks again over TCP, older versions use what they got.
///
/// The time for an answer grows with its bytes, and not with the number of nodes.
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

/// An answer without records to `query`, which asks the sender to come back over TCP. `None` as for [`answer`]. It is
/// not longer than the query.
pub(super) fn truncated(query: &[u8]) -> Option<Vec<u8>> {
    let content = Content { is_truncated: true, ..Content::default() };
    Some(Query::read(query)?.reply(&content).message)
}

/// A valid query: one question, and at most one more record, which is that of EDNS.
struct Query<'a> {
    id: u16,
    is_recursion_desired: bool,
    question: Question<'a>,
    /// The question, byte for byte.
    asked: &'a [u8],
    edns: Option<Edns>,
}

/// The content of an OPT record (RFC 6891, section 6.1.3). We read it ourselves, because simple-dns 0.13 reads the
/// version from the bits of DO.
struct Edns {
    /// The largest UDP answer that the sender accepts, in bytes.
    udp_size: u16,
    version: u8,
}

impl<'a> Query<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        // Only the header is read here: a message of 12 bytes may claim 65,535 records, and the parser would allocate
        // memory for them.
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

    /// The largest answer in bytes.
    fn limit(&self, transport: Transport) -> usize {
        match (transport, &self.edns) {
            (Transport::Tcp, _) => LARGEST,
            (Transport::Udp, None) => SMALLEST_UDP.into(),
            (Transport::Udp, Some(edns)) => edns.udp_size.clamp(SMALLEST_UDP, LARGEST_UDP).into(),
        }
    }

    /// The size of an answer without records in bytes: at most 282.
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
        // The count fits into 16 bits: each record has more than one byte.
        number(content.answer_count as u16);
        number(0);
        number(content.additional_count as u16 + u16::from(self.edns.is_some()));
        message.extend(self.asked);
        message.extend(first);
        message.extend(second);
        if self.edns.is_some() {
            // The name of the root, the type OPT, the size that we accept, the upper bits of the code, version 0, no
            // flags, no options.
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
    /// Reads an OPT record: the name of the root, then type, size, code and version.
    fn read(record: &[u8]) -> Option<Self> {
        match record {
            &[0, _, _, high, low, _, version, ..] => {
                Some(Self { udp_size: u16::from_be_bytes([high, low]), version })
            }
            _ => None,
        }
    }
}

/// The end of the question. Its name cannot point back, because there is nothing before it, so a name with a pointer is
/// invalid.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
    // The root label, the type and the class.
    let end = at + 5;
    (end <= message.len()).then_some(end)
}

/// What a question asks about.
enum Subject {
    Service,
    /// A name below that of the service.
    Below,
    /// The target name that stands for this address.
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

/// The content of an answer.
#[derive(Default)]
struct Content<'a> {
    /// The response code with all its twelve bits.
    code: u16,
    is_truncated: bool,
    /// The answer section, in two parts.
    answers: [&'a [u8]; 2],
    answer_count: usize,
    additional: &'a [u8],
    additional_count: usize,
    left_out: usize,
}

impl<'a> Content<'a> {
    /// Adds the nodes, and then the addresses of those that announced an address, as far as they fit into `room` bytes.
    fn add_nodes(&mut self, records: &'a Records, room: usize, start: usize) {
        let nodes = &records.nodes;
        let first = if nodes.len() <= room { 0 } else { start % nodes.count() };
        let (after, after_count) = nodes.from(first, room);
        let rest = room - after.len();
        // It goes on with the first nodes, but only up to where it began.
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
