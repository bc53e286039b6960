//! What an operator does by hand: show what is stored, and reset it.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use tracing::info;

use super::{
    super::{
        print,
        retry::{Tried, retry},
    },
    StillAnnounced,
};
use crate::{
    bootstrap::{self, Candidate, Epoch, View},
    etcd::{Bootstrap, Error},
    host::Host,
};

/// Prints what is stored, and which hosts are announced.
///
/// # Errors
/// [`Error`] of etcd, after which nothing was printed, or a failed write to stdout. Safe to drop.
pub(super) async fn show(stored: &mut Bootstrap) -> anyhow::Result<()> {
    let view = stored.look().await.context("failed to read from etcd")?;
    let (keys, hosts) = stored.announced().await.context("failed to read from etcd")?;
    print(&text(&view, keys, &hosts))
}

/// One line for each thing that is stored, with tabs between the fields. `keys` counts every key under the prefix. A
/// key that is no valid announcement is counted, but has no name in `hosts`.
fn text(view: &View, keys: i64, hosts: &[Host]) -> String {
    let none = || "-".to_owned();
    let epoch = view.epoch.map_or_else(none, |(_, epoch)| match epoch {
        Ok(epoch) => epoch.to_string(),
        Err(error) => format!("invalid: {error}"),
    });
    let list = view.list.as_ref().map_or_else(none, |(_, list)| match list {
        Ok(list) => list.to_string(),
        Err(reason) => format!("invalid: {reason}"),
    });
    let formed = view.formed.as_ref().map_or_else(none, |(_, formed)| formed.by.clone());
    let names: Vec<&str> = hosts.iter().map(Host::as_str).collect();
    let names = if names.is_empty() { none() } else { names.join(",") };
    let mut text = format!("epoch\t{epoch}\nlist\t{list}\nformed\t{formed}\nannounced\t{keys}\t{names}\n");
    for registered in &view.candidates {
        let Candidate { name, said } = &registered.candidate;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "candidate\t{name}\t{}\t{}", said.expect, said.machine);
    }
    text
}

/// Forgets the list and the cluster, and begins a new epoch, which makes the note of every host void.
///
/// # Errors
/// [`StillAnnounced`], or the last error of etcd when the time `within` is over. Safe to drop.
pub(super) async fn reset(stored: &mut Bootstrap, within: Duration) -> anyhow::Result<()> {
    let mut wanted = None;
    let done =
        retry(within, async || try_reset(stored, &mut wanted).await.unwrap_or_else(Tried::of_error)).await;
    match done {
        Ok(()) => {
            info!("reset: nobody is listed, and no cluster is known to have formed");
            Ok(())
        }
        Err(error) if error.is::<Error>() => Err(error.context("failed to reset")),
        Err(error) => Err(error),
    }
}

/// One try to reset. `wanted` is the new epoch. It is chosen at the first look and kept: if the answer to a change is
/// lost, the next look finds this epoch stored and knows that the change was made.
async fn try_reset(stored: &mut Bootstrap, wanted: &mut Option<Epoch>) -> Result<Tried<()>, Error> {
    let now = stored.look().await?;
    let wanted = *wanted.get_or_insert_with(|| now.epoch().unwrap_or_default().next(SystemTime::now()));
    if bootstrap::is_reset(wanted, &now) {
        return Ok(Tried::Done(()));
    }
    if let Some(key) = now.announced {
        return Ok(Tried::Failed(StillAnnounced(key).into()));
    }
    let (change, conditions) = bootstrap::reset(&now, wanted);
    let done = stored.change(&change, None, &conditions).await?;
    // If the change was not made, another process wrote something since our look.
    Ok(if done { Tried::Done(()) } else { Tried::NotYet(None) })
}
