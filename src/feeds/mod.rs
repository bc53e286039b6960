//! Feeds: what CrateDB reads anew in every discovery round, kept current from the announcements in etcd.

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

/// How long the feeds wait for the first claim of our own key: a host that waits for its node, or for etcd, needs its
/// peers all the same.
const FIRST_CLAIM: Duration = Duration::from_secs(1);
/// The first list is read within this long after that, not by all of a fleet at the same moment.
const SPREAD: Duration = Duration::from_secs(1);

/// What to keep current.
#[derive(Clone, Debug)]
pub struct Feeds {
    /// CrateDB's `unicast_hosts.txt`.
    pub seed_file: Option<PathBuf>,
    /// Rewrite it, instead of replacing it.
    pub seed_file_in_place: bool,
    /// Where to answer DNS SRV, over UDP and TCP.
    pub srv: Option<SocketAddr>,
    /// The name that is asked for.
    pub srv_name: ServiceName,
    /// How long a host that is missing after an outage stays.
    pub hold: Duration,
}

impl Feeds {
    /// Whether there is nothing to keep current.
    pub(crate) fn is_empty(&self) -> bool {
        self.seed_file.is_none() && self.srv.is_none()
    }

    /// Looks at what is to be kept current, and gives the future that does it. That never ends; what it cannot do it
    /// says in the log, and tries again. Takes at most a second. Safe to drop: everything stays as it is.
    ///
    /// # Errors
    /// [`UnwritableFile`] where no waiting can mend it.
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

/// Keeps `feeds` current beside an announcer, until `stop` resolves: then everything is left as it is. The future never
/// ends. It has a connection of its own, made by `connect`, so that nothing it does can hold up the announcement; where
/// there is nothing to feed there is no connection either. The first list is read after the first claim that `claimed`
/// counts, or soon after the start where there is none.
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
    // Both connections say how they fare.
    .instrument(info_span!("feeds")))
}

/// Resolves when the first list may be read. Each claim of a fleet that starts at once is an event for everybody who
/// follows already, so whoever follows before the others have claimed takes from etcd the time that they need.
async fn after_the_first_claim(claimed: &mut watch::Receiver<u64>) {
    _ = timeout(FIRST_CLAIM, claimed.wait_for(|claims| *claims > 0)).await;
    sleep(SPREAD.mul_f64(fastrand::f64())).await;
}

/// The lines of `unicast_hosts.txt`: CrateDB neither trims a line nor skips a blank one, which it would take for
/// loopback (`FileBasedSeedHostsProvider`, `TcpTransport.parse`).
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
