//! Keeps a file as the newest snapshot has it, for as long as we run.

use std::{convert::Infallible, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};
use tracing::{debug, info, warn};

use super::file::Target;
use crate::{
    backoff::Backoff,
    snapshot::{Snapshot, Snapshots},
};

/// The cap of the back-off after a file could not be written.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Writes `target` whenever `render` has something new to say of the newest snapshot. A file that cannot be written is
/// warned about once, and tried again with back-off and at the next change.
///
/// The file is written on a thread of its own: a disk that hangs must not hold up who keeps a lease alive.
///
/// Never ends. When dropped, the file is as it was or has its new content.
pub async fn keep(
    target: Target,
    mut snapshots: Snapshots,
    mut render: impl FnMut(&Snapshot) -> Option<String>,
) -> Infallible {
    let mut unwritten = None;
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
            let written = match spawn_blocking(move || into.write(&content)).await {
                Ok(written) => written.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match written {
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
                    unwritten = None;
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
            () = sleep(retry.unwrap_or_default()), if retry.is_some() => {}
        }
    }
}
