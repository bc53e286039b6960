//! `hosts`: prints the announced hosts once.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tracing::warn;

use super::{Access, print, retry::is_final, until};
use crate::{
    announcement::Port,
    etcd::{Error, Registry},
    file::{How, Target},
    host::Host,
    render::{Format, render},
    snapshot::Snapshot,
};

/// The options of `hosts`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The format.
    pub format: Format,
    /// Which port to print. Hosts that do not have this port are left out and not counted.
    pub port: Port,
    /// Hosts to leave out. They are not counted either.
    pub exclude: Vec<Host>,
    /// The file to replace; `None` prints to stdout.
    pub output: Option<PathBuf>,
    /// If etcd cannot be read, leave the file as it is, and succeed.
    pub allow_stale: bool,
    /// Wait until this many hosts are announced.
    pub wait_for: Option<usize>,
    /// Longest time for everything. Without it, each endpoint is tried once.
    pub within: Option<Duration>,
}

/// There were fewer hosts than `--wait-for` asked for.
#[derive(Debug, thiserror::Error)]
#[error("only {found} of {wanted} hosts were announced within {}", humantime::format_duration(*.within))]
pub struct TooFew {
    /// `--wait-for`.
    pub wanted: usize,
    /// How many hosts there were at the last count.
    pub found: usize,
    /// `--timeout`.
    pub within: Duration,
}

/// Prints the hosts or replaces the file, and ends early if `signal` resolves before that; returns the signal then.
///
/// # Errors
/// [`Error`], [`TooFew`], or a file that cannot be written. After an error nothing was printed, and the file is as it
/// was. Safe to drop.
pub async fn run(
    access: Access,
    options: Options,
    signal: impl Future<Output = i32>,
) -> anyhow::Result<Option<i32>> {
    access.etcd.read_files()?;
    until(signal, show(access.connect(), options)).await
}

async fn show(mut registry: Registry, options: Options) -> anyhow::Result<()> {
    if let Some(within) = options.within {
        registry.set_limit(within);
    }
    let read = match (options.wait_for, options.within) {
        (Some(wanted), Some(within)) => wait(registry, &options, wanted, within).await,
        (_, within) => list(&mut registry, within)
            .await
            .map(|list| list.select(options.port, &options.exclude))
            .map_err(Into::into),
    };
    let snapshot = match (read, &options.output) {
        (Ok(snapshot), _) => snapshot,
        (Err(error), Some(path)) if options.allow_stale && is_unreadable(&error) => {
            let (reason, file) = (format!("{error:#}"), path.display());
            if path.exists() {
                warn!(reason, %file, "etcd cannot be read: left the file as it was");
            } else {
                warn!(reason, %file, "etcd cannot be read, and there is no file yet");
            }
            return Ok(());
        }
        (Err(error), _) if error.is::<Error>() => {
            return Err(error.context("failed to read the hosts from etcd"));
        }
        (Err(error), _) => return Err(error),
    };
    let text = render(&snapshot, options.format, options.port);
    match options.output {
        Some(path) => {
            if snapshot.nodes().is_empty() {
                warn!(file = %path.display(), "nobody is announced: the file says so now");
            }
            let target = Target { option: "--output", path, how: How::Replace };
            target.write(&text)?.warn_if_rewritten_instead(&target.path);
        }
        None => print(&text)?,
    }
    Ok(())
}

/// Lists once, within this time if one is given.
async fn list(registry: &mut Registry, within: Option<Duration>) -> Result<Snapshot, Error> {
    match within {
        Some(within) => timeout(within, registry.list()).await.unwrap_or_else(|_| Err(Error::no_answer())),
        None => registry.list().await,
    }
}

fn is_unreadable(error: &anyhow::Error) -> bool {
    error.is::<Error>() && !matches!(error.downcast_ref(), Some(Error::Unusable(_)))
}

/// Follows the prefix until `wanted` hosts are there. It goes on after every error, except a refusal or an unusable file.
async fn wait(
    registry: Registry,
    options: &Options,
    wanted: usize,
    within: Duration,
) -> anyhow::Result<Snapshot> {
    let contact = registry.contact();
    let (publish, mut snapshots) = watch::channel(None::<Arc<Snapshot>>);
    let mut list = None;
    let enough = snapshots.wait_for(|newest| {
        let newest = newest.as_deref().cloned();
        list = newest.map(|all| all.select(options.port, &options.exclude));
        list.as_ref().is_some_and(|list| list.nodes().len() >= wanted)
    });
    let is_met = tokio::select! {
        // Without a hold, because only hosts that are announced now count.
        error = registry.follow_while(Duration::ZERO, publish, |error| !is_final(error)) => return Err(error.into()),
        met = timeout(within, enough) => met.is_ok(),
    };
    let failure = contact.borrow().failure.clone();
    match (list, failure) {
        (Some(list), _) if is_met => Ok(list),
        (_, Some(failure)) => Err(Error::Unavailable(failure.reason).into()),
        (Some(list), None) => Err(TooFew { wanted, found: list.nodes().len(), within }.into()),
        (None, None) => Err(Error::no_answer().into()),
    }
}
