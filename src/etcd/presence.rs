//! The announcements with their leases, and how long those still live.

use tokio::task::JoinSet;

use super::{connection::Connection, dial::Member, error::Error, lease_requests, list::Entry};
use crate::{
    lease::{LeaseId, Ttl},
    snapshot::Node,
};

/// How many leases are asked for at once, within one attempt.
const BATCH: usize = 100;

/// The announcements that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The revision of etcd's store that was read.
    pub revision: i64,
    /// The announcements, sorted bytewise by host.
    pub announced: Vec<Presence>,
}

/// One announcement, with its lease and revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The host and its announcement.
    pub node: Node,
    /// The lease that the key is attached to. `None` if somebody put the key by hand.
    pub lease: Option<LeaseId>,
    /// How long that lease lives. `None` without a lease, or if etcd does not tell.
    pub ttl: Option<Ttl>,
    /// The revision at which the key was put last.
    pub mod_revision: i64,
}

/// Asks for the leases of `entries`. A lease that has ended meanwhile, or that we have no permission for, has no TTL.
pub(super) async fn with_ttl(
    connection: &mut Connection,
    mut entries: Vec<Entry>,
) -> Result<Vec<Presence>, Error> {
    entries.sort_unstable_by(|a, b| a.node.host.cmp(&b.node.host));
    let mut ttls = Vec::with_capacity(entries.len());
    for batch in entries.chunks(BATCH) {
        let leases: Vec<_> = batch.iter().map(|entry| entry.lease).collect();
        ttls.extend(connection.at_each_endpoint(async |connection| ask(connection, &leases).await).await?);
    }
    let presence = |(Entry { node, lease, mod_revision }, ttl)| Presence { node, lease, ttl, mod_revision };
    Ok(entries.into_iter().zip(ttls).map(presence).collect())
}

/// Asks for all of them at once, in one attempt. One after the other, a thousand would take long.
async fn ask(connection: &mut Connection, leases: &[Option<LeaseId>]) -> Result<Vec<Option<Ttl>>, Error> {
    connection
        .call(async |client: Member| {
            let mut asked = JoinSet::new();
            for (number, lease) in leases.iter().enumerate() {
                if let Some(lease) = *lease {
                    let client = client.clone();
                    asked.spawn(async move { (number, lease_requests::time_to_live(client, lease).await) });
                }
            }
            let mut ttls = vec![None; leases.len()];
            while let Some(answered) = asked.join_next().await {
                // This is never an error: the task does not panic, and nobody aborts it while we wait here.
                let Ok((number, answer)) = answered else { continue };
                ttls[number] = match answer {
                    Ok(ttl) => ttl,
                    Err(error @ Error::Unavailable(_)) => return Err(error),
                    Err(_) => None,
                };
            }
            Ok(ttls)
        })
        .await
}
