//! Keeps a file equal to the newest snapshot, as long as the process runs.

use std::{
    convert::Infallible,
    future::{pending, ready},
    pin::{Pin, pin},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::{
    backoff::Backoff,
    file::{Target, UnwritableFile, Written},
    snapshot::{Snapshot, Snapshots},
    text::plain_io,
    thread,
};

/// The longest time that a start waits for the first look at the file. What the look finds later is logged, and ends
/// nothing.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// A disk that takes longer than this is warned about.
const SLOW: Duration = Duration::from_secs(10);
/// How often the file is checked: somebody may have deleted or overwritten it.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The longest pause of the backoff after a file could not be written.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keeps one file.
///
/// All work on the disk runs on a thread of its own, one job at a time, so that a disk that hangs does not delay the
/// keep-alive of a lease. Only the end of the process may have to wait for that thread, if the kernel cannot interrupt
/// a wait for the disk.
pub struct Keeper {
    target: Target,
    /// The first job, and its result when it comes.
    job: Job,
    doing: Doing,
}

/// What can be done with the file.
#[derive(Clone, Debug)]
enum Job {
    /// Check whether it can be written.
    Check,
    /// Create it, empty, if there is none.
    Create,
    /// Give it this content.
    Write(String),
}

/// A job that was started. If this is dropped, the job goes on.
type Doing = Pin<Box<dyn Future<Output = Done>>>;
type Done = Result<Written, UnwritableFile>;

impl Keeper {
    /// Looks at the file for the first time. If `creates`, a missing file is created, empty. It takes at most a second,
    /// so that a disk that hangs does not delay a start for longer.
    ///
    /// # Errors
    /// [`UnwritableFile`] if waiting cannot help; [`Keeper::keep`] handles everything else. If the future is dropped,
    /// the look goes on.
    pub async fn start(target: Target, creates: bool) -> Result<Self, UnwritableFile> {
        let job = if creates { Job::Create } else { Job::Check };
        let mut doing = begin(&target, &job);
        match timeout(FIRST_LOOK, &mut doing).await {
            Ok(Err(failure)) if failure.is_lasting => return Err(failure),
            Ok(done) => doing = Box::pin(ready(done)),
            Err(_) => {}
        }
        Ok(Self { target, job, doing })
    }

    /// Writes the file whenever `render` returns a new text for the newest snapshot. If the file cannot be written,
    /// there is one warning, and it is tried again with a backoff and at the next change. If somebody else changed the
    /// file, it is written again within a minute.
    ///
    /// Never ends. If it is dropped, a write that was started goes on. The end of the process may interrupt that write;
    /// a file that is replaced then stays as it was.
    pub async fn keep(
        self,
        mut snapshots: Snapshots,
        mut render: impl FnMut(&Snapshot) -> Option<String>,
    ) -> Infallible {
        let Self { target, mut job, mut doing } = self;
        let mut told = Told { file: target.path.display().to_string(), ..Told::default() };
        let mut backoff = Backoff::default();
        let mut names_nobody = false;
        let mut is_news = true;
        loop {
            let pause = match told.patiently(doing).await {
                Ok(written) => {
                    told.done(&written);
                    if let Job::Write(_) = job {
                        let changed = written != Written::Unchanged;
                        debug!(file = told.file, changed, "written");
                        if changed && names_nobody {
                            warn!(file = told.file, "nobody is announced: the file says so now");
                        }
                    }
                    backoff.reset();
                    LOOK_EVERY
                }
                Err(failure) => {
                    told.failed(&failure);
                    backoff.pause(LONGEST_PAUSE)
                }
            };
            let again = Instant::now() + pause;
            loop {
                if std::mem::take(&mut is_news) {
                    let newest = snapshots.borrow_and_update().clone();
                    if let Some(newest) = newest
                        && let Some(text) = render(&newest)
                    {
                        job = Job::Write(text);
                        names_nobody = newest.nodes().is_empty();
                        break;
                    }
                }
                tokio::select! {
                    changed = snapshots.changed() => match changed {
                        Ok(()) => is_news = true,
                        // The sender of the snapshots has gone, so no change can come.
                        Err(_) => pending().await,
                    },
                    () = sleep_until(again) => break,
                }
            }
            doing = begin(&target, &job);
        }
    }
}

/// Starts `job` on a thread of its own. If no thread can be started, that is a failure like one of the disk.
fn begin(target: &Target, job: &Job) -> Doing {
    let (target, job) = (target.clone(), job.clone());
    let (option, path) = (target.option, target.path.clone());
    let work = move || match job {
        Job::Check => target.check(),
        Job::Create => target.create(),
        Job::Write(content) => target.write(&content),
    };
    Box::pin(async move {
        thread::run("file", work).await.unwrap_or_else(|error| {
            let reason = format!("no thread can be started: {}", plain_io(&error));
            Err(UnwritableFile { option, path, reason, is_lasting: false })
        })
    })
}

/// What was logged about the file.
#[derive(Debug, Default)]
struct Told {
    file: String,
    /// Why it cannot be written, if that was logged.
    failure: Option<String>,
    /// Whether it was logged that the file is rewritten instead of replaced.
    rewrites: bool,
}

impl Told {
    /// Waits for the disk, and warns if that takes long.
    async fn patiently(&self, doing: Doing) -> Done {
        let mut doing = pin!(doing);
        if let Ok(done) = timeout(SLOW, &mut doing).await {
            return done;
        }
        warn!(file = self.file, "the disk does not answer: the file stays as it is until it does");
        let done = doing.await;
        info!(file = self.file, "the disk answers again");
        done
    }

    fn done(&mut self, written: &Written) {
        if self.failure.take().is_some() {
            info!(file = self.file, "the file can be written again");
        }
        match written {
            Written::Rewritten { instead: Some(_) } if self.rewrites => {}
            Written::Rewritten { instead: Some(_) } => {
                written.warn_if_rewritten_instead(self.file.as_ref());
                self.rewrites = true;
            }
            Written::Rewritten { instead: None } | Written::Replaced => self.rewrites = false,
            Written::Unchanged => {}
        }
    }

    fn failed(&mut self, failure: &UnwritableFile) {
        let reason = failure.to_string();
        if self.failure.as_ref() != Some(&reason) {
            warn!(reason, "the file is left as it is, and tried again");
            self.failure = Some(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::Arc, time::Instant};

    use tokio::sync::watch;

    use super::*;
    use crate::file::How;

    /// Waits, in real time, for something that happens on another thread.
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
        let keeper = Keeper::start(target, false).await.unwrap();
        tokio::select! {
            never = keeper.keep(snapshots, |_| news.take()) => match never {},
            () = check => {}
        }
    }
}
