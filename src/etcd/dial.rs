//! Connects to one address of an endpoint, for the client library.
//!
//! The library gets a channel that is connected already. So TLS checks the name of the endpoint, and the request
//! carries it, while we choose the address. If the URL had an IP address, both would use the address, and load
//! balancers that look at the name would fail.

use std::{fmt, net::SocketAddr, sync::Arc};

use etcd_client::{Channel, Client, ConnectOptions, KvClient, LeaseClient, WatchClient};
use http::{StatusCode, Uri, header::CONTENT_TYPE};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::transport::Endpoint as Transport;
use tower::{BoxError, ServiceExt, service_fn, util::BoxCloneSyncService};

use super::{
    endpoint::Endpoint,
    error::Error,
    overheard::{Heard, Overheard, refused},
    tls::Tls,
    words::{self, Said},
};
use crate::{credentials::Secret, text::plain_io};

/// The largest message that we accept, in bytes. Etcd accepts no request of more than 1.5 MB by default
/// (`--max-request-bytes`), and cuts the messages of a watch into pieces of that size. The default of the library is 4
/// MB.
const LARGEST: usize = 2 * 1024 * 1024;

/// How many bytes of one stream may have arrived unread. The default of the library is 2 MB. Small pieces cost several
/// times their length in memory, so an etcd that floods a watch could take a multiple of this. With a smaller value,
/// the largest value that etcd stores would not arrive within an attempt if a round trip takes two seconds.
const UNREAD: u32 = 768 * 1024;
/// The same for all streams of a connection. There are only a few, but this also limits how many small pieces h2
/// accepts before it ends the connection (`DataFrameBudget`). With eight times [`UNREAD`], a stream of events is full
/// before that happens.
const UNREAD_IN_ALL: u32 = 8 * UNREAD;

/// A client for one member. A clone is cheap and shares the connection.
#[derive(Clone)]
pub(super) struct Member(Arc<Client>, Arc<Line>);

impl Member {
    /// The client for reads and transactions.
    pub(super) fn kv(&self) -> KvClient {
        self.0.kv_client().max_decoding_message_size(LARGEST)
    }

    /// The client for leases. Their messages are small, so no limit is set.
    pub(super) fn lease(&self) -> LeaseClient {
        self.0.lease_client()
    }

    /// The client for watches.
    pub(super) fn watch(&self) -> WatchClient {
        self.0.watch_client().max_decoding_message_size(LARGEST)
    }

    /// Adds what the connection shows about an error of a member that never answered.
    pub(super) fn explain(&self, error: Error) -> Error {
        self.1.explain(error)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Member")
    }
}

/// The credentials of a connection.
pub(super) struct Credentials {
    /// For endpoints with `https://`.
    pub tls: Option<Tls>,
    /// User and password, if etcd wants them.
    pub login: Option<(String, Secret)>,
}

/// A client for `endpoint`, connected to `address`, with TLS and login done. If credentials are given but etcd has no
/// authentication enabled, it works without them: an operator may configure them before `etcdctl auth enable`.
///
/// The client never changes the address. If the member is silent, the caller drops the client.
///
/// # Errors
/// See [`Error`]. The caller limits the time. Safe to drop.
pub(super) async fn dial(
    endpoint: &Endpoint,
    address: SocketAddr,
    credentials: Credentials,
) -> Result<Member, Error> {
    let Credentials { tls, login } = credentials;
    let line = Arc::new(Line { endpoint: endpoint.clone(), address, tls, heard: Heard::default() });
    // The library sees a connection without TLS. We do TLS ourselves, because then we can say what went wrong, or what
    // answered instead of etcd.
    let authority = endpoint.host().with_port(endpoint.port());
    let origin: Uri = endpoint.to_string().parse().map_err(|_| Error::Unavailable(NO_URL.to_owned()))?;
    let transport = Transport::from_shared(format!("http://{authority}"))
        .map_err(|_| Error::Unavailable(NO_URL.to_owned()))?
        .origin(origin)
        .initial_stream_window_size(UNREAD)
        .initial_connection_window_size(UNREAD_IN_ALL);
    let connector = {
        let line = Arc::clone(&line);
        service_fn(move |_| {
            let line = Arc::clone(&line);
            async move { line.connect().await.map(TokioIo::new).map_err(Said) }
        })
    };
    let explain = |error: Error| line.explain(error);
    let channel = transport.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| explain(etcd_client::Error::from(error).into()))?;
    // The library would read every answer as one of gRPC, so we refuse the others here.
    let channel = channel.map_result(|answer| match answer {
        Ok(answer) if is_of_grpc(&answer) => Ok(answer),
        Ok(answer) => Err(Box::new(Said(refused(answer.status()))) as BoxError),
        Err(error) => Err(error.into()),
    });
    let channel = Channel::Custom(BoxCloneSyncService::new(channel));
    let options = ConnectOptions::new().with_require_leader(true);
    let with_login = login.map(|(user, password)| options.clone().with_user(user, password.0));
    let is_login = with_login.is_some();
    let first = with_login.unwrap_or_else(|| options.clone());
    let client = match Client::from_channel(channel.clone(), Some(first)).await {
        Err(etcd_client::Error::GRpcStatus(status))
            if is_login && status.message().contains("authentication is not enabled") =>
        {
            Client::from_channel(channel, Some(options)).await
        }
        other => other,
    };
    let client = client.map_err(|error| explain(error.into()))?;
    Ok(Member(Arc::new(client), line))
}

/// Never shown: an [`Endpoint`] is always a valid URL.
const NO_URL: &str = "the endpoint is no URL";

fn is_of_grpc<T>(answer: &http::Response<T>) -> bool {
    let kind = answer.headers().get(CONTENT_TYPE).map_or(&[][..], |kind| kind.as_bytes());
    answer.status() == StatusCode::OK && kind.starts_with(b"application/grpc")
}

/// The way to one address, and what is known about it.
struct Line {
    endpoint: Endpoint,
    address: SocketAddr,
    tls: Option<Tls>,
    /// The first bytes that were received. They should be HTTP/2.
    heard: Heard,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Line {
    /// Connects, with TLS if there is a TLS configuration. The caller limits the time.
    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        self.heard.clear();
        let stream = TcpStream::connect(self.address).await.map_err(|error| plain_io(&error))?;
        stream.set_nodelay(true).map_err(|error| plain_io(&error))?;
        Ok(match &self.tls {
            Some(tls) => {
                let stream = tls.handshake(self.endpoint.host(), stream).await?;
                Box::new(Overheard::new(stream, self.heard.clone()))
            }
            None => Box::new(Overheard::new(stream, self.heard.clone())),
        })
    }

    fn explain(&self, error: Error) -> Error {
        match error {
            Error::Unavailable(reason) => Error::Unavailable(self.said(reason)),
            other => other,
        }
    }

    /// Explains why the connection failed. In TLS 1.3 the server checks our certificate after the handshake, and the
    /// alert that refuses it often comes too late: we only see that the connection ended.
    fn said(&self, reason: String) -> String {
        let reason = self.heard.failure().unwrap_or(reason);
        let is_end = words::is_end(&reason);
        let (is_asked, shows) =
            self.tls.as_ref().map_or((false, false), |tls| (tls.is_asked(), tls.shows_certificate()));
        let is_ours = reason.starts_with(words::OUR_CERTIFICATE);
        if is_ours || is_end && is_asked {
            return match (shows, is_ours) {
                (false, _) => "etcd wants a client certificate: set \"--cert\" and \"--key\"".to_owned(),
                (true, true) => format!("{reason}: check \"--cert\" and \"--key\""),
                (true, false) => format!(
                    "{reason}, as when etcd does not accept our certificate: check \"--cert\" and \"--key\""
                ),
            };
        }
        match self.heard.instead_of_http2() {
            Some(told) => told,
            None if is_end && self.tls.is_none() && self.heard.is_empty() => {
                format!("{reason} before the first word: where etcd speaks TLS, use https://")
            }
            None => reason,
        }
    }
}
