//! The feeds: lists of seeds that CrateDB reads again in each round of its discovery. We keep them current from the
//! announcements in etcd.

mod keeper;
pub mod srv;

use std::{convert::Infallible, future::pending, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{Instrument, info_span};

pub(crate) use self::keeper::Keeper;
use self::srv::name::ServiceName;
use crate::{
    announcement::Port,
    etcd::Registry,
    file::{How, Target, UnwritableFile},
    snapshot::{Snapshot, Snapshots},
};

/// The longest time that the feeds wait for the first claim of our own key. A host that waits for its node, or for
/// etcd, needs its peers all the same.
const FIRST_CLAIM: Duration = Duration::from_secs(1);
/// The first list is read within this time after that wait. The moment is random, so that a fleet does not read all at
/// once.
const SPREAD: Duration = Duration::from_secs(1);

/// The feeds to keep current.
#[derive(Clone, Debug)]
pub struct Feeds {
    /// The path of CrateDB's `unicast_hosts.txt`.
    pub seed_file: Option<PathBuf>,
    /// Rewrite that file in place, instead of replacing it.
    pub seed_file_in_place: bool,
    /// The address on which to answer DNS SRV, over UDP and TCP.
    pub srv: Option<SocketAddr>,
    /// The name that CrateDB asks for.
    pub srv_name: ServiceName,
    /// How long a host that is missing after an outage stays in the feeds.
    pub hold: Duration,
}

impl Feeds {
    /// Whether there is no feed.
    pub(crate) fn is_empty(&self) -> bool {
        self.seed_file.is_none() && self.srv.is_none()
    }

    /// Looks at the seed file, and returns the future that keeps the feeds current. That future never ends; it logs
    /// what it cannot do, and tries again. This takes at most a second. Safe to drop: everything stays as it is.
    ///
    /// # Errors
    /// [`UnwritableFile`] if waiting cannot help.
    pub(crate) async fn open(
        self,
        snapshots: Snapshots,
    ) -> Result<impl Future<Output = Infallible>, UnwritableFile> {
        let how = if self.seed_file_in_place { How::InPlace } else { How::Replace };
        let keeper = match self.seed_file {
            Some(path) => Some(Keeper::start(Target { option: "--seed-file", path, how }, true).await?),
            None => None,
        };
        Ok(async move {
            let file = async {
                match keeper {
                    Some(keeper) => keeper.keep(snapshots.clone(), |all| Some(seed_lines(all))).await,
                    None => pending().await,
                }
            };
            let srv = async {
                match self.srv {
                    Some(address) => srv::serve(address, self.srv_name, snapshots.clone()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                never = file => never,
                never = srv => never,
            }
        })
    }
}

/// Keeps `feeds` current beside an announcer until `stop` resolves, and then leaves everything as it is. The returned
/// future never ends. It uses a connection of its own, from `connect`, so that it can never delay the announcement. If
/// there is no feed, there is no connection either. The first list is read after the first claim that `claimed` counts,
/// or soon after the start if there is none.
///
/// # Errors
/// As [`Feeds::open`], within a second.
pub(crate) async fn follow(
    feeds: Feeds,
    connect: impl FnOnce() -> Registry,
    mut claimed: watch::Receiver<u64>,
    stop: impl Future,
) -> anyhow::Result<impl Future<Output = Infallible>> {
    let hold = feeds.hold;
    let (publish, snapshots) = watch::channel(None);
    let registry = if feeds.is_empty() { None } else { Some(connect()) };
    let feeding = feeds.open(snapshots).await?;
    Ok(async move {
        if let Some(registry) = registry {
            let following = async {
                after_the_first_claim(&mut claimed).await;
                registry.follow(hold, publish).await
            };
            tokio::select! {
                never = following => match never {},
                never = feeding => match never {},
                _ = stop => {}
            }
        }
        pending().await
    }
    // Both connections log the state of etcd, so the lines of this one get a name.
    .instrument(info_span!("feeds")))
}

/// Resolves when the first list may be read. When a fleet starts, each claim is an event for every host that already
/// follows. So a host that follows before the others have claimed takes time from etcd that they need.
async fn after_the_first_claim(claimed: &mut watch::Receiver<u64>) {
    _ = timeout(FIRST_CLAIM, claimed.wait_for(|claims| *claims > 0)).await;
    sleep(SPREAD.mul_f64(fastrand::f64())).await;
}

/// The text of `unicast_hosts.txt`: one seed per line. CrateDB does not trim a line, and does not skip an empty one: it
/// would read it as loopback (`FileBasedSeedHostsProvider`, `TcpTransport.parse`).
fn seed_lines(snapshot: &Snapshot) -> String {
    snapshot.seeds(Port::Transport).map(|seed| seed + "\n").collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{announcement::Announcement, snapshot::Node};

    proptest! {
        #[test]
        fn each_line_is_one_seed_and_no_line_is_anything_else(
            hosts in proptest::collection::vec(("[A-Za-z0-9_][A-Za-z0-9._-]{0,20}|(::)?[0-9a-f]{1,4}::?[0-9]", 1u16..), 0..9),
        ) {
            let nodes: Vec<Node> = hosts
                .iter()
                .filter_map(|(host, port)| {
                    let value = format!(r#"{{"http":1,"transport":{port}}}"#);
                    let announcement = Announcement::from_json(value.as_bytes()).ok()?;
                    Some(Node { host: host.parse().ok()?, announcement })
                })
                .collect();
            let count = nodes.len();
            let text = seed_lines(&Snapshot::new(1, nodes));
            prop_assert_eq!(text.matches('\n').count(), count);
            for line in text.split_terminator('\n') {
                let (host, port) = line.rsplit_once(':').expect("a port");
                prop_assert!(port.parse::<u16>().is_ok(), "{}", line);
                prop_assert!(!host.is_empty() && !host.starts_with('#') && !host.contains(char::is_whitespace), "{}", line);
                prop_assert_eq!(host.contains(':'), host.starts_with('[') && host.ends_with(']'), "{}", line);
            }
        }
    }
}
