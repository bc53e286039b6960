//! Checks the answers with another implementation, hickory.

use std::{collections::BTreeSet, iter};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name as Domain, RData as Data, RecordType},
};
use proptest::prelude::*;

use super::*;
use crate::{
    announcement::Announcement,
    snapshot::{Node, Snapshot},
};

const SERVICE: &str = "_crate._tcp.crate.local.";

/// A query of CrateDB over UDP, byte for byte. It was recorded from Netty 4.2.17, the version of CrateDB 6.5-dev, with
/// the resolver that `SrvUnicastHostsProvider.buildResolver` builds. RD is set, and EDNS(0) offers 4096 bytes. Over TCP
/// the same resolver sends no EDNS(0).
const CRATE_DB_QUERY: &[u8] = b"\x16\x73\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\
    \x06_crate\x04_tcp\x05crate\x05local\x00\x00\x21\x00\x01\
    \x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00";

fn snapshot<H: AsRef<str>>(hosts: impl IntoIterator<Item = H>) -> Snapshot {
    let announcement = Announcement::from_json(br#"{"http":4200,"transport":4300}"#).unwrap();
    let node = |host: H| Node { host: host.as_ref().parse().unwrap(), announcement: announcement.clone() };
    Snapshot::new(1, hosts.into_iter().map(node).collect())
}

fn many(count: usize) -> Snapshot {
    snapshot((0..count).map(|n| format!("crate-{n:05}.example.com")))
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Domain::from_ascii(name).unwrap(), kind));
    query
}

fn with_edns(mut query: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    query.set_edns(edns);
    query
}

fn ask(query: &Message, snapshot: Option<&Snapshot>, transport: Transport) -> (Message, Answer) {
    let service = ServiceName::default();
    let records = snapshot.map(Records::of);
    let answer =
        answer(&query.to_vec().unwrap(), &service, records.as_ref(), transport, 0).expect("an answer");
    (Message::from_vec(&answer.message).unwrap(), answer)
}

fn code(name: &str, kind: RecordType, snapshot: Option<&Snapshot>) -> ResponseCode {
    let (reply, _) = ask(&query(name, kind), snapshot, Transport::Udp);
    if reply.metadata.response_code != ResponseCode::NoError {
        assert!(reply.answers.is_empty() && reply.additionals.is_empty(), "{reply:?}");
    }
    reply.metadata.response_code
}

/// The answers as `target:port`, with the bytes of each label as they are.
fn seeds(reply: &Message) -> Vec<String> {
    let seed = |data: &Data| match data {
        Data::SRV(srv) => {
            assert_eq!((srv.priority, srv.weight), (0, 0));
            let labels: Vec<_> = srv.target.iter().map(String::from_utf8_lossy).collect();
            format!("{}:{}", labels.join("."), srv.port)
        }
        other => panic!("no SRV: {other:?}"),
    };
    reply.answers.iter().map(|record| seed(&record.data)).collect()
}

#[test]
fn every_node_is_a_record_in_the_order_of_the_hosts() {
    let snapshot = snapshot(["crate2", "10.0.0.5", "crate1.example.com"]);
    let (reply, answer) = ask(&query(SERVICE, RecordType::SRV), Some(&snapshot), Transport::Udp);
    assert_eq!(seeds(&reply), ["10.0.0.5:4300", "crate1.example.com:4300", "crate2:4300"]);
    assert!(reply.metadata.authoritative && !reply.metadata.truncation);
    assert!(!reply.metadata.recursion_available && reply.metadata.recursion_desired);
    assert!(reply.answers.iter().all(|record| record.ttl == 0 && record.dns_class == DNSClass::IN));
    assert_eq!(answer.left_out, 0);
}

#[test]
fn the_address_and_the_transport_port_are_what_is_joined() {
    let value = br#"{"http":4201,"transport":4301,"address":"10.0.0.7"}"#;
    let node =
        Node { host: "crate1".parse().unwrap(), announcement: Announcement::from_json(value).unwrap() };
    let snapshot = Snapshot::new(1, vec![node]);
    let (reply, _) = ask(&query(SERVICE, RecordType::SRV), Some(&snapshot), Transport::Udp);
    assert_eq!(seeds(&reply), ["10.0.0.7:4301"]);
}

#[test]
fn cratedb_gets_an_answer_to_its_very_query() {
    let snapshot = snapshot(["10.0.0.5", "2001:db8::1", "crate1"]);
    let records = Records::of(&snapshot);
    let answer = answer(CRATE_DB_QUERY, &ServiceName::default(), Some(&records), Transport::Udp, 0).unwrap();
    let reply = Message::from_vec(&answer.message).unwrap();
    assert_eq!(reply.metadata.id, 0x1673);
    assert_eq!(seeds(&reply), ["10.0.0.5:4300", "[2001:db8::1]:4300", "crate1:4300"]);
    assert_eq!(reply.edns.as_ref().map(|edns| (edns.version(), edns.max_payload())), Some((0, 1232)));
}

#[test]
fn names_match_in_any_case_and_come_back_as_they_were_asked() {
    let name = "_Crate._TCP.crate.LOCAL.";
    let (reply, _) = ask(&query(name, RecordType::SRV), Some(&snapshot(["a"])), Transport::Udp);
    assert_eq!(seeds(&reply), ["a:4300"]);
    let asked = Domain::from_ascii(name).unwrap();
    assert!(reply.queries[0].name.eq_case(&asked) && reply.answers[0].name.eq_case(&asked));
}

#[test]
fn nobody_announced_is_no_records_and_not_read_yet_is_a_failure() {
    let none = snapshot::<&str>([]);
    assert_eq!(code(SERVICE, RecordType::SRV, Some(&none)), ResponseCode::NoError);
    let (reply, _) = ask(&query(SERVICE, RecordType::SRV), Some(&none), Transport::Udp);
    assert!(reply.answers.is_empty() && reply.metadata.authoritative);
    assert_eq!(code(SERVICE, RecordType::SRV, None), ResponseCode::ServFail);
}

#[test]
fn what_is_not_ours_is_refused() {
    let nodes = snapshot(["10.0.0.5", "2001:db8::1", "crate1"]);
    for (name, expected) in [
        ("a._crate._tcp.crate.local.", ResponseCode::NXDomain),
        ("_tcp.crate.local.", ResponseCode::Refused),
        ("crate.local.", ResponseCode::Refused),
        ("crate1.", ResponseCode::Refused),
        ("example.com.", ResponseCode::Refused),
        ("10.0.0.6.", ResponseCode::Refused),
        (".", ResponseCode::Refused),
    ] {
        for kind in [RecordType::SRV, RecordType::A, RecordType::ANY, RecordType::AXFR] {
            assert_eq!(code(name, kind, Some(&nodes)), expected, "{name} {kind}");
        }
    }
    let mut chaos = query(SERVICE, RecordType::SRV);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let (reply, _) = ask(&chaos, Some(&nodes), Transport::Udp);
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert!(reply.answers.is_empty());
    let (reply, _) = ask(&query(SERVICE, RecordType::TXT), Some(&nodes), Transport::Udp);
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
}

#[test]
fn an_address_that_was_handed_out_has_an_address() {
    let nodes = snapshot(["10.0.0.5", "2001:db8::1"]);
    let (reply, _) = ask(&query("10.0.0.5.", RecordType::A), Some(&nodes), Transport::Udp);
    assert!(
        matches!(&reply.answers[..], [record] if record.data == Data::A("10.0.0.5".parse().unwrap())),
        "{reply:?}"
    );
    assert_eq!(code("10.0.0.5.", RecordType::AAAA, Some(&nodes)), ResponseCode::NoError);
    assert_eq!(code("10.0.0.5.", RecordType::A, None), ResponseCode::ServFail);

    let mut v6 = query(".", RecordType::AAAA);
    v6.queries[0].name = Domain::from_labels([b"[2001:DB8:0::1]".as_slice()]).unwrap();
    let (reply, _) = ask(&v6, Some(&nodes), Transport::Udp);
    assert!(
        matches!(&reply.answers[..], [record] if record.data == Data::AAAA("2001:db8::1".parse().unwrap())),
        "{reply:?}"
    );
}

#[test]
fn addresses_come_along_once_where_they_fit() {
    let (reply, _) = ask(
        &query(SERVICE, RecordType::SRV),
        Some(&snapshot(["10.0.0.5", "10.0.0.5", "2001:db8::1", "a"])),
        Transport::Udp,
    );
    let added: Vec<_> = reply.additionals.iter().map(|record| record.data.clone()).collect();
    assert_eq!(added, [Data::A("10.0.0.5".parse().unwrap()), Data::AAAA("2001:db8::1".parse().unwrap())]);
}

#[test]
fn udp_answers_are_as_long_as_the_query_allows() {
    let nodes = many(100);
    for (offer, limit) in [(None, 512), (Some(0), 512), (Some(900), 900), (Some(4096), 1232)] {
        let plain = query(SERVICE, RecordType::SRV);
        let query = offer.map_or(plain.clone(), |size| with_edns(plain, size));
        let (reply, answer) = ask(&query, Some(&nodes), Transport::Udp);
        let one = 12 + 6 + 2 + "crate-00000.example.com".len();
        assert!((limit - 2 * one..=limit).contains(&answer.message.len()), "{}", answer.message.len());
        assert!(reply.metadata.truncation);
        assert_eq!(reply.answers.len() + answer.left_out, 100);
        assert_eq!(reply.edns.is_some(), offer.is_some());
    }
}

#[test]
fn an_answer_that_just_fits_is_whole_and_one_node_more_is_not() {
    let truncated = |count| {
        let (reply, answer) = ask(&query(SERVICE, RecordType::SRV), Some(&many(count)), Transport::Udp);
        (reply.metadata.truncation, reply.answers.len(), answer.message.len() <= 512)
    };
    let most = (0..20).rev().find(|&count| !truncated(count).0).unwrap();
    assert_eq!(truncated(most), (false, most, true));
    assert_eq!(truncated(most + 1), (true, most, true));
}

#[test]
fn ten_thousand_nodes_fill_a_tcp_answer_and_all_are_heard_of() {
    let nodes = Records::of(&many(10_000));
    let bytes = query(SERVICE, RecordType::SRV).to_vec().unwrap();
    let (mut heard, mut starts) = (BTreeSet::new(), 0);
    let mut start = 0;
    while heard.len() < 10_000 {
        let answer = answer(&bytes, &ServiceName::default(), Some(&nodes), Transport::Tcp, start).unwrap();
        assert!((65_400..=LARGEST).contains(&answer.message.len()), "{}", answer.message.len());
        let reply = Message::from_vec(&answer.message).unwrap();
        // An answer over TCP must not be marked as truncated: CrateDB would ask again, and there is no other way to
        // ask.
        assert!(!reply.metadata.truncation);
        assert_eq!(reply.answers.len() + answer.left_out, 10_000);
        heard.extend(seeds(&reply));
        (start, starts) = (start + reply.answers.len(), starts + 1);
        assert!(starts < 20, "only {} of 10000", heard.len());
    }
}

#[test]
fn the_longest_tcp_answer_is_one_that_cratedb_reads() {
    let query = with_edns(query(SERVICE, RecordType::SRV), 4096);
    // All lengths around the limit are tried, one after the other.
    let lengths = (1..=63).filter_map(|last| {
        let hosts = (0..1522).map(|n| format!("crate-{n:05}.example.com")).chain([format!("{:x<last$}", "")]);
        let (_, answer) = ask(&query, Some(&snapshot(hosts)), Transport::Tcp);
        (answer.left_out == 0).then_some(answer.message.len())
    });
    assert_eq!(lengths.max(), Some(65_534));
}

#[test]
fn a_host_that_is_no_name_is_left_out_alone() {
    let nodes = snapshot(["a", "b..c", &"x".repeat(64)]);
    let (reply, answer) = ask(&query(SERVICE, RecordType::SRV), Some(&nodes), Transport::Udp);
    assert_eq!(seeds(&reply), ["a:4300"]);
    assert_eq!(answer.left_out, 0);
    assert_eq!(Records::of(&nodes).unfit().len(), 2);
}

#[test]
fn an_edns_version_that_is_not_known_is_told_so() {
    let nodes = snapshot(["a"]);
    for (name, records) in [(SERVICE, Some(&nodes)), (SERVICE, None), ("example.com.", Some(&nodes))] {
        for version in [1, 2, 255] {
            let mut query = with_edns(query(name, RecordType::SRV), 4096);
            query.edns.as_mut().unwrap().set_version(version);
            let (reply, answer) = ask(&query, records, Transport::Udp);
            let edns = reply.edns.as_ref().expect("an OPT record");
            assert_eq!((edns.version(), edns.max_payload()), (0, 1232));
            // Hickory calls it BADSIG, which is the name of the same number in TSIG.
            assert_eq!(u16::from(reply.metadata.response_code), 16, "{version}");
            assert!(reply.answers.is_empty() && !reply.metadata.authoritative);
            // The upper eight bits of 16 are 1, and the lower four are 0.
            assert_eq!((answer.message[3] & 0x0f, answer.message[answer.message.len() - 6]), (0, 1));
        }
    }
    // DO is no version, although simple-dns 0.13 reads it as one.
    let mut query = with_edns(query(SERVICE, RecordType::SRV), 4096);
    query.edns.as_mut().unwrap().set_dnssec_ok(true);
    let (reply, _) = ask(&query, Some(&nodes), Transport::Udp);
    assert_eq!(seeds(&reply), ["a:4300"]);
}

#[test]
fn an_answer_beyond_the_limit_is_empty_truncated_and_no_longer_than_the_query() {
    for query in [query(SERVICE, RecordType::SRV), with_edns(query("example.com.", RecordType::A), 4096)] {
        let bytes = query.to_vec().unwrap();
        let message = truncated(&bytes).unwrap();
        assert_eq!(message.len(), bytes.len());
        let reply = Message::from_vec(&message).unwrap();
        assert!(reply.metadata.truncation && reply.metadata.message_type == MessageType::Response);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!((reply.metadata.id, &reply.queries), (query.metadata.id, &query.queries));
        assert!(reply.answers.is_empty() && reply.additionals.is_empty());
        assert_eq!(reply.edns.is_some(), query.edns.is_some());
    }
}

/// The expected nodes of an answer from `start` on, in order, counted one by one.
#[test]
fn a_part_begins_anywhere_and_goes_around_the_end() {
    let nodes = Records::of(&many(100));
    let query = with_edns(query(SERVICE, RecordType::SRV), 1232).to_vec().unwrap();
    for start in (0..100).chain([100, 250, usize::MAX]) {
        let answer = answer(&query, &ServiceName::default(), Some(&nodes), Transport::Udp, start).unwrap();
        let reply = Message::from_vec(&answer.message).unwrap();
        let expected = (start % 100..1000).map(|n| format!("crate-{:05}.example.com:4300", n % 100));
        assert!(reply.answers.len() > 20);
        assert_eq!(seeds(&reply), expected.take(reply.answers.len()).collect::<Vec<_>>(), "{start}");
    }
}

#[test]
fn what_is_no_plain_query_gets_no_answer() {
    let nodes = Records::of(&snapshot(["a"]));
    let silent = |what: &str, bytes: &[u8]| {
        for transport in [Transport::Udp, Transport::Tcp] {
            assert_eq!(answer(bytes, &ServiceName::default(), Some(&nodes), transport, 0), None, "{what}");
            assert_eq!(truncated(bytes), None, "{what}");
        }
    };
    let plain = query(SERVICE, RecordType::SRV);
    let changed = |change: fn(&mut Message)| {
        let mut message = plain.clone();
        change(&mut message);
        message.to_vec().unwrap()
    };
    silent("an answer", &changed(|m| m.metadata.message_type = MessageType::Response));
    silent("an update", &changed(|m| m.metadata.op_code = OpCode::Update));
    silent("a notification", &changed(|m| m.metadata.op_code = OpCode::Notify));
    silent("no question", &changed(|m| m.queries.clear()));
    silent("two questions", &changed(|m| m.queries.extend(m.queries.clone())));
    let bytes = plain.to_vec().unwrap();
    for length in 0..bytes.len() {
        silent("a part", &bytes[..length]);
    }
    for count in [7, 9, 11] {
        let mut claims = bytes.clone();
        claims[count] = 1;
        silent("a record that is not there", &claims);
    }
    let mut loops = bytes[..12].to_vec();
    loops.extend(b"\xc0\x0c\x00\x21\x00\x01");
    silent("a name that points to itself", &loops);
    loops.truncate(12);
    loops.extend(b"\x01a\xc0\x02\x00\x21\x00\x01");
    silent("a name that goes on in the header", &loops);
    // A forged sender may send our own answer back to us. It gets no answer, so that this ends.
    let own = answer(&bytes, &ServiceName::default(), Some(&nodes), Transport::Udp, 0).unwrap();
    silent("our own answer", &own.message);
}

/// What must hold for every answer, whatever bytes were sent.
fn judge(query: &[u8], snapshot: Option<&Snapshot>, transport: Transport, start: usize) {
    let records = snapshot.map(Records::of);
    let Some(answer) = answer(query, &ServiceName::default(), records.as_ref(), transport, start) else {
        return;
    };
    assert!(truncated(query).unwrap().len() <= query.len());
    let simple = Packet::parse(&answer.message).unwrap();
    assert!(simple.has_flags(PacketFlag::RESPONSE) && simple.questions.len() == 1);
    let asked = Packet::parse(query).unwrap();
    assert!(!asked.has_flags(PacketFlag::RESPONSE) && asked.id() == simple.id());
    assert!(asked.questions[0].qname.as_bytes().eq(simple.questions[0].qname.as_bytes()));
    let limit = match (transport, asked.opt()) {
        (Transport::Tcp, _) => LARGEST,
        (Transport::Udp, None) => 512,
        (Transport::Udp, Some(opt)) => opt.udp_packet_size.clamp(512, 1232).into(),
    };
    assert!(answer.message.len() <= limit, "{} bytes", answer.message.len());
    let reply = Message::from_vec(&answer.message).unwrap();
    assert_eq!(reply.answers.len(), simple.answers.len());
    assert_eq!(reply.additionals.len(), simple.additional_records.len());
}

fn hosts() -> impl Strategy<Value = Vec<String>> {
    let host = prop_oneof![
        "[a-z0-9_][a-z0-9._-]{0,80}",
        any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|ip| ip.to_string()),
    ];
    proptest::collection::vec(host, 0..60)
}

proptest! {
    #[test]
    fn any_bytes_are_answered_rightly_or_not_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        judge(&bytes, Some(&snapshot(["a"])), Transport::Udp, 0);
    }

    #[test]
    fn a_query_with_wrong_bytes_is_answered_rightly_or_not_at_all(
        changes in proptest::collection::vec((0..CRATE_DB_QUERY.len(), any::<u8>()), 0..4),
        hosts in hosts(),
        start in any::<usize>(),
    ) {
        let mut bytes = CRATE_DB_QUERY.to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        for transport in [Transport::Udp, Transport::Tcp] {
            judge(&bytes, Some(&snapshot(&hosts)), transport, start);
        }
    }

    #[test]
    fn whatever_fits_is_complete(hosts in hosts(), offer in any::<u16>(), start in any::<usize>()) {
        let nodes = snapshot(&hosts);
        let records = Records::of(&nodes);
        let fit = nodes.nodes().len() - records.unfit().len();
        let query = with_edns(query(SERVICE, RecordType::SRV), offer).to_vec().unwrap();
        let answer =
            answer(&query, &ServiceName::default(), Some(&records), Transport::Udp, start).unwrap();
        let reply = Message::from_vec(&answer.message).unwrap();
        prop_assert_eq!(reply.answers.len() + answer.left_out, fit);
        prop_assert_eq!(reply.metadata.truncation, answer.left_out > 0);
        judge(&query, Some(&nodes), Transport::Udp, start);
    }

    #[test]
    fn any_name_is_answered_with_its_own_case(labels in proptest::collection::vec("[!-~]{1,63}", 1..4)) {
        let mut query = query(".", RecordType::SRV);
        query.queries[0].name = Domain::from_labels(labels.iter().map(String::as_bytes)).unwrap();
        judge(&query.to_vec().unwrap(), Some(&snapshot(iter::once("a"))), Transport::Udp, 0);
    }
}
