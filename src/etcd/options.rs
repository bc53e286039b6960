//! Where etcd is and how to get in: the settings of a connection, and the files that they name.

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

/// How long a start waits for the first look at the files.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// Where etcd is and how to get in: the connection options of the command line, validated.
#[derive(Clone, Debug)]
pub struct Options {
    /// All http or all https, at least one.
    pub endpoints: Vec<Endpoint>,
    /// TLS material.
    pub tls: TlsFiles,
    /// User and password, where etcd wants them.
    pub login: Option<Login>,
    /// Longest wait for one answer, connecting included.
    pub request_timeout: Duration,
}

impl Options {
    /// Reads the credentials once, so that a file which cannot be used is known at the start.
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

    /// Reads the files once, on a thread of its own, and warns of one that cannot be used now: every connection reads
    /// them anew, so one that comes late is waited for. Takes at most a second, also where the disk hangs. Safe to drop.
    ///
    /// # Errors
    /// [`Error::Unusable`] where no waiting can mend it: a directory, say, has the place of a file.
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
            // Without a thread there is nothing to be said of them yet.
            Ok(Ok(Ok(())) | Err(_)) => {}
        }
        Ok(())
    }
}

/// Reads the credentials anew and connects. The files are read on a thread of their own: a disk that hangs is no reason
/// to stop.
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
