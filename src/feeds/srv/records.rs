//! The records of one snapshot. They are made once, so that an answer only copies some of them.

use std::{net::IpAddr, ops::Range};

use simple_dns::{CLASS, TYPE};

use super::{answer::LARGEST, name::Target};
use crate::{host::Host, snapshot::Snapshot};

/// How many seconds an answer may be cached: 0, because the next snapshot may be different.
const TTL: u32 = 0;
/// The name of the question, as a pointer to it: it comes after the header of 12 bytes (RFC 1035, section 4.1.4).
const ASKED_NAME: [u8; 2] = [0xc0, 12];

/// All records of one snapshot, as they are sent.
///
/// For ten thousand hosts with names of 23 bytes they take 430 KB, and 80 KB for the index.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// An SRV record for each node, in the order of the hosts.
    pub(super) nodes: Section,
    /// An A or AAAA record for each address among the targets. It is empty if the nodes alone fill an answer.
    pub(super) addresses: Section,
    /// The addresses among the targets, sorted, each once.
    announced: Vec<IpAddr>,
    /// The hosts that cannot be in an answer.
    unfit: Vec<Host>,
}

impl Records {
    /// Makes the records of `snapshot`. The time grows with the number of its nodes.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut records = Self::default();
        for node in snapshot.nodes() {
            let Some(target) = Target::of(node) else {
                records.unfit.push(node.host.clone());
                continue;
            };
            records.announced.extend(target.ip);
            records.nodes.push(|bytes| write_node(bytes, &target));
        }
        records.announced.sort_unstable();
        records.announced.dedup();
        if records.nodes.bytes.len() <= LARGEST {
            for ip in &records.announced {
                if records.addresses.bytes.len() > LARGEST {
                    break;
                }
                records.addresses.push(|bytes| {
                    write_name(bytes, &Target::text_of(*ip));
                    write_address(bytes, *ip);
                });
            }
        }
        records.nodes.shrink();
        records.addresses.shrink();
        records.announced.shrink_to_fit();
        records
    }

    /// The hosts that cannot be in an answer, because the address to join them is no DNS name.
    pub fn unfit(&self) -> &[Host] {
        &self.unfit
    }

    /// Whether a node is joined at this address.
    pub(super) fn is_announced(&self, ip: IpAddr) -> bool {
        self.announced.binary_search(&ip).is_ok()
    }
}

/// A sequence of records.
#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    bytes: Vec<u8>,
    /// Where each record ends.
    ends: Vec<usize>,
}

impl Section {
    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The size of all records in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The records from number `first` on, as many as fit into `room` bytes, and how many these are.
    pub fn from(&self, first: usize, room: usize) -> (&[u8], usize) {
        self.within(first..self.count(), room)
    }

    /// The records from the beginning up to number `end`, without it, as many as fit into `room` bytes, and how many
    /// these are.
    pub fn until(&self, end: usize, room: usize) -> (&[u8], usize) {
        self.within(0..end, room)
    }

    fn within(&self, records: Range<usize>, room: usize) -> (&[u8], usize) {
        let (first, start) = (records.start, self.start_of(records.start));
        let count = self.ends[records].partition_point(|&end| end - start <= room);
        (&self.bytes[start..self.start_of(first + count)], count)
    }

    fn start_of(&self, record: usize) -> usize {
        record.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

/// Writes an SRV record. RFC 2782 forbids to compress the target.
fn write_node(bytes: &mut Vec<u8>, target: &Target<'_>) {
    bytes.extend(ASKED_NAME);
    write_head(bytes, TYPE::SRV, 6 + target.encoded_len());
    // Priority and weight are 0, because no node is better than another.
    bytes.extend([0; 4]);
    bytes.extend(target.port.to_be_bytes());
    write_name(bytes, target.text());
}

/// Writes a record for `ip`, of type A or AAAA, after its name.
fn write_address(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            write_head(bytes, TYPE::A, 4);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            write_head(bytes, TYPE::AAAA, 16);
            bytes.extend(ip.octets());
        }
    }
}

/// The answer to a question for the name of this address. The record has the name of the question.
pub(super) fn asked_address(ip: IpAddr) -> Vec<u8> {
    let mut bytes = ASKED_NAME.to_vec();
    write_address(&mut bytes, ip);
    bytes
}

/// Writes type, class, TTL and length (RFC 1035, section 4.1.3).
fn write_head(bytes: &mut Vec<u8>, kind: TYPE, length: usize) {
    bytes.extend(u16::from(kind).to_be_bytes());
    bytes.extend((CLASS::IN as u16).to_be_bytes());
    bytes.extend(TTL.to_be_bytes());
    // This fits, because a target has at most 255 bytes.
    bytes.extend((length as u16).to_be_bytes());
}

fn write_name(bytes: &mut Vec<u8>, name: &str) {
    for label in name.split('.') {
        // This fits, because `Target::of` allows at most 63 bytes.
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{announcement::Announcement, snapshot::Node};

    fn records(hosts: impl IntoIterator<Item = String>) -> Records {
        let announcement = Announcement::from_json(br#"{"http":4200,"transport":4300}"#).unwrap();
        let node = |host: String| Node { host: host.parse().unwrap(), announcement: announcement.clone() };
        Records::of(&Snapshot::new(1, hosts.into_iter().map(node).collect()))
    }

    #[test]
    fn a_record_is_what_rfc_2782_says() {
        let records = records(["a.b".to_owned()]);
        let expected = b"\xc0\x0c\0\x21\0\x01\0\0\0\0\0\x0b\0\0\0\0\x10\xcc\x01a\x01b\0";
        assert_eq!(records.nodes.from(0, 1000), (expected.as_slice(), 1));
        assert_eq!(records.nodes.from(0, expected.len() - 1), (b"".as_slice(), 0));
        assert_eq!(records.nodes.from(1, 1000), (b"".as_slice(), 0));
    }

    #[test]
    fn memory_for_ten_thousand_hosts_is_bounded() {
        let bytes = |records: &Records| {
            let of =
                |section: &Section| section.bytes.capacity() + section.ends.capacity() * size_of::<usize>();
            let announced = records.announced.capacity() * size_of::<IpAddr>();
            of(&records.nodes) + of(&records.addresses) + announced
        };
        let named = bytes(&records((0..10_000).map(|n| format!("crate-{n:05}.example.com"))));
        let numbered = |n: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
        let numbered = bytes(&records((0..10_000).map(numbered)));
        println!("bytes for 10,000 names: {named}, addresses: {numbered}");
        assert!(named < 600_000 && numbered < 600_000, "{named} {numbered}");
    }
}
