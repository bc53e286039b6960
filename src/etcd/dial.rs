//! Connects to one address of an endpoint, for the client library.
//!
//! The library is given a channel that is connected already. So the name that TLS checks and that the request carries is
//! the endpoint's, and the address is ours to choose; an IP address in the URL would put the address into both, and break
//! balancers that look at the name.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use etcd_client::{Channel, Client, ConnectOptions, KvClient, LeaseClient, TlsOptions, WatchClient};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::Endpoint as Transport;
use tower::service_fn;

use super::{credentials::Secret, endpoint::Endpoint, error::Error};

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
pub(super) struct Member(Arc<Client>);

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
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Member")
    }
}

/// What a connection needs to get in.
pub(super) struct Credentials {
    /// For `https://` endpoints.
    pub tls: Option<TlsOptions>,
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
    let mut transport = Transport::from_shared(endpoint.to_string())
        .map_err(etcd_client::Error::from)?
        .initial_stream_window_size(UNREAD)
        .initial_connection_window_size(UNREAD_IN_ALL);
    if let Some(tls) = tls {
        transport = transport.tls_config(tls).map_err(etcd_client::Error::from)?;
    }
    let connector = service_fn(move |_| async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(TokioIo::new(stream))
    });
    let channel =
        Channel::Tonic(transport.connect_with_connector(connector).await.map_err(etcd_client::Error::from)?);
    let options = ConnectOptions::new().with_require_leader(true);
    let Some((user, password)) = login else {
        return Ok(Member(Arc::new(Client::from_channel(channel, Some(options)).await?)));
    };
    let with_user = options.clone().with_user(user, password.0);
    let client = match Client::from_channel(channel.clone(), Some(with_user)).await {
        Err(etcd_client::Error::GRpcStatus(status))
            if status.message().contains("authentication is not enabled") =>
        {
            Client::from_channel(channel, Some(options)).await?
        }
        other => other?,
    };
    Ok(Member(Arc::new(client)))
}
