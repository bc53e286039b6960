//! `bootstrap`: who may elect the first master, agreed on once per cluster.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::{
    bootstrap::{self, Answer, Candidate, Change, Cluster, MachineId, Obstacle, Said, Step, View},
    etcd::{Bootstrap, Error, Registry},
    host::Host,
    publish::file::{How, Target},
};

/// Between two looks while something has to happen first.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to do.
#[derive(Clone, Debug)]
pub enum Options {
    /// Agree on the first masters.
    Agree(Agree),
    /// `--show`.
    Show,
    /// `--reset`, for so long at most.
    Reset(Duration),
}

/// How to agree, and where to say on what.
#[derive(Clone, Debug)]
pub struct Agree {
    /// How many names the list has to have; 0: nobody is to elect, and etcd is not asked.
    pub expect: u32,
    /// CrateDB's `node.name`.
    pub name: Host,
    /// Longest time to the answer.
    pub within: Duration,
    /// `within` is for etcd alone, and starts anew whenever that answers: the other candidates may take as long as they
    /// like. A node that started without them would be announced, and they would join a cluster that nobody elects.
    pub wait: bool,
    /// An assignment for a systemd `EnvironmentFile=`, instead of the bare names.
    pub env: bool,
    /// The file to replace, instead of printing.
    pub output: Option<PathBuf>,
}

/// There was no agreement.
#[derive(Debug, thiserror::Error)]
pub enum NotAgreed {
    /// Not enough candidates in time.
    #[error("{obstacle} (waited {})", humantime::format_duration(*.within))]
    InTime {
        /// Why.
        obstacle: Obstacle,
        /// `--timeout`.
        within: Duration,
    },
    /// This has to be put right first.
    #[error(transparent)]
    Before(Obstacle),
}

/// A cluster is there, so its beginning cannot be forgotten.
#[derive(Debug, thiserror::Error)]
#[error("failed to reset: {0} is announced, so there may be a cluster: stop all nodes first")]
pub struct StillAnnounced(pub String);

/// Agrees, shows or resets until it is done or `signal` resolves; gives the signal. The candidate is
/// withdrawn in either case, within a second.
///
/// # Errors
/// [`Error`], [`NotAgreed`], [`StillAnnounced`], or a file that cannot be written. Nothing was printed
/// then, and the file of [`Agree::output`], if it can be written, names nobody: a node that is given
/// no masters waits, which is safe, and a list that is left over from an earlier start is not.
pub async fn run(
    registry: Registry,
    options: Options,
    signal: impl Future<Output = i32>,
) -> anyhow::Result<Option<i32>> {
    let mut stored = registry.bootstrap();
    let work = async {
        match options {
            Options::Agree(options) => agree(&mut stored, options).await,
            Options::Show => show(&mut stored).await,
            Options::Reset(within) => reset(&mut stored, within).await,
        }
    };
    let ended = tokio::select! {
        done = work => done.map(|()| None),
        signal = signal => Ok(Some(signal)),
    };
    stored.leave().await;
    ended
}

async fn agree(stored: &mut Bootstrap, options: Agree) -> anyhow::Result<()> {
    let Agree { expect, name, within, wait, env, output } = options;
    let output = output.map(|path| Target { option: "--output", path, how: How::Replace });
    if let Some(file) = &output {
        // Before anything can go wrong or end us.
        file.write(&render(None, env))?;
    }
    let answer = if expect == 0 {
        info!("nobody is to elect the first master: \"--expect\" is 0");
        None
    } else {
        let machine = MachineId::of_this_machine()?;
        let me = Candidate { name, said: Said { expect, machine } };
        Some(ask(stored, &me, within, wait).await?)
    };
    match &answer {
        Some(Answer::Elect(list)) => info!(%list, "these may elect the first master"),
        Some(Answer::Join(cluster @ Cluster::Formed(_))) => {
            info!(reason = %cluster, "join: nobody may elect a first master");
        }
        // The one case in which it may be wrong.
        Some(Answer::Join(cluster @ Cluster::Announced(_))) => warn!(
            reason = %cluster,
            "join: nobody may elect a first master. If there is no cluster: stop all nodes, delete what is left under \
             the prefix, and start them again, each with the same \"--expect\""
        ),
        None => {}
    }
    let text = render(answer.as_ref(), env);
    match output {
        Some(file) => _ = file.write(&text)?,
        None => print(&text)?,
    }
    Ok(())
}

/// Looks and does what is next until there is an answer. Everything but a refusal is tried again.
async fn ask(stored: &mut Bootstrap, me: &Candidate, within: Duration, wait: bool) -> anyhow::Result<Answer> {
    let mut deadline = Instant::now() + within;
    let mut failure = Failure::Etcd(Error::Unavailable("no answer in time".to_owned()));
    let (mut said, mut registered) = (None, false);
    loop {
        let pause = match timeout_at(deadline, turn(stored, me)).await {
            Err(_) => return Err(failure.into_error(within)),
            Ok(Ok(Step::Done(answer))) => return Ok(answer),
            Ok(Ok(Step::Refuse(obstacle))) => return Err(NotAgreed::Before(obstacle).into()),
            // Another process of ours took the place that we had: not over and over, or nobody can freeze a list.
            Ok(Ok(Step::Change(Change::Register, _))) if std::mem::replace(&mut registered, true) => {
                LOOK_EVERY
            }
            // Done, or somebody else did something: all is different now.
            Ok(Ok(Step::Change(..))) => LOOK_EVERY.mul_f64(fastrand::f64() / 10.0),
            Ok(Ok(Step::Wait(obstacle))) => {
                if said.as_ref() != Some(&obstacle) {
                    match &obstacle {
                        Obstacle::TooFew { .. } => info!(reason = %obstacle, "no agreement yet"),
                        _ => warn!(reason = %obstacle, "no agreement yet"),
                    }
                    said = Some(obstacle.clone());
                }
                failure = Failure::Waiting(obstacle);
                if wait {
                    deadline = Instant::now() + within;
                }
                LOOK_EVERY
            }
            Ok(Err(error)) if is_final(&error) => return Err(Failure::Etcd(error).into_error(within)),
            Ok(Err(error)) => {
                failure = Failure::Etcd(error);
                LOOK_EVERY
            }
        };
        if timeout_at(deadline, sleep(pause)).await.is_err() {
            return Err(failure.into_error(within));
        }
    }
}

/// Looks, and makes the change that is next, if one is.
async fn turn(stored: &mut Bootstrap, me: &Candidate) -> Result<Step, Error> {
    let view = stored.look().await?;
    let step = bootstrap::decide(&view, me, stored.session());
    if let Step::Change(change, conditions) = &step {
        stored.change(change, Some(me), conditions).await?;
    }
    Ok(step)
}

fn is_final(error: &Error) -> bool {
    error.is_refusal() || matches!(error, Error::Unusable(_))
}

/// What stood in the way last.
enum Failure {
    Etcd(Error),
    Waiting(Obstacle),
}

impl Failure {
    fn into_error(self, within: Duration) -> anyhow::Error {
        match self {
            Self::Etcd(error) => anyhow::Error::from(error).context("failed to agree on the first masters"),
            Self::Waiting(obstacle) => NotAgreed::InTime { obstacle, within }.into(),
        }
    }
}

/// CrateDB refuses to start on `-Ccluster.initial_master_nodes=` without a value
/// (`EnvironmentAwareCommand`), so there is no flag without names.
fn render(answer: Option<&Answer>, env: bool) -> String {
    match (answer, env) {
        (Some(Answer::Elect(list)), true) => {
            format!("CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes={list}\n")
        }
        (Some(Answer::Elect(list)), false) => format!("{list}\n"),
        (_, true) => "CRATE_BOOTSTRAP_FLAGS=\n".to_owned(),
        (_, false) => String::new(),
    }
}

async fn show(stored: &mut Bootstrap) -> anyhow::Result<()> {
    let view = stored.look().await.context("failed to read from etcd")?;
    print(&text(&view))
}

/// One line each, a tab after what it is.
fn text(view: &View) -> String {
    let none = || "-".to_owned();
    let list = view.list.as_ref().map_or_else(none, |(_, list)| match list {
        Ok(list) => list.to_string(),
        Err(reason) => format!("invalid: {}", crate::text::escape(reason.as_bytes())),
    });
    let formed = view.formed.as_ref().map_or_else(none, |(_, by)| by.clone());
    let announced = view.announced.clone().unwrap_or_else(none);
    let mut text = format!("list\t{list}\nformed\t{formed}\nannounced\t{announced}\n");
    for registered in &view.candidates {
        let Candidate { name, said } = &registered.candidate;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "candidate\t{name}\t{}\t{}", said.expect, said.machine);
    }
    text
}

async fn reset(stored: &mut Bootstrap, within: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    let mut failure = Error::Unavailable("no answer in time".to_owned());
    let mut before: Option<View> = None;
    loop {
        match timeout_at(deadline, try_reset(stored, &mut before)).await {
            Err(_) => break,
            Ok(Ok(Some(Err(announced)))) => return Err(announced.into()),
            Ok(Ok(Some(Ok(())))) => {
                info!("reset: nobody is listed, and no cluster is known to have formed");
                return Ok(());
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) if is_final(&error) => {
                failure = error;
                break;
            }
            Ok(Err(error)) => failure = error,
        }
        if timeout_at(deadline, sleep(LOOK_EVERY)).await.is_err() {
            break;
        }
    }
    Err(anyhow::Error::from(failure).context("failed to reset"))
}

/// One try: done, refused, or to be tried again. `before` is what was to be reset by the last one.
async fn try_reset(
    stored: &mut Bootstrap,
    before: &mut Option<View>,
) -> Result<Option<Result<(), StillAnnounced>>, Error> {
    let now = stored.look().await?;
    // The last try did it, and its answer was lost.
    if before.as_ref().is_some_and(|before| bootstrap::is_reset(before, &now)) {
        return Ok(Some(Ok(())));
    }
    if let Some(key) = now.announced {
        return Ok(Some(Err(StillAnnounced(key))));
    }
    let (change, conditions) = bootstrap::reset(&now);
    *before = Some(now);
    let done = stored.change(&change, None, &conditions).await?;
    if !done {
        // Nothing was reset, so nothing is awaited.
        *before = None;
    }
    Ok(done.then_some(Ok(())))
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("failed to write to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{Cluster, List, Listed};

    #[test]
    fn no_flag_is_left_without_a_value() {
        let machine = MachineId::derive(&"5".repeat(32)).unwrap();
        let node = |name: &str| Listed { name: name.parse().unwrap(), machine: machine.clone() };
        let elect = Answer::Elect(List { nodes: vec![node("b"), node("a")] });
        let join = Answer::Join(Cluster::Formed("a".to_owned()));
        assert_eq!(render(Some(&elect), true), "CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=b,a\n");
        assert_eq!(render(Some(&elect), false), "b,a\n");
        for nobody in [Some(&join), None] {
            assert_eq!(render(nobody, true), "CRATE_BOOTSTRAP_FLAGS=\n");
            assert_eq!(render(nobody, false), "");
        }
    }
}
