//! Looks up the addresses of names, while the rest of the program goes on.
//!
//! A name service may take five seconds for an answer, or never answer. So each lookup has a thread of its own, no
//! caller has to wait for it, and an address that was known once stays known.

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

/// How many addresses of a name are used: the first ones of the answer.
const MOST: usize = 16;
/// An answer that is older than this is looked up again.
const OLD: Duration = Duration::from_secs(60);
/// The shortest time between two lookups of a name with known addresses.
const PAUSE: Duration = Duration::from_secs(5);
/// The shortest time between two lookups of a name without an address. It is short, because such a name may appear at
/// any moment, for example that of a container.
const PAUSE_WITHOUT: Duration = Duration::from_secs(2);

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The first lookup has not ended yet.
    #[error("the name {0} is still being looked up")]
    Pending(Host),
    /// The name service gave an error, or no answer in its time. The name is looked up again later.
    #[error("the name {0} cannot be looked up: {1}")]
    Failed(Host, String),
}

/// The addresses of names. Clones share them, and the lookups.
///
/// Every host that was asked for is remembered, so ask only for hosts from the settings.
#[derive(Clone)]
pub struct Names {
    shared: Arc<Shared>,
}

struct Shared {
    entries: Mutex<HashMap<Host, Entry>>,
    /// Notified each time a lookup ends.
    ended: Notify,
    resolve: Box<dyn Fn(&str) -> Answer + Send + Sync>,
}

/// The result of a lookup.
type Answer = io::Result<Vec<SocketAddr>>;

/// What is known about one name.
#[derive(Debug, Default)]
struct Entry {
    /// The addresses of the last answer that had any, with port 0.
    addresses: Vec<SocketAddr>,
    /// When that answer came.
    answered: Option<Instant>,
    /// Why the last lookup gave no address.
    failure: Option<String>,
    /// Whether a lookup is running.
    running: bool,
    /// When the last lookup ended.
    ended: Option<Instant>,
    /// Whether a user of these addresses reported that they do not work.
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
    /// Looks names up as the system does (getaddrinfo(3)).
    pub fn new() -> Self {
        Self::looked_up_by(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn looked_up_by(resolve: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let (entries, ended) = (Mutex::default(), Notify::new());
        Self { shared: Arc::new(Shared { entries, ended, resolve: Box::new(resolve) }) }
    }

    /// The known addresses of `host`, each with `port`: at least one, and at most 16. It never waits. If it is time for
    /// a lookup, one is started on its own thread. An IP address needs no lookup.
    ///
    /// A known address stays known: a lookup that fails or finds nothing does not remove it.
    ///
    /// # Errors
    /// [`Unknown`] as long as no answer had an address. Ask again later.
    pub fn get(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, Unknown> {
        self.get_at(host, port, Instant::now()).0
    }

    /// As [`Names::get`], with the present time as an argument. The second value tells whether a lookup is running.
    fn get_at(&self, host: &Host, port: u16, now: Instant) -> (Result<Vec<SocketAddr>, Unknown>, bool) {
        if let Some(ip) = host.ip() {
            return (Ok(vec![SocketAddr::new(ip, port)]), false);
        }
        let mut entries = self.shared.entries();
        let entry = entries.entry(host.clone()).or_default();
        if entry.is_due(now) {
            (entry.running, entry.doubted) = (true, false);
            let (shared, name) = (Arc::clone(&self.shared), host.clone());
            // Tokio's own lookup panics if no thread can be started. Here that is an error.
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

    /// As [`Names::get`], but if no address is known, it waits until the running lookup ends. The caller limits the
    /// time: the system has limits of its own, but glibc's resolver alone may take ten seconds. Safe to drop; the
    /// lookup goes on.
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

    /// Whether `host` resolves to loopback addresses only, as the name of the host itself does on Debian (127.0.1.1).
    /// Peers that connect to it would reach themselves.
    ///
    /// `false` if it does not resolve within `limit`. Safe to drop.
    pub async fn is_loopback_only(&self, host: &Host, limit: Duration) -> bool {
        match timeout(limit, self.wait(host, 0)).await {
            Ok(Ok(addresses)) => addresses.iter().all(|address| address.ip().is_loopback()),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Notes that the addresses of `host` do not work. The name may have another address now, so the next
    /// [`Names::get`] looks it up again, at most every 5 s.
    pub fn doubt(&self, host: &Host) {
        if let Some(entry) = self.shared.entries().get_mut(host) {
            entry.doubted = true;
        }
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, HashMap<Host, Entry>> {
        // Nobody panics while holding the lock, and each entry is complete at any time.
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

    /// Takes in the result of a lookup.
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
                // The errors of getaddrinfo in std begin like this.
                let reason = error.strip_prefix("failed to lookup address information: ").unwrap_or(&error);
                Some(escape(plain(reason).as_bytes()))
            }
        };
    }
}

#[cfg(test)]
mod tests;
