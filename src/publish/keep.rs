//! Keeps a file as the newest snapshot has it, for as long as we run.

use std::{convert::Infallible, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};
use tracing::{debug, info, warn};

use super::file::Target;
use crate::{
    backoff::Backoff,
    snapshot::{Snapshot, Snapshots},
};

/// How often the file is looked at: somebody may have deleted or overwritten it.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The cap of the back-off after a file could not be written.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Writes `target` whenever `render` has something new to say of the newest snapshot. A file that cannot be written is
/// warned about once, and tried again with back-off and at the next change; one that somebody else changed is put right
/// within a minute.
///
/// The file is written on a thread of its own: a disk that hangs must not hold up who keeps a lease alive.
///
/// Never ends. When dropped, a write that has begun goes on; the end of the process may cut it short, which leaves a
/// file that is replaced as it was.
pub async fn keep(
    target: Target,
    mut snapshots: Snapshots,
    mut render: impl FnMut(&Snapshot) -> Option<String>,
) -> Infallible {
    let (mut unwritten, mut written) = (None, None);
    let mut backoff = Backoff::default();
    let mut failing = false;
    loop {
        let newest = snapshots.borrow_and_update().clone();
        if let Some(text) = newest.as_deref().and_then(&mut render) {
            unwritten = Some(text);
        }
        let mut retry = None;
        if let Some(text) = &unwritten {
            let (into, content) = (target.clone(), text.clone());
            let done = match spawn_blocking(move || into.write(&content)).await {
                Ok(done) => done.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match done {
                Ok(changed) => {
                    debug!(file = %target.path.display(), changed, "written");
                    if changed && newest.is_some_and(|newest| newest.nodes().is_empty()) {
                        warn!(file = %target.path.display(), "nobody is announced: the file says so now");
                    }
                    if failing {
                        info!(file = %target.path.display(), "the file can be written again");
                    }
                    failing = false;
                    backoff.reset();
                    written = unwritten.take();
                }
                Err(reason) => {
                    if !failing {
                        warn!(reason, "the file is left as it is, and tried again");
                    }
                    failing = true;
                    retry = Some(backoff.pause(LONGEST_PAUSE));
                }
            }
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() {
                // Whoever follows has gone, with everything else: there is nothing new to come.
                std::future::pending().await
            },
            () = sleep(retry.unwrap_or(LOOK_EVERY)) => {
                if unwritten.is_none() {
                    unwritten = written.take();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::Arc, time::Instant};

    use tokio::sync::watch;

    use super::*;
    use crate::publish::file::How;

    /// Waits, in real time, for what happens on another thread.
    async fn holds(path: &Path, content: &str) {
        let began = Instant::now();
        while fs::read_to_string(path).ok().as_deref() != Some(content) {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", fs::read_to_string(path));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_somebody_deleted_or_overwrote_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let target = Target { option: "--output", path: path.clone(), how: How::Replace };
        let (_publish, snapshots) = watch::channel(Some(Arc::new(Snapshot::new(1, vec![]))));
        let mut news = Some("text".to_owned());
        let check = async {
            holds(&path, "text").await;
            fs::remove_file(&path).unwrap();
            holds(&path, "text").await;
            fs::write(&path, "another").unwrap();
            holds(&path, "text").await;
        };
        tokio::select! {
            never = keep(target, snapshots, |_| news.take()) => match never {},
            () = check => {}
        }
    }
}
