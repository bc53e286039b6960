//! `watch`: follows the announced hosts, and prints them at each change.

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

/// The cap of the back-off where no thread can be started.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What to print, where, and what to keep current besides.
#[derive(Clone, Debug)]
pub struct Options {
    /// The format.
    pub format: Format,
    /// Which port; hosts without it are left out.
    pub port: Port,
    /// Hosts to leave out.
    pub exclude: Vec<Host>,
    /// The file to keep current, instead of printing.
    pub output: Option<PathBuf>,
    /// What else to keep current. Where there is any, nothing is printed.
    pub feeds: Feeds,
}

/// Follows until `signal` resolves, which is how it should end, or the reader of our output goes away.
///
/// # Errors
/// A file whose place no waiting can mend, at the start only; stdout, at any time. Safe to drop.
pub async fn run(
    access: Access,
    options: Options,
    signal: impl Future<Output = i32>,
) -> anyhow::Result<Option<i32>> {
    let Options { format, port, exclude, output, feeds } = options;
    // A file that goes away is waited for, as it is later on.
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

/// Prints each change, without an end. A reader that is slow misses what is overtaken.
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

/// Writes on a thread of its own, where a reader that does not read holds up nobody else. Waits until there is one.
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

/// Waits until the reader of stdout has gone: for ever where that cannot be told, as of a file.
async fn stdout_closed() {
    // Only asked for its state, whatever it is; how it is written to stays as it was.
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

/// Which part of the snapshots is shown, and what was shown last.
struct Selection {
    format: Format,
    port: Port,
    exclude: Vec<Host>,
    last: Option<Snapshot>,
}

impl Selection {
    /// The text of `snapshot`, unless it is that of the last one. Its revision alone is no news.
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
