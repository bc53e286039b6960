//! Asks etcd again and again who may elect, until there is an answer.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::{
    super::retry::{TRY_EVERY, is_final},
    NotAgreed,
};
use crate::{
    bootstrap::{self, Answer, Asker, Candidate, Change, Cluster, Epoch, Note, Obstacle, Settling, Step},
    etcd::{Bootstrap, Error},
};

/// How long a host that has a note asks etcd. The only news that etcd could have for it is a reset.
const WITH_A_NOTE: Duration = Duration::from_secs(3);

/// How long to ask, and for what to wait.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    /// Longest time until the answer.
    pub within: Duration,
    /// Wait for the other candidates, and for etcd, without an end. `within` then only limits how long a node that has
    /// data waits for etcd.
    pub wait: bool,
    /// How long all candidates must be there before the list is frozen.
    pub hold: Duration,
    /// Whether the node has data, which means that it ran before.
    pub node_has_data: bool,
}

/// An answer, and the epoch in which it was given. The epoch is `None` if etcd could not be asked or has none.
pub(super) struct Given {
    pub answer: Answer,
    pub epoch: Option<Epoch>,
}

/// Asks on behalf of `me`, whose host has `note`. Every error is tried again, except a refusal.
///
/// # Errors
/// [`Error`] or [`NotAgreed`]. Safe to drop; the candidate's key then ends with its lease.
pub(super) async fn ask(
    stored: &mut Bootstrap,
    me: Candidate,
    note: Option<Note>,
    patience: &Patience,
) -> anyhow::Result<Given> {
    let mut asking = Asking {
        settling: Settling::new(patience.hold),
        failure: Failure::Etcd(Error::no_answer()),
        said: None,
        said_waiting: false,
        registered: false,
        stored,
        me,
        note,
        patience,
    };
    asking.answer().await
}

struct Asking<'a> {
    stored: &'a mut Bootstrap,
    me: Candidate,
    /// The note of this host; `None` as soon as etcd shows that it is void.
    note: Option<Note>,
    patience: &'a Patience,
    settling: Settling,
    /// What prevented an answer at the last try.
    failure: Failure,
    /// The obstacle that was logged last.
    said: Option<Obstacle>,
    /// Whether it was logged that we wait for etcd.
    said_waiting: bool,
    /// Whether we registered as a candidate before.
    registered: bool,
}

/// What prevented an answer.
enum Failure {
    Etcd(Error),
    Waiting(Obstacle),
}

impl Asking<'_> {
    async fn answer(&mut self) -> anyhow::Result<Given> {
        let mut deadline = Instant::now() + self.limit();
        loop {
            let pause = match timeout_at(deadline, self.turn()).await {
                Err(_) => {
                    // With `wait`, the deadline moves on whenever etcd answers, so etcd has been silent since then.
                    if self.patience.wait && matches!(self.failure, Failure::Waiting(_)) {
                        self.failure = Failure::Etcd(Error::no_answer());
                    }
                    self.saw_etcd_fail();
                    None
                }
                Ok(Ok((epoch, step))) => {
                    if self.note.as_ref().is_some_and(|note| !note.holds(epoch.unwrap_or_default())) {
                        info!("the note of this host is void: there was a reset, or a new cluster, after it");
                        self.note = None;
                        deadline = Instant::now() + self.limit();
                    }
                    match step {
                        Step::Done(answer) => {
                            let epoch = bootstrap::started_in(&answer, self.note.as_ref(), epoch);
                            return Ok(Given { answer, epoch });
                        }
                        Step::Refuse(obstacle) => return Err(NotAgreed::Before(obstacle).into()),
                        // Another process registered under our name. We wait before we register again: otherwise both
                        // would do it without an end, and nobody could freeze a list.
                        Step::Change(Change::Register, _)
                            if std::mem::replace(&mut self.registered, true) =>
                        {
                            Some(TRY_EVERY)
                        }
                        // The change was made, or another process made one first. In both cases we look again soon.
                        Step::Change(..) => Some(TRY_EVERY.mul_f64(fastrand::f64() / 10.0)),
                        Step::Wait(obstacle) => {
                            self.is_in_the_way(obstacle);
                            if self.patience.wait {
                                // Etcd answered, so the time that it may be silent starts again with the next look.
                                sleep(TRY_EVERY).await;
                                deadline = Instant::now() + self.limit();
                                continue;
                            }
                            Some(TRY_EVERY)
                        }
                    }
                }
                Ok(Err(error)) => {
                    let is_final = is_final(&error);
                    self.failure = Failure::Etcd(error);
                    if is_final && !self.patience.node_has_data { None } else { Some(TRY_EVERY) }
                }
            };
            let is_over = match pause {
                Some(pause) => timeout_at(deadline, sleep(pause)).await.is_err(),
                None => true,
            };
            if is_over {
                if let Some(given) = self.without_etcd()? {
                    return Ok(given);
                }
                deadline = Instant::now() + self.limit();
            }
        }
    }

    /// How long etcd may be silent before we decide without it.
    fn limit(&self) -> Duration {
        if self.note.is_some() { self.patience.within.min(WITH_A_NOTE) } else { self.patience.within }
    }

    /// Notes that etcd failed. Others may have lost their leases meanwhile, and need time to come back.
    fn saw_etcd_fail(&mut self) {
        self.me.said.saw_etcd_fail = true;
        self.settling.interrupt();
    }

    /// Reads what is stored, and makes the next change if there is one. Returns the stored epoch, if there is one, and
    /// the step that was due.
    async fn turn(&mut self) -> Result<(Option<Epoch>, Step), Error> {
        let had_session = self.stored.session().is_some();
        let looked = self.stored.look().await;
        // If our lease was kept alive and is gone all the same, etcd failed, even if it answers now.
        if looked.as_ref().is_err_and(|error| !is_final(error))
            || (had_session && self.stored.session().is_none())
        {
            self.saw_etcd_fail();
        }
        let view = looked?;
        let settled = self.settling.take(&view, self.me.said.expect, Instant::now());
        let asker = Asker {
            me: &self.me,
            session: self.stored.session(),
            note: self.note.as_ref(),
            settled,
            // This epoch is made from the current time. If etcd loses its data and a list is frozen again, that list
            // has another epoch.
            fresh: Epoch::default().next(SystemTime::now()),
        };
        let step = bootstrap::decide(&view, asker);
        if let Step::Change(change, conditions) = &step {
            self.stored.change(change, Some(&self.me), conditions).await?;
        }
        Ok((view.epoch.and_then(|(_, epoch)| epoch.ok()), step))
    }

    fn is_in_the_way(&mut self, obstacle: Obstacle) {
        if self.said.as_ref() != Some(&obstacle) {
            match &obstacle {
                Obstacle::TooFew { .. } | Obstacle::Settling { .. } => {
                    info!(reason = %obstacle, "no agreement yet");
                }
                _ => warn!(reason = %obstacle, "no agreement yet"),
            }
            self.said = Some(obstacle.clone());
        }
        self.failure = Failure::Waiting(obstacle);
    }

    /// The time is over: decides without etcd. `None` means to go on waiting.
    fn without_etcd(&mut self) -> anyhow::Result<Option<Given>> {
        let join = |cluster| {
            let answer = Answer::Join(cluster);
            let epoch = bootstrap::started_in(&answer, self.note.as_ref(), None);
            Ok(Some(Given { answer, epoch }))
        };
        if self.note.is_some() {
            return join(Cluster::NotedAlone);
        }
        match &self.failure {
            Failure::Etcd(_) if self.patience.node_has_data => join(Cluster::NodeData),
            Failure::Etcd(error) if self.patience.wait && !is_final(error) => {
                if !std::mem::replace(&mut self.said_waiting, true) {
                    warn!(
                        reason = %error,
                        "waiting for etcd: a node that was never in a cluster has to be told who may elect"
                    );
                }
                Ok(None)
            }
            Failure::Etcd(error) => {
                Err(anyhow::Error::from(error.clone()).context("failed to agree on the first masters"))
            }
            Failure::Waiting(obstacle) => {
                let (obstacle, within) = (obstacle.clone(), self.patience.within);
                Err(NotAgreed::InTime { obstacle, within }.into())
            }
        }
    }
}

/// Whether there is node data in `directory`, CrateDB's `path.data`: whether its directory `nodes` holds anything
/// (`NodeEnvironment`, `NODES_FOLDER`). A directory that cannot be read counts as data, because a node that starts
/// without a list of first masters elects nobody.
pub(super) fn has_node_data(directory: &Path) -> bool {
    match std::fs::read_dir(directory.join("nodes")) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}
