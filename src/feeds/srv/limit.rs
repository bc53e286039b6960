//! Limits how many whole answers one sender gets over UDP, because the address of the sender may be forged.

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// How many whole UDP answers one sender gets per second, on average. CrateDB asks once per second while it has no
/// master, and not at all afterwards, so this is enough for a hundred nodes behind one address, or in one IPv6 network.
/// A victim of forged queries gets at most 123 KB/s from one of us.
///
/// A query above the limit gets an answer without records that is marked as truncated ("slip 1"). CrateDB 6.2 then asks
/// over TCP, where a sender cannot be forged, and where there is no such limit. That answer is never longer than the
/// query, so it amplifies nothing. Without any answer, a forger could hide us from the node whose address he uses.
const PER_SECOND: u32 = 100;
/// How many whole UDP answers are sent at once, after a pause of two seconds.
const BURST: u32 = 200;
/// How many senders are told apart. Senders whose hashes collide share one limit. Nobody can cause that on purpose,
/// because the hash has a random key.
const SLOTS: usize = 1024;

/// The limit for all senders. It takes 8 KB, however many there are.
#[derive(Debug)]
pub(super) struct Limit {
    hasher: RandomState,
    began: Instant,
    /// For each slot the time until which its answers are paid for, in nanoseconds since `began` (the "theoretical
    /// arrival time" of the generic cell rate algorithm, ITU-T I.371).
    paid_until: Box<[u64]>,
}

impl Limit {
    pub fn new(now: Instant) -> Self {
        Self { hasher: RandomState::new(), began: now, paid_until: vec![0; SLOTS].into() }
    }

    /// Whether `asker` may have a whole answer `now`. If so, it is counted. Loopback addresses always may.
    pub fn allows(&mut self, asker: IpAddr, now: Instant) -> bool {
        let asker = asker.to_canonical();
        if asker.is_loopback() {
            return true;
        }
        let each = Duration::from_secs(1) / PER_SECOND;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(now.saturating_duration_since(self.began));
        let slot = self.hasher.hash_one(network(asker)) as usize % SLOTS;
        let paid_until = &mut self.paid_until[slot];
        let then = now.max(*paid_until).saturating_add(nanos(each));
        let is_allowed = then - now <= nanos(each * BURST);
        if is_allowed {
            *paid_until = then;
        }
        is_allowed
    }
}

/// What counts as one sender: an IPv4 address, or an IPv6 /64, in which a host may take any address (RFC 4291, section
/// 2.5.1).
fn network(asker: IpAddr) -> IpAddr {
    match asker {
        IpAddr::V4(_) => asker,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let mut allowed = |count: usize, after: u64| {
            let now = start + Duration::from_millis(after);
            (0..count).filter(|_| limit.allows(ip("10.0.0.1"), now)).count()
        };
        assert_eq!(allowed(1000, 0), 200);
        assert_eq!(allowed(1000, 0), 0);
        assert_eq!(allowed(1000, 1000), 100);
        assert_eq!(allowed(1000, 1010), 1);
        assert_eq!(allowed(1000, 3_600_000), 200);
    }

    #[test]
    fn a_hundred_nodes_that_ask_once_a_second_are_never_limited() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        for second in 0..1000 {
            // All nodes are in one network, and ask at the same moment.
            for node in 0..100 {
                let now = start + Duration::from_secs(second);
                assert!(limit.allows(ip(&format!("2001:db8::{node:x}")), now), "{second} {node}");
            }
        }
    }

    #[test]
    fn an_asker_is_an_address_or_a_64() {
        let now = Instant::now();
        let used_up = |first: &str, second: &str| {
            let mut limit = Limit::new(now);
            while limit.allows(ip(first), now) {}
            !limit.allows(ip(second), now)
        };
        assert!(used_up("2001:db8::1", "2001:db8::ffff:0:0:2"));
        assert!(used_up("::ffff:10.0.0.1", "10.0.0.1"));
        // Two senders may share a slot by chance, one time in 1024.
        for (first, second) in [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8:0:1::1")] {
            assert!((0..3).any(|_| !used_up(first, second)), "{first} {second}");
        }
    }

    #[test]
    fn loopback_is_not_limited() {
        let now = Instant::now();
        let mut limit = Limit::new(now);
        for asker in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert!((0..10_000).all(|_| limit.allows(ip(asker), now)), "{asker}");
        }
    }

    #[test]
    fn any_number_of_askers_takes_the_same_memory() {
        let now = Instant::now();
        let mut limit = Limit::new(now);
        let allowed =
            (0..1_000_000).filter(|&n| limit.allows(IpAddr::V4((0x0a00_0000 + n).into()), now)).count();
        assert_eq!(limit.paid_until.len(), SLOTS);
        assert!(allowed <= SLOTS * BURST as usize, "{allowed}");
    }
}
