//! Connects to one address of an endpoint, for the client library.
//!
//! The library is given a channel that is connected already. So the name that TLS checks and that the request carries is
//! the endpoint's, and the address is ours to choose; an IP address in the URL would put the address into both, and break
//! balancers that look at the name.

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

/// The largest message that is taken, in bytes. Etcd takes no request of more than 1.5 MB unless told otherwise
/// (`--max-request-bytes`), and cuts what a watch has to tell into pieces of that size; the library would take 4 MB.
const LARGEST: usize = 2 * 1024 * 1024;

/// What may have come unread on one stream, in bytes. The library would take 2 MB, and small pieces cost several times
/// their length; an etcd that floods a watch would have all of it. With less than this, the largest value that etcd takes
/// would not arrive within an attempt where the way to etcd and back is two seconds.
const UNREAD: u32 = 768 * 1024;
/// The same of a connection. It has a few streams only, but this is also how many small pieces h2 puts up with before it
/// ends the connection (`DataFrameBudget`): with eight times [`UNREAD`], a stream of events is full before.
const UNREAD_IN_ALL: u32 = 8 * UNREAD;

/// A client for one member. A clone is cheap, and shares the connection.
#[derive(Clone)]
pub(super) struct Member(Arc<Client>, Arc<Line>);

impl Member {
    /// For reads and transactions.
    pub(super) fn kv(&self) -> KvClient {
        self.0.kv_client().max_decoding_message_size(LARGEST)
    }

    /// For leases, whose messages are small.
    pub(super) fn lease(&self) -> LeaseClient {
        self.0.lease_client()
    }

    /// For watches.
    pub(super) fn watch(&self) -> WatchClient {
        self.0.watch_client().max_decoding_message_size(LARGEST)
    }

    /// Says more of an error of a member that never answered, where what is known of the line tells more.
    pub(super) fn explain(&self, error: Error) -> Error {
        self.1.explain(error)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Member")
    }
}

/// What a connection needs to get in.
pub(super) struct Credentials {
    /// For `https://` endpoints.
    pub tls: Option<Tls>,
    /// User and password, where etcd wants them.
    pub login: Option<(String, Secret)>,
}

/// A client for `endpoint`, connected to `address`, TLS and login included. Where login is not enabled in etcd, though
/// credentials are given, it goes in without: they are configured ahead of `etcdctl auth enable`.
///
/// It never leaves that address: whoever finds it silent drops it.
///
/// # Errors
/// See [`Error`]. The caller bounds the time. Safe to drop.
pub(super) async fn dial(
    endpoint: &Endpoint,
    address: SocketAddr,
    credentials: Credentials,
) -> Result<Member, Error> {
    let Credentials { tls, login } = credentials;
    let line = Arc::new(Line { endpoint: endpoint.clone(), address, tls, heard: Heard::default() });
    // The library sees a connection without TLS: ours can say what went wrong with it, and with what came instead of it.
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
    // An answer that is not of gRPC would be read as one.
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

/// Never seen: what an [`Endpoint`] shows is a URL.
const NO_URL: &str = "the endpoint is no URL";

fn is_of_grpc<T>(answer: &http::Response<T>) -> bool {
    let kind = answer.headers().get(CONTENT_TYPE).map_or(&[][..], |kind| kind.as_bytes());
    answer.status() == StatusCode::OK && kind.starts_with(b"application/grpc")
}

/// The way to one address, and what is known of it.
struct Line {
    endpoint: Endpoint,
    address: SocketAddr,
    tls: Option<Tls>,
    /// The first bytes of what has to be HTTP/2.
    heard: Heard,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Line {
    /// Connects, TLS included. The caller bounds the time.
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

    /// A client certificate is judged after the handshake of TLS 1.3, and the alert that says so is mostly overtaken by the
    /// end of the connection.
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
