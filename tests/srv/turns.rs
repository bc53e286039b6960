//! Others on the runtime's thread, while clients ask without a pause.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream as Stream,
    time::sleep,
};

use crate::{Feed, many, support::greedy::Greedy};

/// What a renewal needs of the runtime: to be woken by the clock, to send something, and to be woken by the answer.
/// Counts how often that was done.
async fn renew(echo: SocketAddr, times: Arc<AtomicUsize>) -> Infallible {
    let mut stream = Stream::connect(echo).await.unwrap();
    loop {
        sleep(Duration::from_millis(1)).await;
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0; 1]).await.unwrap();
        times.fetch_add(1, Ordering::Relaxed);
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
    let times = Arc::default();
    let feed = Feed::start_beside(
        Ipv4Addr::LOCALHOST.into(),
        Some(many(10_000)),
        renew(address, Arc::clone(&times)),
    );
    let greedy = Greedy::start(feed.address, 8);
    std::thread::sleep(Duration::from_secs(3));
    let times = times.load(Ordering::Relaxed);
    drop(greedy);
    println!("{times} times in 3 s");
    // A turn of 20 ms. With a walk over all hosts for each answer it is 190 ms.
    assert!(times >= 150, "only {times} times in 3 s");
}
