//! Names and their addresses, looked up beside whatever needs them and never in its way.
//!
//! A name service may take five seconds for an answer, or never give one. So each lookup has a
//! thread of its own, nobody has to wait for it, and an address that was once known stays known.

use std::{
    collections::HashMap,
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

use crate::{
    host::Host,
    text::{escape, plain},
};

/// How many addresses of a name count, the first ones.
const MOST: usize = 16;
/// An answer that is older is asked for anew.
const OLD: Duration = Duration::from_secs(60);
/// Between two lookups of a name whose addresses are known, at least.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two lookups of a name that has no address yet, at least: it may come up any moment, as
/// the name of a container does.
const PAUSE_WITHOUT: Duration = Duration::from_secs(2);

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Its first lookup goes on.
    #[error("the name {0} is still being looked up")]
    Pending(Host),
    /// The name service said no, or said nothing in its time. It is asked again.
    #[error("the name {0} cannot be looked up: {1}")]
    Failed(Host, String),
}

/// The addresses of names. A clone shares them, and the lookups.
///
/// It remembers every host that it was ever asked for: ask for those of the settings only.
#[derive(Clone)]
pub struct Names {
    shared: Arc<Shared>,
}

struct Shared {
    entries: Mutex<HashMap<Host, Entry>>,
    /// Told each time a lookup ends.
    ended: Notify,
    resolve: Box<dyn Fn(&str) -> Answer + Send + Sync>,
}

/// What a lookup gives.
type Answer = io::Result<Vec<SocketAddr>>;

/// What is known of one name.
#[derive(Debug, Default)]
struct Entry {
    /// The last answer that held an address, with port 0.
    addresses: Vec<SocketAddr>,
    /// When it came.
    answered: Option<Instant>,
    /// Why the last lookup gave nothing.
    failure: Option<String>,
    /// A lookup goes on.
    running: bool,
    /// When the last lookup ended.
    ended: Option<Instant>,
    /// Nothing good was met at these addresses.
    doubted: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Names").field(&*self.shared.entries()).finish()
    }
}

impl Names {
    /// Names that are looked up as the system does it (getaddrinfo(3)).
    pub fn new() -> Self {
        Self::looked_up_by(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn looked_up_by(resolve: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let (entries, ended) = (Mutex::default(), Notify::new());
        Self { shared: Arc::new(Shared { entries, ended, resolve: Box::new(resolve) }) }
    }

    /// The addresses of `host` as they are known now, at least one and at most 16, each with `port`.
    /// Never waits: where it is time for a lookup, one begins beside this. A literal needs none.
    ///
    /// What is known stays known: no lookup that fails or finds nothing takes an address away.
    ///
    /// # Errors
    /// [`Unknown`] while there was no answer yet that held an address; worth asking again.
    pub fn get(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, Unknown> {
        self.get_at(host, port, Instant::now()).0
    }

    /// Gives besides whether a lookup goes on.
    fn get_at(&self, host: &Host, port: u16, now: Instant) -> (Result<Vec<SocketAddr>, Unknown>, bool) {
        if let Some(ip) = host.ip() {
            return (Ok(vec![SocketAddr::new(ip, port)]), false);
        }
        let mut entries = self.shared.entries();
        let entry = entries.entry(host.clone()).or_default();
        if entry.is_due(now) {
            (entry.running, entry.doubted) = (true, false);
            let (shared, name) = (Arc::clone(&self.shared), host.clone());
            // Tokio's own lookup panics where no thread can start; this is an error.
            let started = thread::Builder::new().name("lookup".to_owned()).spawn(move || {
                let answer = (shared.resolve)(name.as_str());
                shared.entries().entry(name).or_default().take(answer, Instant::now());
                shared.ended.notify_waiters();
            });
            if let Err(error) = started {
                let error =
                    io::Error::other(format!("no thread can be started: {}", plain(&error.to_string())));
                entry.take(Err(error), now);
            }
        }
        let known = match (&entry.addresses, &entry.failure) {
            (known, _) if !known.is_empty() => {
                let with_port = |mut address: SocketAddr| {
                    address.set_port(port);
                    address
                };
                Ok(known.iter().copied().map(with_port).collect())
            }
            (_, Some(failure)) => Err(Unknown::Failed(host.clone(), failure.clone())),
            (_, None) => Err(Unknown::Pending(host.clone())),
        };
        (known, entry.running)
    }

    /// As [`Names::get`]; where no address is known, waits for the lookup that goes on to end. The
    /// caller bounds the time: the system does it, but glibc's resolver alone allows itself ten
    /// seconds. Safe to drop; the lookup goes on.
    ///
    /// # Errors
    /// [`Unknown::Failed`].
    pub async fn wait(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, Unknown> {
        loop {
            let ended = self.shared.ended.notified();
            match self.get_at(host, port, Instant::now()) {
                (Err(_), true) => ended.await,
                (known, _) => return known,
            }
        }
    }

    /// Whether `host` resolves to loopback addresses only, as Debian's own name does (127.0.1.1):
    /// peers that are told to connect there would find themselves.
    ///
    /// `false` where it does not resolve within `limit`. Safe to drop.
    pub async fn is_loopback_only(&self, host: &Host, limit: Duration) -> bool {
        match timeout(limit, self.wait(host, 0)).await {
            Ok(Ok(addresses)) => addresses.iter().all(|address| address.ip().is_loopback()),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Takes in that nothing good was met at the addresses of `host`: the name may have moved, and is
    /// looked up again at the next [`Names::get`], every 5 s at most.
    pub fn doubt(&self, host: &Host) {
        if let Some(entry) = self.shared.entries().get_mut(host) {
            entry.doubted = true;
        }
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, HashMap<Host, Entry>> {
        // Nobody panics while holding it, and each entry is whole at any time.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Whether it is time for a lookup.
    fn is_due(&self, now: Instant) -> bool {
        let since = |then: Option<Instant>| then.map(|then| now.saturating_duration_since(then));
        let rested = |pause| since(self.ended).is_none_or(|rested| rested >= pause);
        match since(self.answered) {
            _ if self.running => false,
            None => rested(PAUSE_WITHOUT),
            Some(age) => rested(PAUSE) && (self.doubted || age >= OLD),
        }
    }

    /// Takes in what a lookup gave.
    fn take(&mut self, answer: Answer, now: Instant) {
        (self.running, self.ended) = (false, Some(now));
        self.failure = match answer {
            Ok(answer) if !answer.is_empty() => {
                self.addresses.clear();
                for address in answer {
                    if self.addresses.len() < MOST && !self.addresses.contains(&address) {
                        self.addresses.push(address);
                    }
                }
                self.answered = Some(now);
                None
            }
            Ok(_) => Some("it has no address".to_owned()),
            Err(error) => {
                let error = error.to_string();
                // As std's getaddrinfo begins each of its errors.
                let reason = error.strip_prefix("failed to lookup address information: ").unwrap_or(&error);
                Some(escape(plain(reason).as_bytes()))
            }
        };
    }
}

#[cfg(test)]
mod tests;
