//! Runs one check of the node, within its time.

use std::{cell::OnceCell, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    join,
    net::TcpStream,
    select,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{self, AlertDescription, pki_types::ServerName},
};
use tracing::warn;

use super::{
    Told, any_certificate, authorization,
    check::{Check, Kind},
    cratedb,
    news::News,
};
use crate::{
    credentials::Secret,
    names::Names,
    text::{escape, plain_io},
};

/// After this time, the next address of a name is tried, while the tries before go on. It is shorter if the check has
/// little time.
const STAGGER: Duration = Duration::from_millis(100);
/// How long the node may take to close a connection after its answer.
const LINGER: Duration = Duration::from_millis(100);

const CLOSED: &str = "closed without an answer";
const NO_ANSWER: &str = "no answer in time";

/// Runs checks, one at a time.
#[derive(Debug)]
pub(super) struct Prober {
    names: Names,
    limit: Duration,
    cluster: Option<String>,
    credentials: Option<authorization::Reader>,
    locked: News,
    tls: TlsSettings,
}

impl Prober {
    /// `limit` is the longest time of one check. If `cluster` is set, a node of another cluster is bad.
    pub(super) fn new(
        names: Names,
        limit: Duration,
        cluster: Option<String>,
        credentials: Option<authorization::Credentials>,
    ) -> Self {
        let credentials = credentials.map(authorization::Reader::new);
        Self { names, limit, cluster, credentials, locked: News::new(), tls: TlsSettings::default() }
    }

    /// Runs one check. Returns what the node told. That is [`Told::Nothing`] for a good check that does not ask CrateDB
    /// itself.
    ///
    /// # Errors
    /// Why the probe is bad, in plain words. Safe to drop.
    pub(super) async fn probe(&mut self, check: &Check) -> Result<Told, String> {
        // The lookup has a time of its own, and takes none from the check. If it needs longer, it goes on during the
        // next probes.
        let known = match timeout(self.limit, self.names.wait(&check.host, check.port)).await {
            Ok(known) => known,
            Err(_) => self.names.get(&check.host, check.port),
        };
        let addresses = known.map_err(|unknown| unknown.to_string())?;
        let probed = self.probe_at(check, addresses).await;
        if probed.is_err() {
            self.names.doubt(&check.host);
        }
        probed
    }

    async fn probe_at(&mut self, check: &Check, addresses: Vec<SocketAddr>) -> Result<Told, String> {
        let deadline = Instant::now() + self.limit;
        // The password is read while we connect, and in half of the time, so that there is time for the answer.
        let authorization = async {
            match &mut self.credentials {
                Some(credentials) if check.asks_cratedb() => credentials.authorization(self.limit / 2).await,
                _ => None,
            }
        };
        let (connected, authorization) = join!(connect(addresses, deadline), authorization);
        let mut stream = connected?;
        match check.kind {
            Kind::Tcp => Ok(Told::Nothing),
            Kind::Http => is_alive(&mut stream, check, deadline).await,
            Kind::Https => {
                let mut stream = match self.tls.connect(check, stream, deadline).await {
                    Ok(stream) => stream,
                    Err(error) => return alert_is_an_answer(error).map_err(|error| reason_of(&error)),
                };
                is_alive(&mut stream, check, deadline).await
            }
            Kind::CrateDb => {
                let told = ask_cratedb(&mut stream, check, authorization.as_ref(), deadline).await?;
                self.judge(told, authorization.is_some())
            }
            Kind::CrateDbOverTls => {
                let stream = self.tls.connect(check, stream, deadline).await;
                let mut stream = stream.map_err(|error| tls_reason(&error))?;
                let told = ask_cratedb(&mut stream, check, authorization.as_ref(), deadline).await?;
                self.judge(told, authorization.is_some())
            }
        }
    }

    /// What a CrateDB told, if it belongs to our cluster, as far as that is known.
    fn judge(&mut self, told: Told, authorized: bool) -> Result<Told, String> {
        match (&told, &self.credentials) {
            (Told::Known(node), _) => {
                self.locked.over();
                if let Some(ours) = self.cluster.as_ref().filter(|ours| **ours != node.cluster) {
                    let theirs = escape(node.cluster.as_bytes());
                    return Err(format!("the node belongs to cluster \"{theirs}\", not \"{ours}\""));
                }
            }
            (Told::Locked, Some(credentials)) if authorized => {
                let what = "the node refuses user and password of the checks: nobody can tell whether its cluster has formed";
                if self.locked.is_news(what) {
                    warn!(user = credentials.user(), "{what}");
                }
            }
            // It was logged already that the password cannot be read.
            (Told::Locked, Some(_)) => {}
            (Told::Locked, None) => {
                let what = "the node wants a password: nobody can tell whether its cluster has formed, unless \
                            \"--check-user\" and \"--check-password-file\" are set";
                if self.locked.is_news(what) {
                    warn!("{what}");
                }
            }
            (Told::Nothing, _) => {}
        }
        Ok(told)
    }
}

/// Connects to the first of `addresses` that accepts.
async fn connect(addresses: Vec<SocketAddr>, deadline: Instant) -> Result<TcpStream, String> {
    let mut left = addresses.into_iter();
    let time = deadline.saturating_duration_since(Instant::now());
    let share = time / 2 / u32::try_from(left.len().max(1)).unwrap_or(u32::MAX);
    let stagger = STAGGER.min(share);
    let mut failure = None;
    let race = async {
        let mut racing = JoinSet::new();
        loop {
            if let Some(address) = left.next() {
                racing.spawn(TcpStream::connect(address));
            }
            select! {
                ended = racing.join_next() => match ended {
                    Some(Ok(Ok(stream))) => return Some(stream),
                    Some(Ok(Err(error))) => _ = failure.get_or_insert(plain_io(&error)),
                    Some(Err(_)) => {}
                    None => return None,
                },
                () = sleep(stagger), if left.len() > 0 => {}
            }
        }
    };
    match timeout_at(deadline, race).await {
        Ok(Some(stream)) => Ok(stream),
        Ok(None) | Err(_) => Err(failure.unwrap_or_else(|| "no connection in time".to_owned())),
    }
}

/// TLS that accepts any certificate. It is made when it is first needed.
#[derive(Debug, Default)]
struct TlsSettings(OnceCell<Arc<rustls::ClientConfig>>);

impl TlsSettings {
    async fn connect(
        &self,
        check: &Check,
        stream: TcpStream,
        deadline: Instant,
    ) -> io::Result<TlsStream<TcpStream>> {
        let config = match self.0.get() {
            Some(config) => config,
            None => {
                let config = any_certificate::config()?;
                self.0.get_or_init(|| Arc::new(config))
            }
        };
        let name = ServerName::try_from(check.host.as_str().to_owned())
            .map_err(|_| io::Error::other("its name can be none of TLS"))?;
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        timeout_at(deadline, connecting).await.unwrap_or_else(|_| Err(io::Error::other(NO_ANSWER)))
    }
}

/// Whether the node answers with any bytes.
async fn is_alive(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    check: &Check,
    deadline: Instant,
) -> Result<Told, String> {
    let ask = async {
        send(stream, check, None).await;
        match stream.read(&mut [0; 1024]).await? {
            0 => Err(io::Error::other(CLOSED)),
            _ => Ok(Told::Nothing),
        }
    };
    match timeout_at(deadline, ask).await {
        Ok(told) => {
            if told.is_ok() {
                hang_up(stream).await;
            }
            // In TLS 1.3, a server that wants a certificate from us says so, and closes, only now.
            told.or_else(alert_is_an_answer).map_err(|error| reason_of(&error))
        }
        Err(_) => Err(NO_ANSWER.to_owned()),
    }
}

/// A server that answers with a TLS alert is alive, even if it refuses us.
fn alert_is_an_answer(error: io::Error) -> io::Result<Told> {
    match error.kind() {
        io::ErrorKind::InvalidData => Ok(Told::Nothing),
        _ => Err(error),
    }
}

async fn ask_cratedb(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    check: &Check,
    authorization: Option<&Secret>,
    deadline: Instant,
) -> Result<Told, String> {
    let mut answer = Vec::new();
    let ask = async {
        send(stream, check, authorization).await;
        loop {
            let room = cratedb::LONGEST - answer.len();
            let read = (&mut *stream).take(room as u64).read_buf(&mut answer).await;
            // A TLS alert is a reason of its own. Any other error counts as the end of the answer.
            if let Err(error) = &read
                && error.kind() == io::ErrorKind::InvalidData
            {
                return Err(tls_reason(error));
            }
            if let Some(judged) = cratedb::judge(&answer, !read.is_ok_and(|n| n > 0)) {
                return judged;
            }
        }
    };
    let judged = timeout_at(deadline, ask).await;
    match judged {
        Ok(judged) => {
            hang_up(stream).await;
            judged
        }
        Err(_) if answer.is_empty() => Err(NO_ANSWER.to_owned()),
        Err(_) => Err("its answer did not end in time".to_owned()),
    }
}

/// Sends the request. If that fails, the following read shows why: the node may have answered already, and closed.
async fn send(stream: &mut (impl AsyncWrite + Unpin), check: &Check, authorization: Option<&Secret>) {
    let authorization =
        authorization.map_or_else(String::new, |Secret(value)| format!("Authorization: {value}\r\n"));
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: crate-discovery\r\nAccept: application/json\r\n\
         {authorization}Connection: close\r\n\r\n",
        check.path,
        check.host.with_port(check.port),
    );
    if stream.write_all(request.as_bytes()).await.is_ok() {
        _ = stream.flush().await;
    }
}

/// Ends a connection in a way that the node sees no reset. The node may close first, as we asked it to, and what it
/// still sends is read, because a socket that is closed with unread bytes sends a reset.
async fn hang_up(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let ended = drain(stream).await;
    _ = timeout(LINGER, stream.shutdown()).await;
    if !ended {
        drain(stream).await;
    }
}

/// Reads and drops what comes, within limits. Returns whether the other side closed the connection.
async fn drain(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut scrap = [0; 4096];
    let drained = async {
        for _ in 0..cratedb::LONGEST / scrap.len() {
            if !stream.read(&mut scrap).await.is_ok_and(|n| n > 0) {
                return true;
            }
        }
        false
    };
    timeout(LINGER, drained).await.unwrap_or(false)
}

/// The reason of a connection that broke, in plain words. The kind of error that an early close gives depends on
/// chance.
fn reason_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            CLOSED.to_owned()
        }
        _ => plain_io(error),
    }
}

/// The reason of a TLS error, in plain words.
fn tls_reason(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => "it speaks no TLS: use crate://".to_owned(),
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "it wants a certificate of ours, which a check has not".to_owned()
        }
        Some(rustls::Error::AlertReceived(_)) => "it refuses our TLS".to_owned(),
        Some(_) => "its TLS is not ours".to_owned(),
        None => reason_of(error),
    }
}
