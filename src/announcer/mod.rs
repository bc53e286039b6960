//! Keeps one host announced. The state machine in [`state`] decides what to do, the worker in `work` does it, and the
//! loop in this file connects both.

pub(crate) mod noting;
mod report;
pub mod state;
mod work;

use std::{
    future::{Future, pending},
    pin::{Pin, pin},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};
use tracing::{info, warn};

use self::{
    report::{Report, status_line},
    state::{Action, Ending, Event, Machine},
    work::Worker,
};
use crate::{
    etcd::{Contact, Error, OwnKey},
    lease::LeaseId,
    node::Reports,
};

/// How long etcd takes to elect a leader, with its default settings. A new leader gives every lease its full TTL again
/// (lessor.go, `Promote`).
const ELECTION: Duration = Duration::from_secs(1);

/// Etcd did not confirm in time that our lease and our key are gone.
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
    /// The lease that may still exist, and the key with it.
    pub lease: LeaseId,
    /// How long the lease can live from now on, or from the moment when etcd gains a leader again, if that is later.
    pub at_most: Duration,
    /// The end of that time from now on, as a date, rounded up.
    pub until: SystemTime,
    /// How long we tried.
    pub within: Duration,
    /// The last error.
    pub reason: String,
}

/// A process that runs us and wants to be told how we are, such as systemd.
pub(crate) struct Supervisor<'a> {
    /// The longest time that may pass between two notices.
    pub every: Duration,
    /// Takes what happened, and one line about the state, without control characters.
    pub tell: &'a dyn Fn(Notice, &str),
}

/// What a supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// We are running, and the configuration is valid. This is told once, before all others.
    Ready,
    /// The loop still runs.
    Alive,
    /// We have begun to withdraw. Told once.
    Stopping,
}

/// Keeps the key while `reports` say that the gate is open. When `shutdown` resolves, it withdraws within
/// `stop_timeout` and returns; nothing else ends it. It adds 1 to `claims` after each put of the key that succeeded.
///
/// # Errors
/// [`NotWithdrawn`]. If the future is dropped, nothing is revoked: the key ends with its lease.
pub(crate) async fn run(
    own_key: OwnKey,
    reports: Reports,
    claims: watch::Sender<u64>,
    stop_timeout: Duration,
    shutdown: impl Future<Output = ()>,
    supervisor: Option<Supervisor<'_>>,
) -> Result<(), NotWithdrawn> {
    let mut announcer = Announcer::new(&own_key, reports, claims, stop_timeout, supervisor);
    let mut worker = Worker::new(own_key);
    let mut shutdown = pin!(shutdown);
    announcer.tell(Notice::Ready);
    loop {
        let (action, ttl) = (announcer.machine.action(), worker.ttl());
        if let Action::Finish(ending) = action {
            return announcer.finish(ending, ttl);
        }
        {
            let mut work = pin!(worker.perform(&action));
            loop {
                let (event, is_over) = announcer.next(work.as_mut(), shutdown.as_mut(), ttl).await;
                announcer.take(event);
                // An action that the machine still asks for goes on. Above all, a request that changes etcd is never
                // abandoned on its way.
                if is_over || announcer.machine.action() != action {
                    break;
                }
            }
        }
        if announcer.begins_to_hurry() {
            worker.hurry(stop_timeout);
        }
    }
}

/// The state of the loop, without its worker.
struct Announcer<'a> {
    /// Decides what is to be done; pure.
    machine: Machine,
    /// Our key, `<prefix>/<host>`.
    key: String,
    /// The newest results of the checks of our node.
    reports: Reports,
    /// The state of the gate that the machine was told last.
    gate_open: bool,
    /// The state of our connection to etcd, which the connection publishes.
    contact: watch::Receiver<Contact>,
    /// Counts the puts of the key that succeeded. `noting` and the feeds wait for them.
    claims: watch::Sender<u64>,
    /// What was logged about the announcement.
    said: Report,
    /// When the silence of etcd that we warned about last began.
    warned_of: Option<Instant>,
    /// Longest time for the withdrawal.
    stop_timeout: Duration,
    /// The deadlines of the withdrawal, once it has begun.
    stop: Option<Stop>,
    /// Who is told how we are.
    supervisor: Option<Supervisor<'a>>,
    /// The timer for the next notice to the supervisor.
    pulse: Option<Interval>,
}

/// The deadlines of a withdrawal.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// When the withdrawal must be over.
    time_up: Instant,
    /// Until when we wait for the answer to a grant or a put that was on its way: its endpoint may be dead. `None` once
    /// that wait is over.
    cut: Option<Instant>,
}

impl<'a> Announcer<'a> {
    fn new(
        own_key: &OwnKey,
        reports: Reports,
        claims: watch::Sender<u64>,
        stop_timeout: Duration,
        supervisor: Option<Supervisor<'a>>,
    ) -> Self {
        let gate_open = reports.borrow().verdict.is_open();
        let pulse = supervisor.as_ref().map(|supervisor| {
            let mut pulse = interval(supervisor.every);
            pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pulse
        });
        Self {
            machine: Machine::new(gate_open),
            key: own_key.key().to_owned(),
            reports,
            gate_open,
            contact: own_key.contact(),
            claims,
            said: Report::default(),
            warned_of: None,
            stop_timeout,
            stop: None,
            supervisor,
            pulse,
        }
    }

    /// The next event for the machine, and whether it ends `work`. Everything that is no event for the machine is
    /// handled here.
    async fn next(
        &mut self,
        mut work: Pin<&mut impl Future<Output = Event>>,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
        ttl: Duration,
    ) -> (Event, bool) {
        loop {
            let (silent_since, stop) = (self.silent_since(), self.stop);
            tokio::select! {
                event = &mut work => return (event, true),
                Ok(()) = self.reports.changed() => match self.gate_turned() {
                    Some(event) => return (event, false),
                    None => self.tell(Notice::Alive),
                },
                () = beat(&mut self.pulse) => self.tell(Notice::Alive),
                // If the worker ended the silence meanwhile, there is nothing to warn about.
                () = reached(silent_since.map(|since| since + ttl)) => if self.silent_since() == silent_since {
                    self.warned_of = silent_since;
                    warn!(key = self.key, "no renewal for a TTL: the key has ended, unless etcd itself was down");
                },
                () = &mut shutdown, if stop.is_none() => {
                    self.begin_to_stop();
                    return (Event::Shutdown, false);
                }
                () = reached(stop.map(|stop| stop.time_up)) => return (Event::TimeUp, false),
                () = reached(stop.and_then(|stop| stop.cut)) => return (Event::Unanswered, true),
            }
        }
    }

    /// Tells the machine what happened, and then logs, counts and reports what changed.
    fn take(&mut self, event: Event) {
        let before = self.machine.state().clone();
        self.machine.on(event.clone(), LeaseId::random());
        self.said.report(&self.key, &before, &event, self.machine.state());
        if matches!(event, Event::Put(_)) {
            self.claims.send_modify(|count| *count += 1);
        }
        self.tell(if event == Event::Shutdown { Notice::Stopping } else { Notice::Alive });
    }

    /// The event of the newest report; `None` if the gate did not change.
    fn gate_turned(&mut self) -> Option<Event> {
        let open = self.reports.borrow_and_update().verdict.is_open();
        let has_turned = std::mem::replace(&mut self.gate_open, open) != open;
        has_turned.then_some(if open { Event::GateOpened } else { Event::GateClosed })
    }

    /// Since when our lease, which has to be renewed, was not renewed. `None` if we warned about that silence already.
    fn silent_since(&self) -> Option<Instant> {
        let since = self.contact.borrow().silent_since.filter(|_| self.machine.state().renews());
        since.filter(|since| self.warned_of != Some(*since))
    }

    fn begin_to_stop(&mut self) {
        info!("withdrawing");
        let now = Instant::now();
        self.stop = Some(Stop { time_up: now + self.stop_timeout, cut: Some(now + self.stop_timeout / 2) });
    }

    /// Whether everything has to be quick from now on. It is true once: when the work that went on at the shutdown is
    /// over.
    fn begins_to_hurry(&mut self) -> bool {
        self.stop.as_mut().is_some_and(|stop| stop.cut.take().is_some())
    }

    /// Tells the supervisor, if there is one, the present state.
    fn tell(&self, notice: Notice) {
        if let Some(supervisor) = &self.supervisor {
            let (contact, report) = (self.contact.borrow(), self.reports.borrow());
            let status = status_line(&self.key, self.machine.state(), &contact, &report.verdict);
            (supervisor.tell)(notice, &status);
        }
    }

    fn finish(&self, ending: Ending, ttl: Duration) -> Result<(), NotWithdrawn> {
        match ending {
            Ending::Clean => Ok(()),
            Ending::Unconfirmed(lease) => {
                let at_most = ttl + ELECTION + Duration::from_secs(1);
                let until = SystemTime::now() + at_most + Duration::from_secs(1);
                let failure = self.contact.borrow().failure.clone();
                let reason = failure.map_or_else(|| Error::no_answer().to_string(), |failure| failure.reason);
                let (key, within) = (self.key.clone(), self.stop_timeout);
                Err(NotWithdrawn { key, lease, at_most, until, within, reason })
            }
        }
    }
}

/// Waits for the next time to notify the supervisor; for ever if there is no supervisor.
async fn beat(pulse: &mut Option<Interval>) {
    match pulse {
        Some(pulse) => _ = pulse.tick().await,
        None => pending().await,
    }
}

/// Waits until this time; for ever if there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
