//! The gate: whether the node can be joined, judged by probes with rise and fall.

use std::{convert::Infallible, fmt, io, str::FromStr, sync::Arc, time::Duration};

use http::Uri;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tracing::{info, warn};

use super::any_certificate;
use crate::{host::Host, text::plain_io};

/// What is probed, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// All of them must pass; without any the gate is always open.
    pub checks: Vec<Check>,
    /// From the start of one probe to the start of the next.
    pub interval: Duration,
    /// Longest time for one check.
    pub timeout: Duration,
    /// Good probes in a row that open the gate; at least 1.
    pub rise: u32,
    /// Bad probes in a row that close it; at least 1.
    pub fall: u32,
}

/// One check: `tcp://host:port` connects; `http://` and `https://` want any bytes of an answer.
///
/// A status is not judged: a CrateDB node answers 503 until a master is elected, and waiting for
/// 200 would keep a new cluster from ever forming. Certificates are not judged either: nothing
/// secret is sent, and what is asked is only whether the node is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    url: String,
    kind: Kind,
    host: Host,
    port: u16,
    path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
    Https,
}

impl FromStr for Check {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        const ALLOWED: &str =
            "allowed is tcp://host:port, http://host[:port][/path] or https://host[:port][/path]";
        if url.contains('@') {
            return Err(format!("a check holds a user name: {ALLOWED}"));
        }
        let wrong = |why: &str| format!("check {url:?} {why}: {ALLOWED}");
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        let (kind, default_port) = match uri.scheme_str() {
            Some("tcp") => (Kind::Tcp, None),
            Some("http") => (Kind::Http, Some(80)),
            Some("https") => (Kind::Https, Some(443)),
            Some(_) => return Err(wrong("has another scheme")),
            None => return Err(wrong("has no scheme")),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let host = host.parse().map_err(|_| wrong("has no valid host"))?;
        // `Uri::port` is also none for a port that is no number; the authority tells them apart.
        let named = uri.authority().is_some_and(|a| a.as_str().len() > uri.host().unwrap_or_default().len());
        let port = if named { uri.port_u16() } else { default_port };
        let port = port.filter(|port| *port != 0).ok_or_else(|| wrong("has no valid port"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if kind == Kind::Tcp && path != "/" && !path.is_empty() {
            return Err(wrong("has a path"));
        }
        Ok(Self { url: url.to_owned(), kind, host, port, path: path.to_owned() })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Check {
    /// Whether it is one of HTTP, which can tell more than that the node is alive.
    pub fn is_http(&self) -> bool {
        self.kind != Kind::Tcp
    }

    /// Whether the answer is 200, which is how a CrateDB node says that a master is elected. The
    /// caller bounds the time. Safe to drop.
    pub(crate) async fn answers_200(&self) -> bool {
        // "HTTP/1.1 200"
        let head = self.probe(12).await.unwrap_or_default();
        head.starts_with(b"HTTP/1.") && head.get(8..12) == Some(b" 200")
    }

    /// The beginning of the answer, `wanted` bytes at least where that many come; nothing where an
    /// answer cannot be had, and is good all the same.
    async fn probe(&self, wanted: usize) -> io::Result<Vec<u8>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match self.kind {
            Kind::Tcp => Ok(Vec::new()),
            Kind::Http => self.ask(stream, wanted).await,
            Kind::Https => {
                let connector = TlsConnector::from(Arc::new(any_certificate::config()?));
                let name = ServerName::try_from(self.host.as_str().to_owned())
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
                let asked = match connector.connect(name, stream).await {
                    Ok(stream) => self.ask(stream, wanted).await,
                    Err(error) => return alert_is_an_answer(error),
                };
                // In TLS 1.3 a peer that wants a certificate of ours says so, and closes, only now.
                asked.or_else(alert_is_an_answer)
            }
        }
    }

    async fn ask(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        wanted: usize,
    ) -> io::Result<Vec<u8>> {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: crate-discovery\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
            self.path,
            self.host.with_port(self.port),
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::with_capacity(wanted);
        while head.len() < wanted && stream.read_buf(&mut head).await? > 0 {}
        if head.is_empty() { Err(io::Error::other("closed without an answer")) } else { Ok(head) }
    }
}

/// Whoever speaks TLS, if only to refuse us, is alive.
fn alert_is_an_answer(error: io::Error) -> io::Result<Vec<u8>> {
    match error.kind() {
        io::ErrorKind::InvalidData => Ok(Vec::new()),
        _ => Err(error),
    }
}

/// What the gate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The node can be joined.
    Open,
    /// It cannot, because of this; nothing before the first probe.
    Closed(Option<String>),
}

impl Verdict {
    /// Before the first probe: open only where nothing is probed.
    pub fn at_first(settings: &Settings) -> Self {
        if settings.checks.is_empty() { Self::Open } else { Self::Closed(None) }
    }

    /// Whether the node can be joined.
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

/// Counts good and bad probes in a row.
#[derive(Clone, Debug)]
struct Counter {
    open: bool,
    contrary: u32,
    rise: u32,
    fall: u32,
}

impl Counter {
    /// Takes in a probe. Gives whether the gate moved.
    fn take(&mut self, good: bool) -> bool {
        if good == self.open {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        let enough = if good { self.rise } else { self.fall };
        if self.contrary < enough {
            return false;
        }
        self.open = good;
        self.contrary = 0;
        true
    }
}

/// Probes for ever and publishes, on change only, what the gate says. `gate` holds
/// [`Verdict::at_first`]. Safe to drop.
pub async fn run(settings: Settings, gate: watch::Sender<Verdict>) -> Infallible {
    if settings.checks.is_empty() {
        return std::future::pending().await;
    }
    let mut counter =
        Counter { open: gate.borrow().is_open(), contrary: 0, rise: settings.rise, fall: settings.fall };
    let mut ticks = interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        ticks.tick().await;
        let probed = probe_all(&settings).await;
        if counter.take(probed.is_ok()) {
            match &probed {
                Ok(()) => info!("gate opened"),
                Err(reason) => warn!(reason, "gate closed"),
            }
        } else if let (Err(reason), false, false) = (&probed, counter.open, said) {
            // Whoever wonders at night why nothing is announced finds the reason in the log.
            info!(reason, "waiting for the node");
            said = true;
        }
        let verdict = if counter.open { Verdict::Open } else { Verdict::Closed(probed.err()) };
        gate.send_if_modified(|last| {
            let changed = *last != verdict;
            *last = verdict;
            changed
        });
    }
}

async fn probe_all(settings: &Settings) -> Result<(), String> {
    for check in &settings.checks {
        match timeout(settings.timeout, check.probe(1)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(format!("{check}: {}", plain_io(&error))),
            Err(_) => return Err(format!("{check}: no answer in time")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gate_moves_after_rise_and_fall_in_a_row() {
        let mut counter = Counter { open: false, contrary: 0, rise: 2, fall: 3 };
        let moves: Vec<bool> = [true, false, true, true, false, false, true, false, false, false]
            .map(|good| counter.take(good))
            .into();
        assert_eq!(moves, [false, false, false, true, false, false, false, false, false, true]);
        assert!(!counter.open);
    }

    #[test]
    fn check_urls_name_what_is_probed() {
        let check: Check = "http://[::1]/a?b".parse().unwrap();
        assert_eq!((check.host.as_str(), check.port, check.path.as_str()), ("::1", 80, "/a?b"));
        assert_eq!("https://crate1".parse::<Check>().unwrap().port, 443);
        assert_eq!("tcp://127.0.0.1:4300".parse::<Check>().unwrap().kind, Kind::Tcp);
        for bad in [
            "",
            "4300",
            "127.0.0.1:4300",
            "tcp://a",
            "tcp://a:0",
            "tcp://a:99999",
            "http://a:99999/",
            "http://:80",
            "http://a:x",
            "udp://a:1",
            "tcp://a:1/x",
            "http://u:p@a/",
            "http://a b/",
            "http://a/\r\nX: y",
        ] {
            assert!(bad.parse::<Check>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_has_a_host_and_makes_one_request_line(text in "(tcp|http|https)?(://)?.{0,60}") {
            if let Ok(check) = text.parse::<Check>() {
                prop_assert!(check.port > 0 && !check.host.as_str().is_empty());
                prop_assert!(!check.path.contains(char::is_control) && !check.path.contains(' '));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gate_without_checks_stays_as_it_is() {
        let settings = Settings {
            checks: vec![],
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 3,
        };
        let (sender, receiver) = watch::channel(Verdict::at_first(&settings));
        assert!(timeout(Duration::from_secs(3600), run(settings, sender)).await.is_err());
        assert!(receiver.borrow().is_open());
    }
}
