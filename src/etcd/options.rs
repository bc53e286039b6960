//! The settings of a connection to etcd, and the files that they name.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::warn;

use super::{
    dial::{Credentials, Member, dial},
    endpoint::Endpoint,
    error::Error,
    tls_files::TlsFiles,
};
use crate::{credentials::Login, text::plain_io, thread};

/// The longest time that a start waits for the first look at the files.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// The connection options of the command line, validated.
#[derive(Clone, Debug)]
pub struct Options {
    /// The endpoints, at least one. All are http, or all are https.
    pub endpoints: Vec<Endpoint>,
    /// The TLS files.
    pub tls: TlsFiles,
    /// User and password, if etcd wants them.
    pub login: Option<Login>,
    /// The longest time for one answer, with connecting.
    pub request_timeout: Duration,
}

impl Options {
    /// Reads the credentials once, so that a file that cannot be used is known at the start. Blocks.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn read_files(&self) -> Result<(), Error> {
        self.credentials().map(drop)
    }

    fn credentials(&self) -> Result<Credentials, Error> {
        let is_https = self.endpoints.iter().any(Endpoint::is_https);
        let tls = if is_https { Some(self.tls.read()?) } else { None };
        let login = match &self.login {
            Some(login) => Some((login.user.clone(), login.read_password()?)),
            None => None,
        };
        Ok(Credentials { tls, login })
    }

    /// Reads the files once, on a thread of its own, and warns about a file that cannot be used now. Every connection
    /// reads them again, so a file that comes late is no problem. It takes at most a second, even if the disk hangs.
    /// Safe to drop.
    ///
    /// # Errors
    /// [`Error::Unusable`] if waiting cannot help, for example if a directory is at the place of a file.
    pub async fn look_at_files(&self) -> Result<(), Error> {
        let options = self.clone();
        let look = thread::run("credentials", move || {
            options.read_files().map_err(|error| {
                let is_lasting = matches!(&error, Error::Unusable(file) if file.is_lasting());
                (error, is_lasting)
            })
        });
        match timeout(LONGEST_LOOK, look).await {
            Ok(Ok(Err((error, true)))) => return Err(error),
            Ok(Ok(Err((error, false)))) => {
                warn!(reason = %error, "etcd cannot be asked before this file can be used: it is tried again and again");
            }
            Err(_) => warn!("the disk with the files for etcd does not answer"),
            // If no thread could be started, nothing is known about the files yet.
            Ok(Ok(Ok(())) | Err(_)) => {}
        }
        Ok(())
    }
}

/// Reads the credentials again and connects. The files are read on a thread of their own, so that a disk that hangs
/// blocks nothing else.
pub(super) async fn connect(
    options: Arc<Options>,
    endpoint: Endpoint,
    address: SocketAddr,
) -> Result<Member, Error> {
    let credentials = if endpoint.is_https() || options.login.is_some() {
        let read = thread::run("credentials", move || options.credentials()).await;
        read.map_err(|error| {
            Error::Unavailable(format!("failed to read the credentials: {}", plain_io(&error)))
        })??
    } else {
        Credentials { tls: None, login: None }
    };
    dial(&endpoint, address, credentials).await
}
