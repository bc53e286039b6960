//! `watch`: follows the announced hosts, and prints them after each change.

use std::{
    convert::Infallible,
    io::{self, Write},
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{io::Interest, net::unix::pipe::Sender, sync::watch, time::sleep};
use tracing::warn;

use super::Access;
use crate::{
    announcement::Port,
    backoff::Backoff,
    feeds::{Feeds, Keeper},
    file::{How, Target},
    host::Host,
    render::{Format, render},
    snapshot::{Snapshot, Snapshots},
    text::plain_io,
    thread,
};

/// The longest pause of the backoff while no thread can be started.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The options of `watch`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The format.
    pub format: Format,
    /// Which port to print. Hosts that do not have this port are left out.
    pub port: Port,
    /// Hosts to leave out.
    pub exclude: Vec<Host>,
    /// The file to keep current; `None` prints to stdout.
    pub output: Option<PathBuf>,
    /// The feeds to keep current. If there is a feed, nothing is printed to stdout.
    pub feeds: Feeds,
}

/// Follows until `signal` resolves or the reader of our stdout goes away. Both are a normal end.
///
/// # Errors
/// A file at a place that waiting cannot make usable, at the start only. A failed write to stdout, at any time. Safe to
/// drop.
pub async fn run(
    access: Access,
    options: Options,
    signal: impl Future<Output = i32>,
) -> anyhow::Result<Option<i32>> {
    let Options { format, port, exclude, output, feeds } = options;
    // A file that disappears after this check is waited for.
    access.etcd.look_at_files().await?;
    let registry = access.connect();
    let (publish, snapshots) = watch::channel(None);
    let hold = feeds.hold;
    let prints = output.is_none() && feeds.is_empty();
    let selection = Selection { format, port, exclude, last: None };
    let output = output.map(|path| Target { option: "--output", path, how: How::Replace });
    let look = async {
        match output {
            Some(file) => Keeper::start(file, false).await.map(Some),
            None => Ok(None),
        }
    };
    let (output, feeding) = tokio::try_join!(look, feeds.open(snapshots.clone()))?;
    tokio::select! {
        never = registry.follow(hold, publish) => match never {},
        never = feeding => match never {},
        done = show(selection, output, prints, snapshots) => done.map(|()| None),
        _ = signal => Ok(None),
    }
}

async fn show(
    mut selection: Selection,
    output: Option<Keeper>,
    prints: bool,
    snapshots: Snapshots,
) -> anyhow::Result<()> {
    match output {
        Some(file) => match file.keep(snapshots, |snapshot| selection.news(snapshot)).await {},
        None if prints => tokio::select! {
            failed = print(selection, snapshots) => match failed? {},
            () = stdout_closed() => Ok(()),
        },
        None => std::future::pending().await,
    }
}

/// Prints each change, without an end. A slow reader gets the newest snapshot and misses those before it.
async fn print(mut selection: Selection, mut snapshots: Snapshots) -> anyhow::Result<Infallible> {
    loop {
        let newest = snapshots.borrow_and_update().clone();
        if let Some(mut text) = newest.and_then(|newest| selection.news(&newest)) {
            if matches!(selection.format, Format::Lines | Format::Env) {
                text.push('\n');
            }
            write(text.into()).await.context("failed to write to stdout")?;
        }
        if snapshots.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Writes on a thread of its own, so that a reader that does not read blocks nothing else. If no thread can be started,
/// it tries again after a pause.
async fn write(text: Arc<str>) -> io::Result<()> {
    let mut backoff = Backoff::default();
    loop {
        let text = Arc::clone(&text);
        let write = move || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        };
        match thread::run("stdout", write).await {
            Ok(written) => return written,
            Err(error) => {
                let reason = plain_io(&error);
                warn!(reason, "no thread can be started to print: tried again");
                sleep(backoff.pause(LONGEST_PAUSE)).await;
            }
        }
    }
}

/// Waits until the reader of stdout has gone. Waits for ever if that cannot be seen, for example with a file.
async fn stdout_closed() {
    // The descriptor is only asked for its state. How stdout is written to does not change.
    let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    if let Ok(stdout) = stdout {
        while let Ok(state) = stdout.ready(Interest::ERROR).await {
            if state.is_error() {
                return;
            }
        }
    }
    std::future::pending().await
}

/// Which part of a snapshot is printed, and what was printed last.
struct Selection {
    format: Format,
    port: Port,
    exclude: Vec<Host>,
    last: Option<Snapshot>,
}

impl Selection {
    /// The text of `snapshot`, unless it is the same as the last one. A new revision alone is no change.
    fn news(&mut self, snapshot: &Snapshot) -> Option<String> {
        let selected = snapshot.clone().select(self.port, &self.exclude);
        let is_old = self.last.as_ref().is_some_and(|last| match self.format {
            Format::Json => last.nodes() == selected.nodes(),
            Format::Csv | Format::Lines | Format::Env => last.seeds(self.port).eq(selected.seeds(self.port)),
        });
        if is_old {
            return None;
        }
        let text = render(&selected, self.format, self.port);
        self.last = Some(selected);
        Some(text)
    }
}
