//! The gate: whether the node can be joined. It opens after `rise` good probes in a row, and closes after `fall` bad
//! ones.

use std::{convert::Infallible, time::Duration};

use tokio::{
    sync::watch,
    time::{self, MissedTickBehavior},
};
use tracing::{info, warn};

use super::{Report, Told, Verdict, authorization::Credentials, check::Check, news::News, probe::Prober};
use crate::names::Names;

/// What is probed, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The checks. All of them must pass. Without any check the gate is always open.
    pub checks: Vec<Check>,
    /// The time from the start of one probe to the start of the next.
    pub interval: Duration,
    /// The longest time for one check.
    pub timeout: Duration,
    /// How many good probes in a row open the gate. At least 1.
    pub rise: u32,
    /// How many bad probes in a row close the gate. At least 1.
    pub fall: u32,
    /// User and password for the checks that ask CrateDB itself.
    pub credentials: Option<Credentials>,
    /// The cluster that the node must belong to. A check can only tell that if CrateDB answers it.
    pub cluster: Option<String>,
}

/// Counts the good or bad probes in a row.
#[derive(Clone, Debug)]
struct Counter {
    open: bool,
    contrary: u32,
    rise: u32,
    fall: u32,
}

impl Counter {
    /// Takes in the result of a probe. Returns whether the gate opened or closed.
    fn take(&mut self, good: bool) -> bool {
        if good == self.open {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        let enough = if good { self.rise } else { self.fall };
        if self.contrary < enough {
            return false;
        }
        self.open = good;
        self.contrary = 0;
        true
    }
}

/// Probes for ever, and publishes each change of the results. `reports` is the sender of [`super::channel`]. Without
/// checks it publishes nothing. Safe to drop.
///
/// The reason of a closed gate is logged when it changes. If reasons change all the time, the number of lines is
/// limited.
pub async fn run(settings: Settings, names: Names, reports: watch::Sender<Report>) -> Infallible {
    let Settings { checks, interval, timeout, rise, fall, credentials, cluster } = settings;
    if checks.is_empty() {
        return std::future::pending().await;
    }
    let mut prober = Prober::new(names, timeout, cluster, credentials);
    let mut counter = Counter { open: reports.borrow().verdict.is_open(), contrary: 0, rise, fall };
    let mut ticks = time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut news = News::new();
    loop {
        ticks.tick().await;
        let probed = probe_all(&mut prober, &checks).await;
        let moved = counter.take(probed.is_ok());
        match &probed {
            Ok(_) if moved => {
                info!("gate opened");
                news.over();
            }
            Err(reason) if moved => {
                warn!(reason, "gate closed");
                news.said(reason);
            }
            // Whoever asks why nothing is announced finds the reason in the log.
            Err(reason) if !counter.open && news.is_news(reason) => info!(reason, "waiting for the node"),
            _ => {}
        }
        let report = match probed {
            Ok(told) if counter.open => Report { verdict: Verdict::Open, told },
            Ok(told) => Report { verdict: Verdict::Closed(None), told },
            Err(_) if counter.open => Report { verdict: Verdict::Open, told: Told::Nothing },
            Err(reason) => Report { verdict: Verdict::Closed(Some(reason)), told: Told::Nothing },
        };
        reports.send_if_modified(|last| {
            let changed = *last != report;
            *last = report;
            changed
        });
    }
}

/// Runs the checks one after the other, until one is bad. Returns what the node told, from the first check that knows
/// it, or which check is bad and why.
async fn probe_all(prober: &mut Prober, checks: &[Check]) -> Result<Told, String> {
    let mut told = Told::Nothing;
    for check in checks {
        let said = prober.probe(check).await.map_err(|reason| format!("{check}: {reason}"))?;
        if !matches!(told, Told::Known(_)) && said != Told::Nothing {
            told = said;
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_moves_after_rise_and_fall_in_a_row() {
        let mut counter = Counter { open: false, contrary: 0, rise: 2, fall: 3 };
        let moves: Vec<bool> = [true, false, true, true, false, false, true, false, false, false]
            .map(|good| counter.take(good))
            .into();
        assert_eq!(moves, [false, false, false, true, false, false, false, false, false, true]);
        assert!(!counter.open);
    }
}
