//! The verbs, one file each. A verb has `Options`, and a `run` that connects rooms to each other and does little
//! itself.
//!
//! Each `run` takes an [`Access`], the options, and the signal that may end it. It returns the signal, for the exit
//! code, if the signal ended it before it was done.

pub mod announce;
pub mod bootstrap;
pub mod hosts;
mod retry;
pub mod status;
pub mod watch;

use std::io::{self, Write};

use anyhow::Context;

use crate::{
    etcd::{self, Registry},
    host::{self, Host},
    names::Names,
};

/// How to reach the announcements of our cluster.
#[derive(Clone, Debug)]
pub struct Access {
    /// The endpoints of etcd, and the credentials.
    pub etcd: etcd::Options,
    /// Looks up the names of endpoints and checks.
    pub names: Names,
    /// The prefix of the announcements. It begins with `/` and does not end with one.
    pub prefix: String,
}

impl Access {
    /// A new connection to etcd. Nothing is sent before the first request.
    fn connect(&self) -> Registry {
        Registry::new(self.etcd.clone(), self.names.clone(), self.prefix.clone())
    }
}

/// Runs `work` until it is done or `signal` resolves; returns the signal in the second case.
async fn until(
    signal: impl Future<Output = i32>,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Option<i32>> {
    tokio::select! {
        done = work => done.map(|()| None),
        signal = signal => Ok(Some(signal)),
    }
}

/// Prints all of `text` to stdout at once.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("failed to write to stdout")
}

/// The host that `--host` names, or the system's host name.
fn own_host(host: Option<Host>) -> anyhow::Result<Host> {
    match host {
        Some(host) => Ok(host),
        None => {
            let name = rustix::system::uname();
            host::default_host(&name.nodename().to_string_lossy())
                .context("set \"--host\" or CRATE_DISCOVERY_HOST")
        }
    }
}
