//! `announce`: keeps this host announced, probes its node, and keeps its feeds current.

use std::{path::PathBuf, time::Duration};

use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::{Access, own_host};
use crate::{
    announcement::Announcement,
    announcer::{
        self, Notice, Supervisor,
        noting::{self, Noting},
    },
    bootstrap::Memory,
    feeds::{self, Feeds},
    host::Host,
    names::Names,
    node::{self, check::Check, gate},
    process::systemd::Manager,
};

/// Longest time for the lookup that tells whether our host resolves to loopback only.
const LOOKUP: Duration = Duration::from_secs(2);

/// The options of `announce`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The host; `None` is the host name of the system.
    pub host: Option<Host>,
    /// The value of the key.
    pub announcement: Announcement,
    /// The TTL to ask etcd for, in whole seconds.
    pub ttl: Duration,
    /// The checks, and how they are run.
    pub gate: gate::Settings,
    /// Longest time for the withdrawal.
    pub stop_timeout: Duration,
    /// The directory for the notes of this host; `None` means that it keeps no notes.
    pub state_dir: Option<PathBuf>,
    /// The feeds to keep current.
    pub feeds: Feeds,
}

/// Keeps the host announced until `signal` resolves, and then withdraws. It returns `None` for the signal, because that
/// is the normal end.
///
/// # Errors
/// At the start: a file at a place that waiting cannot make usable, or a host without a usable name. At the end:
/// [`announcer::NotWithdrawn`].
pub async fn run(
    access: Access,
    options: Options,
    signal: impl Future<Output = i32>,
) -> anyhow::Result<Option<i32>> {
    let Options { host, announcement, ttl, gate, stop_timeout, state_dir, feeds } = options;
    // A file that disappears after this check is waited for.
    access.etcd.look_at_files().await?;
    let registry = access.connect();
    let host = own_host(host)?;
    let (stop_feeds, feeds_stopped) = oneshot::channel::<()>();
    let (claims, claimed) = watch::channel(0);
    let feeding = feeds::follow(feeds, || access.connect(), claimed.clone(), feeds_stopped).await?;
    let own_key = registry.own_key(&host, &announcement, ttl);
    say_start(&access, &host, own_key.key(), ttl, &gate);

    // The mark "formed" has a connection of its own, so that it never delays the announcement.
    let noting = Noting {
        memory: Memory::of_this_machine(state_dir, &access.prefix),
        mark: access.connect().formed_mark(&host),
        asks_cratedb: gate.checks.iter().any(Check::asks_cratedb),
    };
    tokio::spawn(warn_of_loopback(announcement.address.unwrap_or(host), access.names.clone()));
    let manager = Manager::from_env();
    let tell = |notice, status: &str| match (notice, &manager) {
        (Notice::Ready, Some(manager)) => manager.ready(status),
        (Notice::Alive, Some(manager)) => manager.alive(status),
        (Notice::Stopping, Some(manager)) => manager.stopping(status),
        (_, None) => {}
    };
    let supervisor = manager.as_ref().map(|manager| Supervisor { every: manager.every(), tell: &tell });
    let shutdown = async {
        _ = signal.await;
        // The feeds stop first and stay as they are: our own node does not have to see our withdrawal.
        drop(stop_feeds);
    };

    let (probes, reports) = node::channel(&gate);
    let noting = noting::run(noting, reports.clone(), claimed);
    let probing = gate::run(gate, access.names.clone(), probes);
    let announcing = announcer::run(own_key, reports, claims, stop_timeout, shutdown, supervisor);
    let ended = tokio::select! {
        ended = announcing => ended,
        never = feeding => match never {},
        never = probing => match never {},
        never = noting => match never {},
    };
    ended.map(|()| None).map_err(Into::into)
}

fn say_start(access: &Access, host: &Host, key: &str, ttl: Duration, gate: &gate::Settings) {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(",");
    info!(
        version = env!("CARGO_PKG_VERSION"),
        %host,
        key,
        ttl = %humantime::format_duration(ttl),
        endpoints = list(&mut access.etcd.endpoints.iter().map(ToString::to_string)),
        user = access.etcd.login.as_ref().map_or("none", |login| &login.user),
        checks = list(&mut gate.checks.iter().map(ToString::to_string)),
        "starting"
    );
}

/// Warns once if our own name service resolves `target` to loopback only: peers on other machines could not join it.
async fn warn_of_loopback(target: Host, names: Names) {
    if names.is_loopback_only(&target, LOOKUP).await {
        warn!(%target, "peers on other machines cannot join: this resolves to loopback only, set --address");
    }
}
