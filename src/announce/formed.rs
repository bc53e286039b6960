//! Says beside the announcer, and never in its way, that the cluster has formed: from then on
//! `bootstrap` hands out no first masters any more.

use std::{convert::Infallible, time::Duration};

use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::{
    etcd::{Error, FormedMark},
    node::Reports,
};

/// How often it is looked whether it still stands there. A reset that a new cluster follows, and a
/// store that lost its data, are healed by it.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Between two tries where etcd does not answer; the connection adds its own.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two tries where etcd refuses: the role may be given the permission.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Waits until the node says that it knows a master and then notes it, again and again; a refusal is
/// warned about once, and tried again. Without a `mark`, as where no check asks CrateDB itself, it does
/// nothing. Safe to drop.
pub async fn tell(mark: Option<FormedMark>, mut reports: Reports) -> Infallible {
    let Some(mut mark) = mark else { return std::future::pending().await };
    let mut warned = false;
    loop {
        until_master(&mut reports).await;
        match mark.put().await {
            Ok(true) => info!(key = mark.key(), "the cluster has formed"),
            Ok(false) => debug!(key = mark.key(), "the cluster had formed"),
            Err(Error::Refused(reason)) => {
                if !std::mem::replace(&mut warned, true) {
                    warn!(
                        key = mark.key(),
                        reason,
                        "cannot say that the cluster has formed, and so wiped nodes may elect another one: give our role \
                         readwrite on this key"
                    );
                }
                sleep(REFUSED_PAUSE).await;
                continue;
            }
            Err(error) => {
                debug!(%error, "failed to say that the cluster has formed");
                sleep(PAUSE).await;
                continue;
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn until_master(reports: &mut Reports) {
    if reports.wait_for(|report| report.told.has_master()).await.is_err() {
        // Nobody probes any more.
        std::future::pending().await
    }
}
