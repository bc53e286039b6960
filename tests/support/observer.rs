//! The outside witness: everything that ever happened in an etcd, as its own history tells it.

use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use etcd_client::{Client, ConnectOptions, EventType, PutOptions, TxnOp, WatchOptions};
use tokio::{runtime::Runtime, sync::oneshot, time::timeout};

use super::{PATIENCE, etcd::Etcd, eventually};

/// Where [`Observer::sync`] writes: outside of every prefix that a test looks at.
const MARKER: &str = "/the-observer-was-here";

/// A PUT or a DELETE of one key.
#[derive(Clone, Debug)]
pub struct Event {
    /// When we heard of it.
    pub at: Instant,
    /// The same on the wall clock, for comparison with somebody else's log.
    pub on_clock: SystemTime,
    /// Whether it is a PUT; a lease that ends deletes.
    pub put: bool,
    /// The key.
    pub key: String,
    /// The value; empty for a DELETE.
    pub value: String,
    /// The lease; 0 for none and for a DELETE.
    pub lease: i64,
    /// The revision it happened at.
    pub revision: i64,
}

/// Watches all keys of one etcd from its first revision, through restarts of that etcd.
///
/// May be started late: the past is in the history. After a wipe that history is another one; start
/// another observer then.
pub struct Observer {
    events: Arc<Mutex<Vec<Event>>>,
    raw: Mutex<Raw>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Begins to watch.
    pub fn start(etcd: &Etcd) -> Self {
        Self::at(etcd.url())
    }

    /// As [`Observer::start`], for an etcd that is not ours to start, at its URL.
    pub fn at(url: String) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (raw, into) = (Mutex::new(Raw::at(&url)), Arc::clone(&events));
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                tokio::select! {
                    () = watch(&url, &into) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { events, raw, stop: Some(stop), thread: Some(thread) }
    }

    /// What has been heard of `key` so far.
    pub fn heard(&self, key: &str) -> Vec<Event> {
        self.events.lock().unwrap().iter().filter(|event| event.key == key).cloned().collect()
    }

    /// What has been heard so far of all keys that begin with `prefix`.
    pub fn heard_under(&self, prefix: &str) -> Vec<Event> {
        self.events.lock().unwrap().iter().filter(|event| event.key.starts_with(prefix)).cloned().collect()
    }

    /// What has happened to `key` up to now: waits until the watch has caught up with etcd.
    #[track_caller]
    pub fn history(&self, key: &str) -> Vec<Event> {
        let mark = self.raw.lock().unwrap().put(MARKER.as_bytes(), b"");
        eventually("the observer catches up", PATIENCE, || {
            let seen = self.heard(MARKER).last().map(|event| event.revision);
            if seen >= Some(mark) { Ok(()) } else { Err(format!("revision {seen:?}, not {mark}")) }
        });
        self.heard(key)
    }

    /// Waits for the first event of `key` after revision `after` that `wanted` accepts.
    #[track_caller]
    pub fn next(&self, key: &str, after: i64, within: Duration, wanted: impl Fn(&Event) -> bool) -> Event {
        eventually(&format!("an event of {key} after revision {after}"), within, || {
            let heard = self.heard(key);
            let found = heard.iter().find(|event| event.revision > after && wanted(event)).cloned();
            found.ok_or_else(|| format!("{heard:#?}"))
        })
    }

    /// Waits for the first PUT of `key` after revision `after`.
    #[track_caller]
    pub fn next_put(&self, key: &str, after: i64, within: Duration) -> Event {
        self.next(key, after, within, |event| event.put)
    }

    /// Waits for the first DELETE of `key` after revision `after`.
    #[track_caller]
    pub fn next_delete(&self, key: &str, after: i64, within: Duration) -> Event {
        self.next(key, after, within, |event| !event.put)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // The receiver is gone only when the thread is.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Records events for ever. Whatever goes wrong, goes on after the last revision recorded.
async fn watch(url: &str, into: &Mutex<Vec<Event>>) {
    let mut from = 1;
    loop {
        // An error means that etcd is away: a test does that on purpose.
        let _ = watch_once(url, into, &mut from).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn watch_once(url: &str, into: &Mutex<Vec<Event>>, from: &mut i64) -> Result<(), etcd_client::Error> {
    let client = Client::connect([url], Some(options())).await?;
    let options = WatchOptions::new().with_all_keys().with_start_revision(*from);
    let mut stream =
        client.watch_client().max_decoding_message_size(1 << 28).watch("", Some(options)).await?;
    while let Some(message) = stream.message().await? {
        assert!(!message.canceled(), "the observer was refused: {}", message.cancel_reason());
        let (at, on_clock) = (Instant::now(), SystemTime::now());
        let mut events = into.lock().unwrap();
        for event in message.events() {
            let kv = event.kv().expect("an event has a key");
            *from = kv.mod_revision() + 1;
            events.push(Event {
                at,
                on_clock,
                put: event.event_type() == EventType::Put,
                key: String::from_utf8_lossy(kv.key()).into_owned(),
                value: String::from_utf8_lossy(kv.value()).into_owned(),
                lease: kv.lease(),
                revision: kv.mod_revision(),
            });
        }
    }
    Ok(())
}

/// A raw client for tests that want many keys, or keys that no command line can carry.
pub struct Raw {
    runtime: Runtime,
    client: Client,
}

impl Raw {
    /// Connects without TLS or login.
    pub fn connect(etcd: &Etcd) -> Self {
        Self::at(&etcd.url())
    }

    fn at(url: &str) -> Self {
        let runtime = runtime();
        let client = runtime.block_on(Client::connect([url], Some(options()))).unwrap();
        Self { runtime, client }
    }

    /// Puts a key without a lease; the revision it got. Retried while etcd is just coming back.
    #[track_caller]
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> i64 {
        let (runtime, client) = (&self.runtime, &mut self.client);
        eventually("a raw put", PATIENCE, || {
            let put = client.put(key, value, None);
            match runtime.block_on(async { timeout(Duration::from_secs(3), put).await }) {
                Ok(Ok(done)) => Ok(done.header().expect("an answer has a header").revision()),
                other => Err(format!("{other:?}")),
            }
        })
    }

    /// Deletes a key. Retried while etcd is just coming back.
    #[track_caller]
    pub fn delete(&mut self, key: &[u8]) {
        let (runtime, client) = (&self.runtime, &mut self.client);
        eventually("a raw delete", PATIENCE, || {
            let delete = client.delete(key, None);
            match runtime.block_on(async { timeout(Duration::from_secs(3), delete).await }) {
                Ok(Ok(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Puts many small keys without leases, a hundred a transaction.
    #[track_caller]
    pub fn put_all(&mut self, pairs: impl IntoIterator<Item = (String, String)>) {
        self.put_all_under(0, pairs);
    }

    /// As [`Raw::put_all`], under a lease.
    #[track_caller]
    pub fn put_all_under(&mut self, lease: i64, pairs: impl IntoIterator<Item = (String, String)>) {
        let options = PutOptions::new().with_lease(lease);
        let put = |(key, value): (String, String)| TxnOp::put(key, value, Some(options.clone()));
        let puts: Vec<TxnOp> = pairs.into_iter().map(put).collect();
        for some in puts.chunks(100) {
            let txn = self.client.txn(etcd_client::Txn::new().and_then(some));
            self.runtime.block_on(async { timeout(PATIENCE, txn).await }).expect("etcd answers").unwrap();
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn options() -> ConnectOptions {
    ConnectOptions::new().with_connect_timeout(Duration::from_secs(1))
}
