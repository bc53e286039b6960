//! The gate: whether the node can be joined, judged by probes with rise and fall.

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
    /// All of them must pass; without any the gate is always open.
    pub checks: Vec<Check>,
    /// From the start of one probe to the start of the next.
    pub interval: Duration,
    /// Longest time for one check.
    pub timeout: Duration,
    /// Good probes in a row that open the gate; at least 1.
    pub rise: u32,
    /// Bad probes in a row that close it; at least 1.
    pub fall: u32,
    /// For the checks that ask CrateDB itself, where it wants a password.
    pub credentials: Option<Credentials>,
    /// The cluster that the node has to belong to, where a check can tell.
    pub cluster: Option<String>,
}

/// Counts good and bad probes in a row.
#[derive(Clone, Debug)]
struct Counter {
    open: bool,
    contrary: u32,
    rise: u32,
    fall: u32,
}

impl Counter {
    /// Takes in a probe. Gives whether the gate moved.
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

/// Probes for ever and publishes, on change only, what the probes say. `reports` is
/// [`super::channel`]'s. Without a check it says nothing more. Safe to drop.
///
/// A closed gate's reason is logged when it changes; reasons that flap are logged within a budget.
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
            // Whoever wonders at night why nothing is announced finds the reason in the log.
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

/// All checks, one after the other, until one is bad. Gives what the first that tells anything told,
/// or which is bad, and why.
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
