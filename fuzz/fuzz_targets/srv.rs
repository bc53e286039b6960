//! Whoever reaches the address of `--srv` may send anything, and hosts are anybody's: whatever is
//! answered is an answer to that question, and no longer than its transport allows. `make fuzz` runs it.

#![no_main]

use crate_discovery::{
    announcement::Announcement,
    host::Host,
    feeds::srv::{
        answer::{Transport, answer},
        name::ServiceName,
        records::Records,
    },
    snapshot::{Node, Snapshot},
};
use libfuzzer_sys::fuzz_target;
use simple_dns::{Packet, PacketFlag};

/// See the unit tests of `answer`.
const CRATE_DB_QUERY: &[u8] = b"\x16\x73\x01\0\0\x01\0\0\0\0\0\x01\
    \x06_crate\x04_tcp\x05crate\x05local\0\0\x21\0\x01\0\0\x29\x10\0\0\0\0\0\0\0";

fuzz_target!(|input: (&[u8], &str, u16, u16)| {
    let (query, hosts, copies, start) = input;
    let announcement = Announcement::from_json(br#"{"http":4200,"transport":4300}"#).unwrap();
    // A few hosts, some of them many times, so that answers become too long.
    let hosts: Vec<Host> = hosts.split_whitespace().filter_map(|host| host.parse().ok()).take(8).collect();
    let nodes = hosts
        .iter()
        .cycle()
        .take(hosts.len() * usize::from(copies % 1024))
        .map(|host| Node { host: host.clone(), announcement: announcement.clone() });
    let records = Records::of(&Snapshot::new(1, nodes.collect()));

    // As it came, behind a header that is in order, and written over CrateDB's query somewhere.
    let framed = [&CRATE_DB_QUERY[..12], query].concat();
    let mut changed = CRATE_DB_QUERY.to_vec();
    let at = usize::from(start) % changed.len();
    changed.splice(at..changed.len().min(at + query.len()), query.iter().copied());
    for query in [query, &framed, &changed] {
        for transport in [Transport::Udp, Transport::Tcp] {
            for records in [None, Some(&records)] {
                judge(query, records, transport, start.into());
            }
        }
    }
});

fn judge(query: &[u8], records: Option<&Records>, transport: Transport, start: usize) {
    let service = ServiceName::default();
    let Some(answer) = answer(query, &service, records, transport, start) else { return };
    let asked = Packet::parse(query).expect("what cannot be read is not answered");
    assert!(!asked.has_flags(PacketFlag::RESPONSE), "an answer to an answer");
    let limit = match (transport, asked.opt()) {
        (Transport::Tcp, _) => 65_534,
        (Transport::Udp, None) => 512,
        (Transport::Udp, Some(opt)) => opt.udp_packet_size.clamp(512, 1232).into(),
    };
    assert!(answer.message.len() <= limit, "{} bytes", answer.message.len());
    let reply = Packet::parse(&answer.message).expect("an answer can be read");
    assert!(reply.has_flags(PacketFlag::RESPONSE) && reply.id() == asked.id());
    assert_eq!(reply.questions.len(), 1);
    assert!(reply.questions[0].qname.as_bytes().eq(asked.questions[0].qname.as_bytes()), "another question");
    let is_ours = reply.questions[0].qname.to_string().eq_ignore_ascii_case(&service.to_string());
    assert!(reply.answers.len() <= 1 || is_ours, "records for what we do not serve");
    assert!(records.is_some() || reply.answers.is_empty(), "records from nowhere");
}
