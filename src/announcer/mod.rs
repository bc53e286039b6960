//! Keeps one host announced: the shell that does what the state machine in [`state`] says.

pub mod noting;
mod report;
pub mod state;

use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    rc::Rc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{info, warn};

use self::{
    report::{Report, status_line},
    state::{Action, Ending, Event, Machine},
};
use crate::{
    budget::{Budget, Lines},
    etcd::{Claimed, Error, OwnKey},
    lease::{LeaseId, Sight},
    node::{Reports, Verdict},
};

/// A loss discovered after an outage is claimed within this long, so that a fleet does not return
/// in one instant.
const SPREAD: Duration = Duration::from_millis(500);
/// So many losses in a row are repaired at once, and one more a second after that: whoever keeps taking the key away is
/// met by one put a second and not by a fight.
const REPAIRS: Budget = Budget::new(5, Duration::from_secs(1));
/// So many steps are made in a row, and ten a second after that. A repair takes five at most, so that nobody needs more
/// but an etcd whose answers cannot all be true, and that one would keep us busy without end.
const STEPS: Budget = Budget::new(50, Duration::from_millis(100));
/// How long etcd takes, at its default settings, to elect a leader; every lease then starts anew
/// (lessor.go, `Promote`).
const ELECTION: Duration = Duration::from_secs(1);

/// Etcd did not confirm in time that nothing of ours is left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to withdraw {key:?} within {}: etcd did not confirm ({reason}); the key ends with lease {lease} by {} at the \
     latest, or {}s after etcd next gains a leader if that is later",
    humantime::format_duration(*.within),
    humantime::format_rfc3339_seconds(*.until),
    .at_most.as_secs()
)]
pub struct NotWithdrawn {
    /// Our key.
    pub key: String,
    /// The lease that may still be there, and the key with it.
    pub lease: LeaseId,
    /// How long the lease can live from now on, or from when etcd next gains a leader.
    pub at_most: Duration,
    /// The same as a date, rounded up.
    pub until: SystemTime,
    /// How long was tried.
    pub within: Duration,
    /// What went wrong last.
    pub reason: String,
}

/// Somebody who runs us and wants to know how we are, such as systemd.
pub struct Supervisor<'a> {
    /// How often at least it wants to hear from us.
    pub every: Duration,
    /// Takes what happened, and a line on how things are now, without control characters.
    pub tell: &'a dyn Fn(Notice, &str),
}

/// What a supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// We run, with a valid configuration. Told once, first.
    Ready,
    /// The loop turns.
    Alive,
    /// We have begun to withdraw. Told once.
    Stopping,
}

/// Announces while `reports` say that the gate is open, until `shutdown` resolves, then withdraws within `stop_timeout`.
/// Nothing else ends it. Each claim of the key is counted in `claims`.
///
/// # Errors
/// [`NotWithdrawn`]. When dropped, the key ends with its lease.
pub async fn run(
    mut own_key: OwnKey,
    mut reports: Reports,
    claims: watch::Sender<u64>,
    stop_timeout: Duration,
    shutdown: impl Future<Output = ()>,
    supervisor: Option<Supervisor<'_>>,
) -> Result<(), NotWithdrawn> {
    let mut shutdown = pin!(shutdown);
    let mut time_up = pin!(sleep(Duration::ZERO));
    // How long a grant or put may still be on its way after shutdown: its endpoint may be dead.
    let mut cut = pin!(sleep(Duration::ZERO));
    let (mut stopping, mut hurried) = (false, false);
    let mut gate_open = reports.borrow().verdict.is_open();
    let mut machine = Machine::new(gate_open);
    let mut pace = Pace::default();
    let mut said = Report::default();
    let silent_since = Rc::clone(&pace.silent_since);
    let mut said_silent = None;
    let key = own_key.key().to_owned();
    let contact = own_key.contact();
    let mut pulse = supervisor.as_ref().map(|supervisor| {
        let mut pulse = interval(supervisor.every);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pulse
    });
    let tell = |notice, machine: &Machine, verdict: &Verdict| {
        if let Some(supervisor) = &supervisor {
            (supervisor.tell)(notice, &status_line(&key, machine.state(), &contact, verdict));
        }
    };
    tell(Notice::Ready, &machine, &reports.borrow().verdict);
    loop {
        let action = machine.action();
        if let Action::Finish(ending) = action {
            return finish(ending, &own_key, stop_timeout);
        }
        let silent = silent_since.get().filter(|since| said_silent != Some(*since));
        let overdue = silent.map_or_else(Instant::now, |since| since + own_key.ttl());
        {
            let mut work = pin!(perform(&mut own_key, &action, &mut pace));
            loop {
                let (event, done) = tokio::select! {
                    () = sleep_until(overdue), if silent.is_some() && said_silent != silent => {
                        said_silent = silent;
                        if silent_since.get() == silent {
                            warn!(key, "no renewal for a TTL: the key has ended, unless etcd itself was down");
                        }
                        continue;
                    }
                    event = &mut work => (event, true),
                    Ok(()) = reports.changed() => {
                        let open = reports.borrow_and_update().verdict.is_open();
                        if open == gate_open {
                            tell(Notice::Alive, &machine, &reports.borrow().verdict);
                            continue;
                        }
                        gate_open = open;
                        (if open { Event::GateOpened } else { Event::GateClosed }, false)
                    }
                    () = beat(&mut pulse) => {
                        tell(Notice::Alive, &machine, &reports.borrow().verdict);
                        continue;
                    }
                    () = &mut shutdown, if !stopping => {
                        info!("withdrawing");
                        stopping = true;
                        time_up.set(sleep(stop_timeout));
                        cut.set(sleep(stop_timeout / 2));
                        (Event::Shutdown, false)
                    }
                    () = &mut time_up, if stopping => (Event::TimeUp, false),
                    () = &mut cut, if stopping && !hurried => (Event::Unanswered, true),
                };
                let before = machine.state().clone();
                machine.on(event.clone(), LeaseId::random());
                if !machine.state().renews() {
                    // What we do not renew on purpose is no reason for an alarm.
                    silent_since.set(None);
                }
                said.report(&key, &before, &event, machine.state());
                if matches!(event, Event::Put(_)) {
                    claims.send_modify(|count| *count += 1);
                }
                let notice = if event == Event::Shutdown { Notice::Stopping } else { Notice::Alive };
                tell(notice, &machine, &reports.borrow().verdict);
                // An action that is still asked for is carried on; above all, nothing that changes
                // etcd is abandoned on its way.
                if done || machine.action() != action {
                    break;
                }
            }
        }
        if stopping && !hurried {
            own_key.hurry(stop_timeout);
            hurried = true;
        }
    }
}

/// The next beat; never where nobody wants to hear any.
async fn beat(pulse: &mut Option<Interval>) {
    match pulse {
        Some(pulse) => _ = pulse.tick().await,
        None => std::future::pending().await,
    }
}

/// Does what the machine asks for, once, and tells what came of it.
async fn perform(own_key: &mut OwnKey, action: &Action, pace: &mut Pace) -> Event {
    if *action != Action::Pause {
        pace.resume_at = None;
    }
    if !matches!(action, Action::Idle | Action::Pause | Action::Finish(_)) {
        sleep_until(pace.steps.take(Instant::now())).await;
    }
    let done = match action {
        Action::Idle | Action::Finish(_) => std::future::pending().await,
        Action::Pause => {
            let resume_at = match pace.resume_at {
                Some(resume_at) => resume_at,
                None => pace.repairs.take(Instant::now()) + pace.spread(),
            };
            pace.resume_at = Some(resume_at);
            sleep_until(resume_at).await;
            Ok(Event::Paused)
        }
        Action::Look(lease) => own_key.look(*lease).await.map(Event::Seen),
        Action::Grant(lease) => own_key.grant(*lease).await.map(|()| Event::Granted),
        Action::Put(lease, sight) => own_key.put(*lease, sight).await.map(|claimed| match claimed {
            Claimed::Put(sight) => {
                pace.silent_since.set(None);
                Event::Put(sight)
            }
            Claimed::Changed => Event::Changed,
        }),
        Action::Hold(lease, sight) => hold(own_key, Some(*lease), sight, pace).await,
        Action::Follow(sight) => hold(own_key, None, sight, pace).await,
        Action::Revoke(lease) => own_key.revoke(*lease).await.map(|existed| Event::Revoked { existed }),
    };
    done.unwrap_or_else(|error| match error {
        Error::LeaseNotFound => Event::LeaseGone,
        Error::Unavailable(_) => Event::Unanswered,
        // Each of these is an answer, or was found out before anything was sent.
        _ => Event::Refused,
    })
}

async fn hold(
    own_key: &mut OwnKey,
    lease: Option<LeaseId>,
    sight: &Sight,
    pace: &mut Pace,
) -> Result<Event, Error> {
    pace.seen_live = false;
    let established = || {
        pace.seen_live = true;
        if let (Some(_), Some(lease)) = (pace.silent_since.take(), lease)
            && pace.still.may_say()
        {
            info!(%lease, "still announced");
        }
    };
    own_key.hold(lease, sight, established).await.map(Event::Seen).inspect_err(|error| {
        let is_outage = !matches!(error, Error::LeaseNotFound | Error::Compacted);
        if is_outage && lease.is_some() && pace.silent_since.get().is_none() {
            pace.silent_since.set(Some(Instant::now()));
        }
    })
}

/// How soon a loss is claimed again.
#[derive(Debug)]
struct Pace {
    /// How often the key may be put back at once.
    repairs: Budget,
    /// How often anything may be done at once.
    steps: Budget,
    /// How often it may be said that we are still announced.
    still: Lines,
    /// When the pause that goes on is over: it may be begun more than once.
    resume_at: Option<Instant>,
    /// The last change was seen on a live watch, not discovered after an outage.
    seen_live: bool,
    /// Since when our lease could not be renewed.
    silent_since: Rc<Cell<Option<Instant>>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            repairs: REPAIRS,
            steps: STEPS,
            still: Lines::default(),
            resume_at: None,
            seen_live: false,
            silent_since: Rc::default(),
        }
    }
}

impl Pace {
    /// A loss that was discovered after an outage is claimed a moment later than one that was seen to happen.
    fn spread(&self) -> Duration {
        if self.seen_live { Duration::ZERO } else { SPREAD.mul_f64(fastrand::f64()) }
    }
}

fn finish(ending: Ending, own_key: &OwnKey, within: Duration) -> Result<(), NotWithdrawn> {
    match ending {
        Ending::Clean => Ok(()),
        Ending::Unconfirmed(lease) => {
            let at_most = own_key.ttl() + ELECTION + Duration::from_secs(1);
            let until = SystemTime::now() + at_most + Duration::from_secs(1);
            let failure = own_key.contact().failure();
            let reason = failure.map_or_else(|| Error::no_answer().to_string(), |failure| failure.reason);
            Err(NotWithdrawn { key: own_key.key().to_owned(), lease, at_most, until, within, reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_after_an_outage_is_claimed_within_half_a_second_and_not_by_all_at_once() {
        let seen_live = Pace { seen_live: true, ..Pace::default() };
        assert_eq!(seen_live.spread(), Duration::ZERO);
        let spreads: Vec<_> = (0..200).map(|_| Pace::default().spread()).collect();
        assert!(spreads.iter().all(|spread| *spread <= SPREAD), "{spreads:?}");
        let of = |range: std::ops::Range<f64>| {
            spreads.iter().filter(|spread| range.contains(&spread.div_duration_f64(SPREAD))).count()
        };
        assert!(of(0.0..0.25) > 10 && of(0.75..1.0) > 10, "{spreads:?}");
    }
}
