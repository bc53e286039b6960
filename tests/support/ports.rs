//! Ports of loopback that nobody else has, nor gets: not another test of this process, nor another process of tests.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

use rustix::fs::{FlockOperation, flock};

use super::{PATIENCE, eventually};

/// Below the range that the kernel gives to outgoing connections: a client that goes on knocking while etcd is down could
/// be given the very port, and even connect to itself.
const FIRST: u16 = 10_000;
/// So many ports belong to one process of tests; the largest one, `faults`, asks for about a thousand.
const EACH: u16 = 2000;
/// So many processes of tests may run on a machine.
const BLOCKS: u16 = 11;

/// The ports of this process.
struct Block {
    first: u16,
    /// The next one to be given, counted from the first. It begins anywhere: the process before us may have used the first
    /// ones, and connections that are over are remembered for a minute.
    next: AtomicU16,
    /// Locked for as long as we run.
    _lock: File,
}

impl Block {
    fn take() -> Self {
        eventually("a block of ports is free", PATIENCE, || {
            (0..BLOCKS)
                .find_map(|block| {
                    let path = Path::new("/tmp").join(format!("crate-discovery-test-ports.{block}"));
                    let lock = File::create(path).ok()?;
                    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
                    Some(Self {
                        first: FIRST + block * EACH,
                        next: AtomicU16::new(fastrand::u16(..EACH)),
                        _lock: lock,
                    })
                })
                .ok_or_else(|| format!("{BLOCKS} processes of tests have one each"))
        })
    }
}

/// A free port of loopback. Each is given once, until all of the block have been given: some time goes by before it is
/// listened at, and nobody else may be given it meanwhile.
pub fn free_port() -> u16 {
    static OURS: LazyLock<Block> = LazyLock::new(Block::take);
    (0..EACH)
        .map(|_| OURS.first + OURS.next.fetch_add(1, Ordering::Relaxed) % EACH)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .unwrap_or_else(|| panic!("no free loopback port from {} to {}", OURS.first, OURS.first + EACH - 1))
}
