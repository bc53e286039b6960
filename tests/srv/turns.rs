//! Others on the runtime's thread, while clients ask without a pause.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream as Stream,
};

use crate::{
    Feed, many,
    support::{PATIENCE, dns::Greedy},
};

/// What a renewal needs of the runtime: to send something, and to be woken by the answer. Notes how long each took.
async fn renew(echo: SocketAddr, took: Arc<Mutex<Vec<Duration>>>) -> Infallible {
    let mut stream = Stream::connect(echo).await.unwrap();
    loop {
        let began = Instant::now();
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0; 1]).await.unwrap();
        took.lock().unwrap().push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn pipelining_clients_and_a_flood_leave_the_thread_to_others() {
    // It answers at once, on a thread of its own.
    let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        let stream = echo.accept().unwrap().0;
        std::io::copy(&mut &stream, &mut &stream)
    });
    let took = Arc::default();
    let feed =
        Feed::start_beside(Ipv4Addr::LOCALHOST.into(), Some(many(10_000)), renew(address, Arc::clone(&took)));
    let greedy = Greedy::start(feed.address, 8);
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    drop(greedy);
    assert!(began.elapsed() < PATIENCE);
    let mut took = took.lock().unwrap().clone();
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().expect("one answer at least");
    println!("{} turns, median {median:?}, longest {:?}", took.len(), took.last().unwrap());
    assert!(median < Duration::from_millis(50), "{median:?}, {} turns", took.len());
}
