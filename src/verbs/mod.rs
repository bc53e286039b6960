//! The verbs, one file each: its `Options`, and a `run` that wires rooms together and does little of its own.
//!
//! Each `run` takes an [`Access`], the options, and the signal that may end it. It gives the signal where it was ended by
//! it before it was done, for the exit code.

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

/// Where the announcements of our cluster are, and how to get there.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where etcd is, and how to get in.
    pub etcd: etcd::Options,
    /// Looks up the names of endpoints and checks.
    pub names: Names,
    /// The prefix of the announcements. It begins with `/` and does not end with one.
    pub prefix: String,
}

impl Access {
    /// A connection of its own to etcd. Nothing is sent yet.
    fn connect(&self) -> Registry {
        Registry::new(self.etcd.clone(), self.names.clone(), self.prefix.clone())
    }
}

/// Does `work` until it is done, or `signal` resolves; gives the signal then.
async fn until(
    signal: impl Future<Output = i32>,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Option<i32>> {
    tokio::select! {
        done = work => done.map(|()| None),
        signal = signal => Ok(Some(signal)),
    }
}

/// Prints all of `text` at once, on stdout.
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
