//! Keeps one host announced: the loop around the state machine in [`state`], which says what to do, and around the worker
//! in `work`, which does it.

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
pub(crate) struct Supervisor<'a> {
    /// How often at least it wants to hear from us.
    pub every: Duration,
    /// Takes what happened, and a line on how things are now, without control characters.
    pub tell: &'a dyn Fn(Notice, &str),
}

/// What a supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
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
                // An action that is still asked for is carried on; above all, nothing that changes
                // etcd is abandoned on its way.
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

/// What the shell knows beside its worker.
struct Announcer<'a> {
    /// What is going on, and what is to be done: pure.
    machine: Machine,
    /// Our key, `<prefix>/<host>`.
    key: String,
    /// What the probes say of our node.
    reports: Reports,
    /// What the machine was last told of the gate.
    gate_open: bool,
    /// How we stand with etcd, as the connection publishes it.
    contact: watch::Receiver<Contact>,
    /// Counts the claims of the key that succeeded, for whoever notes what is beside the key.
    claims: watch::Sender<u64>,
    /// What was said in the log of the announcement.
    said: Report,
    /// The beginning of the silence of etcd that was warned about last.
    warned_of: Option<Instant>,
    /// Longest time for the withdrawal.
    stop_timeout: Duration,
    /// The end, once we are told to end.
    stop: Option<Stop>,
    /// Who wants to know how we are.
    supervisor: Option<Supervisor<'a>>,
    /// When it wants to hear from us next.
    pulse: Option<Interval>,
}

/// The times of a withdrawal.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// By when it has to be done.
    time_up: Instant,
    /// How long a grant or a put may still be on its way: its endpoint may be dead. Nothing once we hurry.
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

    /// The next event, and whether `work` is over with it. What is no event for the machine is dealt with until there is
    /// one.
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
                () = reached(silent_since.map(|since| since + ttl)) => {
                    self.warned_of = silent_since;
                    warn!(key = self.key, "no renewal for a TTL: the key has ended, unless etcd itself was down");
                }
                () = &mut shutdown, if stop.is_none() => {
                    self.begin_to_stop();
                    return (Event::Shutdown, false);
                }
                () = reached(stop.map(|stop| stop.time_up)) => return (Event::TimeUp, false),
                () = reached(stop.and_then(|stop| stop.cut)) => return (Event::Unanswered, true),
            }
        }
    }

    /// Tells the machine what happened, and everybody else what came of it.
    fn take(&mut self, event: Event) {
        let before = self.machine.state().clone();
        self.machine.on(event.clone(), LeaseId::random());
        self.said.report(&self.key, &before, &event, self.machine.state());
        if matches!(event, Event::Put(_)) {
            self.claims.send_modify(|count| *count += 1);
        }
        self.tell(if event == Event::Shutdown { Notice::Stopping } else { Notice::Alive });
    }

    /// What the newest report is to the machine; nothing where the gate is as it was.
    fn gate_turned(&mut self) -> Option<Event> {
        let open = self.reports.borrow_and_update().verdict.is_open();
        let has_turned = std::mem::replace(&mut self.gate_open, open) != open;
        has_turned.then_some(if open { Event::GateOpened } else { Event::GateClosed })
    }

    /// Since when a lease that has to be renewed was not, unless that was warned about.
    fn silent_since(&self) -> Option<Instant> {
        let since = self.contact.borrow().silent_since.filter(|_| self.machine.state().renews());
        since.filter(|since| self.warned_of != Some(*since))
    }

    fn begin_to_stop(&mut self) {
        info!("withdrawing");
        let now = Instant::now();
        self.stop = Some(Stop { time_up: now + self.stop_timeout, cut: Some(now + self.stop_timeout / 2) });
    }

    /// Whether everything has to be quick from now on: once, when what went on before the end is over.
    fn begins_to_hurry(&mut self) -> bool {
        self.stop.as_mut().is_some_and(|stop| stop.cut.take().is_some())
    }

    /// Tells the supervisor, if there is one, how things are.
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

/// The next beat; never where nobody wants to hear any.
async fn beat(pulse: &mut Option<Interval>) {
    match pulse {
        Some(pulse) => _ = pulse.tick().await,
        None => pending().await,
    }
}

/// Waits until this time; for ever where there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
