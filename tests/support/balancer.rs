//! A balancer of layer 7 in front of one port: it ends HTTP/2 itself, and asks in its turn.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use h2::{RecvStream, SendStream, client, server};
use http::{Request, Response};
use tokio::{
    net::TcpStream,
    runtime::Builder,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::free_port;

/// What it does besides.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Resets a stream on which nothing came from either side for so long.
    pub idle_limit: Duration,
    /// What of a watch's messages goes nowhere, after its confirmation.
    pub withholds: Withheld,
}

/// What is withheld of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// Nothing.
    Nothing,
    /// What holds an event; answers to requests for progress come through.
    Events,
    /// All of it.
    Everything,
}

/// A message of a watch without an event: five bytes of frame, and a header with an id and revisions.
const WITHOUT_EVENT: usize = 5 + 48;

/// It lives as long as this value.
pub struct Balancer {
    port: u16,
    /// Streams that were reset for being idle.
    reset: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Balancer {
    /// Listens on a free port of loopback, in front of `target` of loopback.
    pub fn start(target: u16, manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let reset = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reset);
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serving = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(connection(stream, target, manner, Arc::clone(&count)));
                    }
                };
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port, reset, stop: Some(stop), thread: Some(thread) }
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many streams were reset for being idle.
    pub fn reset(&self) -> usize {
        self.reset.load(Ordering::Relaxed)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Whoever goes first ends it: an error here is the other side's business.
async fn connection(stream: TcpStream, target: u16, manner: Manner, reset: Arc<AtomicUsize>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut from = server::handshake(stream).await.ok()?;
    let to = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, target))).await.ok()?;
    to.set_nodelay(true).ok()?;
    let (requests, connection) = client::handshake(to).await.ok()?;
    tokio::spawn(connection);
    while let Some(Ok((request, respond))) = from.accept().await {
        let (requests, reset) = (requests.clone(), Arc::clone(&reset));
        tokio::spawn(forward(request, respond, requests, manner, reset));
    }
    None
}

async fn forward(
    request: Request<RecvStream>,
    mut respond: server::SendResponse<bytes::Bytes>,
    requests: client::SendRequest<bytes::Bytes>,
    manner: Manner,
    reset: Arc<AtomicUsize>,
) -> Option<()> {
    let is_watch = request.uri().path() == "/etcdserverpb.Watch/Watch";
    let withheld = if is_watch { manner.withholds } else { Withheld::Nothing };
    let (parts, asked) = request.into_parts();
    let (answer, to_etcd) =
        requests.ready().await.ok()?.send_request(Request::from_parts(parts, ()), false).ok()?;
    let (alive, mut signs) = mpsc::unbounded_channel();
    let upwards = tokio::spawn(pump(asked, to_etcd, alive.clone(), Withheld::Nothing));
    let answered = async {
        let (parts, told) = answer.await.ok()?.into_parts();
        let to_client = respond.send_response(Response::from_parts(parts, ()), false).ok()?;
        pump(told, to_client, alive, withheld).await
    };
    let idle = async { while let Ok(Some(())) = timeout(manner.idle_limit, signs.recv()).await {} };
    tokio::select! {
        ended = answered => {
            upwards.abort();
            return ended;
        }
        () = idle => {}
    }
    reset.fetch_add(1, Ordering::Relaxed);
    upwards.abort();
    respond.send_reset(h2::Reason::CANCEL);
    None
}

/// Passes on all that comes but for what is withheld.
async fn pump(
    mut from: RecvStream,
    mut to: SendStream<bytes::Bytes>,
    alive: mpsc::UnboundedSender<()>,
    withheld: Withheld,
) -> Option<()> {
    let mut confirmed = false;
    while let Some(piece) = from.data().await {
        let piece = piece.ok()?;
        let _ = from.flow_control().release_capacity(piece.len());
        let _ = alive.send(());
        let passes = match withheld {
            Withheld::Nothing => true,
            Withheld::Events => piece.len() <= WITHOUT_EVENT,
            Withheld::Everything => !confirmed,
        };
        confirmed = true;
        if passes {
            to.send_data(piece, false).ok()?;
        }
    }
    match from.trailers().await.ok()? {
        Some(trailers) => to.send_trailers(trailers).ok(),
        None => to.send_data(bytes::Bytes::new(), true).ok(),
    }
}
