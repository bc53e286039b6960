//! Asks who may elect, again and again, until there is an answer.

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

/// How long etcd is asked by a host that has a note: what it could still say is that there was a reset.
const WITH_A_NOTE: Duration = Duration::from_secs(3);

/// How to ask.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    /// Longest time to the answer.
    pub within: Duration,
    /// Wait for the other candidates, and for etcd, for ever; `within` is then how long a node that has data waits for
    /// etcd.
    pub wait: bool,
    /// How long the candidates have to be there before the list is frozen.
    pub hold: Duration,
    /// Whether the node has data, as one that ran before has.
    pub node_has_data: bool,
}

/// An answer, and the epoch in which it was given: none where etcd could not be asked, or lost it.
pub(super) struct Given {
    pub answer: Answer,
    pub epoch: Option<Epoch>,
}

/// Asks for `me`, whose host remembers `note`. Everything but a refusal is tried again.
///
/// # Errors
/// [`Error`] or [`NotAgreed`]. Safe to drop; the candidate then ends with its lease.
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
    /// Dropped as soon as etcd shows that it is void.
    note: Option<Note>,
    patience: &'a Patience,
    settling: Settling,
    /// What stood in the way last.
    failure: Failure,
    /// The obstacle that was logged last.
    said: Option<Obstacle>,
    /// It was said that we wait for etcd.
    said_waiting: bool,
    /// We registered before.
    registered: bool,
}

/// What stood in the way last.
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
                    // Whoever waits for the others comes here only where etcd is silent.
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
                        // Another process of ours took the place that we had: not over and over, or nobody can freeze
                        // a list.
                        Step::Change(Change::Register, _)
                            if std::mem::replace(&mut self.registered, true) =>
                        {
                            Some(TRY_EVERY)
                        }
                        // Done, or somebody else did something: all is different now.
                        Step::Change(..) => Some(TRY_EVERY.mul_f64(fastrand::f64() / 10.0)),
                        Step::Wait(obstacle) => {
                            self.is_in_the_way(obstacle);
                            if self.patience.wait {
                                // Etcd answered: the time that it may be silent begins with the next look.
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

    /// How long etcd has to be silent until it is decided without it.
    fn limit(&self) -> Duration {
        if self.note.is_some() { self.patience.within.min(WITH_A_NOTE) } else { self.patience.within }
    }

    /// Others may have lost their leases, and be on their way back.
    fn saw_etcd_fail(&mut self) {
        self.me.said.saw_etcd_fail = true;
        self.settling.interrupt();
    }

    /// Looks, and makes the change that is next, if one is. Gives the epoch that is stored, if one is, and what was next.
    async fn turn(&mut self) -> Result<(Option<Epoch>, Step), Error> {
        let had_session = self.stored.session().is_some();
        let looked = self.stored.look().await;
        // A lease that was kept alive and is gone shows the same as an etcd that did not answer.
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
            // Of now: a list that is frozen again, because etcd lost its data, is of another epoch.
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

    /// Time is up: decides without etcd, or gives none to go on waiting.
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

/// Whether there is node data in `directory`, CrateDB's `path.data`: its `nodes` holds something (`NodeEnvironment`,
/// `NODES_FOLDER`). What cannot be looked into counts as data: a node that starts without first masters elects nobody.
pub(super) fn has_node_data(directory: &Path) -> bool {
    match std::fs::read_dir(directory.join("nodes")) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}
