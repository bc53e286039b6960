//! The lookout where etcd wants a login or a certificate: one key, read again and again.
//!
//! A key's create revision is etcd's own evidence: as long as it stays, the key was never missing,
//! not even between two reads.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use etcd_client::{Client, ConnectOptions, Error};
use tokio::time::{sleep, timeout};

use crate::support::{PATIENCE, eventually};

/// Between two reads.
const EVERY: Duration = Duration::from_millis(20);

/// How the key was from `from` until `to`, both of them moments at which it was seen so.
#[derive(Clone, Debug)]
pub struct Span {
    from: Instant,
    to: Instant,
    /// 0 while it is absent.
    created: i64,
    /// The lease it was attached to.
    pub lease: i64,
}

/// Reads one key, linearizably, through whatever happens to etcd and to logins.
pub struct Lookout {
    key: String,
    spans: Arc<Mutex<Vec<Span>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lookout {
    /// Begins, and waits for the first answer. `options` are asked for at every connect; the login
    /// is root's where etcd wants one.
    pub fn start(url: String, key: String, options: impl Fn() -> ConnectOptions + Send + 'static) -> Self {
        let (spans, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (into, until, name) = (Arc::clone(&spans), Arc::clone(&ended), key.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                while !until.load(Ordering::Relaxed) {
                    // An error means that etcd is away, or has forgotten our token.
                    let _ = read_on(&url, &name, options(), &into, &until).await;
                    sleep(EVERY).await;
                }
            });
        });
        let lookout = Self { key, spans, ended, thread: Some(thread) };
        lookout.spans();
        lookout
    }

    /// Over plain http.
    pub fn plain(url: String, key: String) -> Self {
        Self::start(url, key, ConnectOptions::new)
    }

    /// All that was seen, up to now.
    #[track_caller]
    pub fn spans(&self) -> Vec<Span> {
        let now = Instant::now();
        eventually("the lookout sees", PATIENCE, || {
            let spans = self.spans.lock().unwrap();
            match spans.last() {
                Some(last) if last.to > now => Ok(spans.clone()),
                last => Err(format!("{last:?}")),
            }
        })
    }

    /// The longest time that the key was missing after it had been there: from when that was seen
    /// until it was there again, or until now. Printed for the table of the faults.
    #[track_caller]
    pub fn worst_absence(&self, fault: &str) -> Duration {
        let spans = self.spans();
        let mut worst = Duration::ZERO;
        for (i, pair) in spans.windows(2).enumerate() {
            let (before, after) = (&pair[0], &pair[1]);
            worst = worst.max(match (before.created, after.created) {
                (0, _) => Duration::ZERO,
                (_, 0) => spans.get(i + 2).map_or(after.to, |back| back.from) - after.from,
                // Gone and back between two reads.
                (a, b) if a != b => after.from - before.to,
                _ => Duration::ZERO,
            });
        }
        println!("{fault}: worst absence {} ms", worst.as_millis());
        worst
    }

    /// Holds that the key has been there since the first look, under one lease.
    #[track_caller]
    pub fn never_missing(&self, fault: &str) {
        self.worst_absence(fault);
        let spans = self.spans();
        assert_eq!(spans.len(), 1, "{fault}: {} under one lease, never missing: {spans:#?}", self.key);
        assert_ne!(spans[0].created, 0, "{fault}: there is no {}", self.key);
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Reads until something goes wrong.
async fn read_on(
    url: &str,
    key: &str,
    options: ConnectOptions,
    into: &Mutex<Vec<Span>>,
    until: &AtomicBool,
) -> Result<(), Error> {
    let patience = Duration::from_secs(1);
    let options = options.with_connect_timeout(patience);
    let root = options.clone().with_user("root", "root");
    let mut client = match timeout(patience, Client::connect([url], Some(root))).await.map_err(late)? {
        Err(Error::GRpcStatus(status)) if status.message().contains("authentication is not enabled") => {
            Client::connect([url], Some(options)).await?
        }
        other => other?,
    };
    while !until.load(Ordering::Relaxed) {
        let answer = timeout(patience, client.get(key, None)).await.map_err(late)??;
        let now = Instant::now();
        let kv = answer.kvs().first();
        let (created, lease) = kv.map_or((0, 0), |kv| (kv.create_revision(), kv.lease()));
        {
            let mut spans = into.lock().unwrap();
            match spans.last_mut() {
                Some(last) if (last.created, last.lease) == (created, lease) => last.to = now,
                _ => spans.push(Span { from: now, to: now, created, lease }),
            }
        }
        sleep(EVERY).await;
    }
    Ok(())
}

fn late(_: tokio::time::error::Elapsed) -> Error {
    Error::IoError(std::io::ErrorKind::TimedOut.into())
}
