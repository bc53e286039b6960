//! `bootstrap`: makes the first nodes of a cluster agree, once, on who may elect the first master.

mod ask;
mod operate;

use std::{path::PathBuf, time::Duration};

use tracing::{info, warn};

use self::ask::{Patience, ask, has_node_data};
use super::{Access, print, until};
use crate::{
    bootstrap::{Answer, BootId, Candidate, Cluster, MachineId, Memory, Obstacle, Said, Started},
    etcd::Bootstrap,
    file::{How, Target},
    host::Host,
    thread,
};

/// What `bootstrap` is to do.
#[derive(Clone, Debug)]
pub enum Options {
    /// Agree on the first masters.
    Agree(Agree),
    /// `--show`: print what is stored.
    Show,
    /// `--reset`: forget the cluster. The value is the longest time for it.
    Reset(Duration),
}

/// How to agree, and where to write the answer.
#[derive(Clone, Debug)]
pub struct Agree {
    /// How many names the list must have. With 0 nobody may elect, and etcd is not asked.
    pub expect: u32,
    /// The `node.name` of CrateDB.
    pub name: Host,
    /// Longest time to the answer.
    pub within: Duration,
    /// Wait for the others, and for etcd, without an end. If a node started without them, it would be announced, and
    /// the others would join a cluster that nobody elects. With `wait`, `within` only limits how long a node that has
    /// data waits for etcd.
    pub wait: bool,
    /// How long all candidates must be there, with no node announced, before the list is frozen. It is three times as
    /// long if etcd failed meanwhile.
    pub hold: Duration,
    /// The directory for the notes of this host; `None` means that it keeps no notes.
    pub state_dir: Option<PathBuf>,
    /// CrateDB's `path.data`. A node that has data there ran before, and starts even while etcd is away.
    pub node_data: Option<PathBuf>,
    /// Write an assignment for a systemd `EnvironmentFile=` instead of the bare names.
    pub env: bool,
    /// The file to replace; `None` prints to stdout.
    pub output: Option<PathBuf>,
}

/// The nodes did not agree.
#[derive(Debug, thiserror::Error)]
pub enum NotAgreed {
    /// There was no agreement in time.
    #[error("{obstacle} (waited {})", humantime::format_duration(*.within))]
    InTime {
        /// What was missing.
        obstacle: Obstacle,
        /// `--timeout`.
        within: Duration,
    },
    /// Something must be put right before the nodes can agree.
    #[error(transparent)]
    Before(Obstacle),
}

/// A reset was refused: a node is announced, so there may be a cluster. The field is its key.
#[derive(Debug, thiserror::Error)]
#[error("failed to reset: {0} is announced, so there may be a cluster: stop all nodes first")]
pub struct StillAnnounced(pub String);

/// Agrees, shows or resets until that is done or `signal` resolves; returns the signal in the second case. In both
/// cases the candidate is withdrawn, within a second.
///
/// # Errors
/// [`crate::etcd::Error`], [`NotAgreed`], [`StillAnnounced`], or a file that cannot be written. After an error nothing
/// was printed, and the file of [`Agree::output`] names nobody, unless it cannot be written. That is safe: a node
/// without a list waits, but an old list from an earlier start could elect a second master.
pub async fn run(
    access: Access,
    options: Options,
    signal: impl Future<Output = i32>,
) -> anyhow::Result<Option<i32>> {
    // The files of the credentials are not checked here: if one is missing, etcd cannot be asked, but a host that has a
    // note of its cluster can still start its node.
    let mut stored = access.connect().bootstrap();
    let work = async {
        match options {
            Options::Agree(options) => agree(&mut stored, options).await,
            Options::Show => operate::show(&mut stored).await,
            Options::Reset(within) => operate::reset(&mut stored, within).await,
        }
    };
    let ended = until(signal, work).await;
    stored.leave().await;
    ended
}

async fn agree(stored: &mut Bootstrap, options: Agree) -> anyhow::Result<()> {
    let Agree { expect, name, within, wait, hold, state_dir, node_data, env, output } = options;
    let output = output.map(|path| Target { option: "--output", path, how: How::Replace });
    if let Some(file) = &output {
        // The file is emptied first, so that no old list stays in it if we fail or are ended.
        file.write(&render(None, env))?;
    }
    let machine = MachineId::of_this_machine()?;
    let memory = Memory::new(state_dir, stored.prefix(), machine.clone());
    let given = if expect == 0 {
        info!("nobody is to elect the first master: \"--expect\" is 0");
        None
    } else {
        let note = memory.note().await;
        let patience = Patience { within, wait, hold, node_has_data: node_has_data(node_data).await };
        let said = Said { expect, machine, boot: BootId::of_this_boot(), saw_etcd_fail: false };
        Some(ask(stored, Candidate { name: name.clone(), said }, note, &patience).await?)
    };
    let answer = given.as_ref().map(|given| &given.answer);
    if let Some(answer) = answer {
        report(answer);
    }
    let started = Started {
        prefix: memory.prefix().to_owned(),
        machine: memory.machine().clone(),
        node: name,
        epoch: given.as_ref().and_then(|given| given.epoch),
        elects: matches!(answer, Some(Answer::Elect(_))),
    };
    // The note is written before the answer, because the node may act on the answer at once.
    if let Err(reason) = memory.write_started(&started).await {
        warn!(reason, "this host cannot note what its node is started with");
    }
    let text = render(answer, env);
    match output {
        Some(file) => file.write(&text)?.warn_if_rewritten_instead(&file.path),
        None => print(&text)?,
    }
    Ok(())
}

/// Looks for node data. It does so on a thread of its own, because the disk may hang.
async fn node_has_data(directory: Option<PathBuf>) -> bool {
    match directory {
        // If no thread can be started, the node counts as one that has data, as if the directory could not be read.
        Some(directory) => thread::run("node-data", move || has_node_data(&directory)).await.unwrap_or(true),
        None => false,
    }
}

fn report(answer: &Answer) {
    match answer {
        Answer::Elect(list) => info!(%list, "these may elect the first master"),
        Answer::Join(cluster @ (Cluster::Formed(_) | Cluster::Noted { is_seen: true })) => {
            info!(reason = %cluster, "join: nobody may elect a first master");
        }
        Answer::Join(cluster @ Cluster::Noted { is_seen: false }) => warn!(
            reason = %cluster,
            "join: nobody may elect a first master, although etcd shows no cluster: it may have lost its data. If the \
             cluster is gone for ever: stop all nodes, and run \"bootstrap --reset --yes\""
        ),
        Answer::Join(cluster @ (Cluster::NotedAlone | Cluster::NodeData)) => {
            warn!(reason = %cluster, "join: nobody may elect a first master");
        }
        // This is the one case in which the answer may be wrong.
        Answer::Join(cluster @ Cluster::Announced(_)) => warn!(
            reason = %cluster,
            "join: nobody may elect a first master. If there is no cluster: stop all nodes, delete what is left under \
             the prefix, and start them again, each with the same \"--expect\""
        ),
    }
}

/// The text to print or to write. Without names there is no flag: CrateDB refuses to start on
/// `-Ccluster.initial_master_nodes=` without a value (`EnvironmentAwareCommand`).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{List, Listed};

    #[test]
    fn no_flag_is_left_without_a_value() {
        let machine = MachineId::derive(&"5".repeat(32)).unwrap();
        let node = |name: &str| Listed { name: name.parse().unwrap(), machine: machine.clone() };
        let elect = Answer::Elect(List { epoch: None, nodes: vec![node("b"), node("a")] });
        let join = Answer::Join(Cluster::Formed("a".to_owned()));
        assert_eq!(render(Some(&elect), true), "CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=b,a\n");
        assert_eq!(render(Some(&elect), false), "b,a\n");
        for nobody in [Some(&join), None] {
            assert_eq!(render(nobody, true), "CRATE_BOOTSTRAP_FLAGS=\n");
            assert_eq!(render(nobody, false), "");
        }
    }
}
