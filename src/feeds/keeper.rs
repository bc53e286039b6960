//! Keeps a file as the newest snapshot has it, for as long as we run.

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

/// How long a start waits for the first look at the file. What is found later finds us at work, and ends nothing.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// A disk that takes longer is warned about.
const SLOW: Duration = Duration::from_secs(10);
/// How often the file is looked at: somebody may have deleted or overwritten it.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The cap of the back-off after a file could not be written.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keeps one file.
///
/// Everything that touches the disk runs on a thread of its own, never more than one at a time: a disk that hangs must
/// not hold up who keeps a lease alive. The end of the process alone may have to wait for that thread, where the kernel
/// lets nothing end a wait for the disk.
pub struct Keeper {
    target: Target,
    /// The first job, and how it goes.
    job: Job,
    doing: Doing,
}

/// What can be done to the file.
#[derive(Clone, Debug)]
enum Job {
    /// Look whether it can be written.
    Check,
    /// Make it, empty, where there is none.
    Create,
    /// Make it hold this.
    Write(String),
}

/// A job on its way; when dropped, it goes on.
type Doing = Pin<Box<dyn Future<Output = Done>>>;
type Done = Result<Written, UnwritableFile>;

impl Keeper {
    /// Looks at the file for the first time. One that is not there is made, empty, if `creates`. Takes at most a second:
    /// a disk that hangs delays a start no longer.
    ///
    /// # Errors
    /// [`UnwritableFile`] where no waiting can mend it; everything else is left to [`Keeper::keep`]. When dropped, the
    /// look goes on.
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

    /// Writes the file whenever `render` has something new to say of the newest snapshot. A file that cannot be written
    /// is warned about once, and tried again with back-off and at the next change; one that somebody else changed is put
    /// right within a minute.
    ///
    /// Never ends. When dropped, a write that has begun goes on; the end of the process may cut it short, which leaves a
    /// file that is replaced as it was.
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
                        // Whoever follows has gone, with everything else: there is nothing new to come.
                        Err(_) => pending().await,
                    },
                    () = sleep_until(again) => break,
                }
            }
            doing = begin(&target, &job);
        }
    }
}

/// Begins `job` on a thread of its own. Where none can be started, that is a failure like one of the disk.
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

/// What the log was told of the file.
#[derive(Debug, Default)]
struct Told {
    file: String,
    /// Why it cannot be written.
    failure: Option<String>,
    /// That it is not replaced.
    rewrites: bool,
}

impl Told {
    /// Waits for the disk, and says so when that takes long.
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
        let keeper = Keeper::start(target, false).await.unwrap();
        tokio::select! {
            never = keeper.keep(snapshots, |_| news.take()) => match never {},
            () = check => {}
        }
    }
}
