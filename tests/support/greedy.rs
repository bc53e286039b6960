//! Clients of SRV that ask without a pause.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::dns::{CRATE_DB_TCP, CRATE_DB_UDP};

/// The clients, until they are dropped.
pub struct Greedy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Greedy {
    /// So many over TCP, who do not wait for an answer before they ask again, and one over UDP.
    pub fn start(server: SocketAddr, pipelining: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..pipelining {
            let stream = TcpStream::connect(server).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let (mut writing, stopped) = (stream.try_clone().unwrap(), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                let queries = CRATE_DB_TCP.repeat(100);
                let mut at = 0;
                while !stopped.load(Ordering::Relaxed) {
                    at = (at + writing.write(&queries[at..]).unwrap_or(0)) % queries.len();
                }
            }));
            let (mut reading, stopped) = (stream, Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
                while !stopped.load(Ordering::Relaxed) {
                    bytes += reading.read(&mut buffer).unwrap_or(0);
                }
                assert!(bytes > 1_000_000, "answered {bytes} bytes only");
            }));
        }
        let stopped = Arc::clone(&stop);
        threads.push(std::thread::spawn(move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.connect(server).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                let _ = socket.send(CRATE_DB_UDP);
            }
        }));
        Self { stop, threads }
    }
}

impl Drop for Greedy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || std::thread::panicking(), "a client panicked");
        }
    }
}
