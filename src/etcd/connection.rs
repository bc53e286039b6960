//! One member at a time: a client for a single address, left for the next one on any failure.
//!
//! A balancing channel would send its share of all requests to a dead member for ever (measured:
//! a quarter of the requests fail with one of three members down).

mod beside;
mod in_turn;

use std::{future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use super::{
    contact::Publisher,
    dial::Member,
    endpoint::Endpoint,
    error::{Error, NO_ANSWER},
    options::{Options, connect},
    outage::Outage,
    patience::Patience,
    round::{Round, Target},
    timing::Timing,
};
use crate::{backoff::Backoff, names::Names};

/// The connection to one member, and the way to the next.
#[derive(Debug)]
pub struct Connection {
    options: Arc<Options>,
    timing: Timing,
    /// Everything has to be done within this: requests go out beside each other; see [`Connection::ask_beside`].
    hurry: Option<Duration>,
    holds_lease: bool,
    round: Round,
    /// The last endpoint that was left was the last of its round.
    round_is_over: bool,
    /// An attempt of this round ran out of time: it may have been too short.
    timed_out: bool,
    client: Option<Member>,
    /// Something came back over this client.
    proven: bool,
    /// A fresh login was tried because of a stale one and nothing has succeeded since.
    login_renewed: bool,
    patience: Patience,
    /// Between rounds that nobody answered.
    round_backoff: Backoff,
    /// Between answers that cannot be true.
    doubt_backoff: Backoff,
    /// Between refusals. Other requests may well be answered in the meantime.
    refusal_backoff: Backoff,
    not_before: Option<Instant>,
    outage: Outage,
    contact: Publisher,
}

/// A client to try, since when, and until when its first answer has to be there.
pub(super) struct Attempt {
    pub(super) client: Member,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
}

impl Connection {
    /// Nothing is read or sent yet.
    pub(super) fn new(options: Options, names: Names) -> Self {
        let round = Round::new(options.endpoints.clone(), names);
        let timing = Timing {
            ttl: None,
            endpoints: u32::try_from(round.len()).unwrap_or(u32::MAX),
            request_timeout: options.request_timeout,
        };
        let contact = Publisher::default();
        contact.set_endpoint(round.target().map_or_else(String::new, Target::shown));
        Self {
            options: Arc::new(options),
            timing,
            hurry: None,
            holds_lease: false,
            round,
            round_is_over: false,
            timed_out: false,
            client: None,
            proven: false,
            login_renewed: false,
            patience: Patience::default(),
            round_backoff: Backoff::default(),
            doubt_backoff: Backoff::default(),
            refusal_backoff: Backoff::default(),
            not_before: None,
            outage: Outage::default(),
            contact,
        }
    }

    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    /// There is, or is to be, a lease of this TTL, or all has to be done within this time: all waiting times follow it.
    pub(super) fn set_ttl(&mut self, ttl: Duration) {
        self.timing.ttl = Some(ttl);
    }

    /// Whether a lease of ours is at stake, which makes refusals more urgent.
    pub(super) fn set_holds_lease(&mut self, holds_lease: bool) {
        if self.holds_lease && !holds_lease {
            // The pauses that were cut short for the lost lease's sake do not count.
            self.refusal_backoff.reset();
        }
        self.holds_lease = holds_lease;
    }

    /// Logs nothing of outages and refusals: somebody else does.
    pub(super) fn silence(&mut self) {
        self.outage.silence();
    }

    pub(super) fn contact(&self) -> &Publisher {
        &self.contact
    }

    /// Everything has to be done within `limit` from now on.
    pub(super) fn hurry(&mut self, limit: Duration) {
        self.hurry = Some(limit);
        self.not_before = None;
    }

    fn shown(&self) -> String {
        self.round.target().map_or_else(String::new, Target::shown)
    }

    /// One attempt, as long as it may take: connect, TLS, login and answer together.
    pub(super) fn attempt(&self) -> Duration {
        self.patience.attempt(self.timing.attempt(), self.timing.request_timeout)
    }

    /// A client for the endpoint that has its turn, after the back-off that is due, and after a lookup where its name is
    /// not known yet: neither counts as a part of the attempt.
    ///
    /// # Errors
    /// As [`Connection::judge`], which has been told already. Safe to drop at any point.
    pub(super) async fn open(&mut self) -> Result<Attempt, Error> {
        if let Some(not_before) = self.not_before {
            sleep_until(not_before).await;
            self.not_before = None;
        }
        if let Some(client) = &self.client {
            let client = client.clone();
            let began = Instant::now();
            return Ok(Attempt { client, began, deadline: began + self.attempt() });
        }
        let (endpoint, address) = match self.reach().await {
            Ok(reached) => reached,
            Err(error) => return self.judge(Err(error)),
        };
        self.timing.endpoints = u32::try_from(self.round.len()).unwrap_or(u32::MAX);
        let began = Instant::now();
        let deadline = began + self.attempt();
        self.proven = false;
        debug!(endpoint = self.shown(), "connecting");
        let connected =
            bounded(deadline, Box::pin(connect(Arc::clone(&self.options), endpoint, address))).await;
        let client = match connected {
            // No success yet: without a login, nothing has been asked so far.
            Ok(client) => client,
            Err(error) => return self.judge(Err(error)),
        };
        self.client = Some(client.clone());
        Ok(Attempt { client, began, deadline })
    }

    /// The endpoint that has its turn, and its address.
    async fn reach(&mut self) -> Result<(Endpoint, SocketAddr), Error> {
        loop {
            let Some(target) = self.round.target().cloned() else {
                return Err(Error::Unavailable("there is no endpoint".to_owned()));
            };
            self.contact.set_endpoint(target.shown());
            if let Some(address) = target.address {
                return Ok((target.endpoint, address));
            }
            let pending = format!("the name {} is still being looked up", target.endpoint.host());
            self.contact.set_failure(pending.clone());
            let (said_at, count) = (Instant::now() + self.attempt(), self.round.len());
            let looked_up = {
                let mut looking = pin!(self.round.look_up(&target.endpoint));
                match timeout_at(said_at, &mut looking).await {
                    Ok(looked_up) => looked_up,
                    Err(_) => {
                        // Whoever has an address had its turn before.
                        self.outage.left(&target.shown(), &pending);
                        self.outage.nobody_answers(count);
                        looking.await
                    }
                }
            };
            looked_up.map_err(|unknown| Error::Unavailable(unknown.to_string()))?;
        }
    }

    /// One request in one attempt.
    ///
    /// # Errors
    /// See [`Error`]. The next call goes to the next endpoint where this one did not answer. When
    /// dropped, whether etcd acted on the request is unknown.
    pub(super) async fn call<T, F>(&mut self, request: impl FnOnce(Member) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Attempt { client, began, deadline } = self.open().await?;
        // In a box: the library's futures are large, and there are many of them in a row.
        let result = bounded(deadline, Box::pin(request(client))).await;
        if result.is_ok() {
            self.took(began);
        }
        self.judge(result)
    }

    /// As [`Connection::call`] until somebody answers, for a request that may be made twice. Where we are in a hurry, a
    /// request on its way is not given up because it is slow: a second one goes out elsewhere beside it, then a third,
    /// and the first answer counts.
    ///
    /// # Errors
    /// See [`Error`], but never [`Error::Unavailable`] while in a hurry: the caller bounds the time. When dropped, whether
    /// etcd acted on it is unknown.
    pub(super) async fn insist<T, F>(
        &mut self,
        request: impl Fn(Member) -> F + Clone + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        match self.hurry {
            Some(limit) => self.ask_beside(limit, request).await,
            None => self.call(request).await,
        }
    }

    /// An attempt that began then succeeded.
    pub(super) fn took(&mut self, began: Instant) {
        self.patience.succeeded(began.elapsed());
    }

    /// Learns from the outcome of an attempt: keeps or leaves the endpoint, sets the next back-off,
    /// says once what an operator has to know.
    pub(super) fn judge<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        let result = result.map_err(|error| self.explain(error));
        if let Err(error) = &result {
            self.contact.set_failure(error.to_string());
        }
        match &result {
            Ok(_) => self.answered(),
            Err(Error::LeaseNotFound | Error::LeaseExists | Error::TooLarge | Error::Compacted) => {
                self.answered();
            }
            Err(Error::Unavailable(reason)) => self.leave(reason),
            Err(Error::StaleLogin(reason)) if !self.login_renewed => {
                debug!(endpoint = self.shown(), reason, "logging in again");
                self.answered();
                self.login_renewed = true;
                self.client = None;
            }
            // A file of our own: no load on etcd, and soon there if it merely comes late.
            Err(error @ Error::Unusable(_)) => self.refused(error, self.timing.round_cap()),
            Err(error @ (Error::StaleLogin(_) | Error::Refused(_))) => {
                self.answered();
                if matches!(error, Error::StaleLogin(_)) {
                    self.client = None;
                }
                self.refused(error, self.timing.refusal_cap(self.holds_lease));
            }
            Err(error @ Error::NoSpace) => {
                self.answered();
                self.refused(error, self.timing.round_cap());
            }
        }
        result
    }

    /// What this member answered cannot be true: as [`Connection::judge`] for one that does not answer, and with a pause
    /// that grows although there are answers, until [`Connection::believed`].
    pub(super) fn doubted(&mut self, reason: String) -> Error {
        let error = Error::Unavailable(reason);
        _ = self.judge::<()>(Err(error.clone()));
        let pause = self.doubt_backoff.pause(self.timing.round_cap());
        self.not_before = self.not_before.max(Some(Instant::now() + pause));
        error
    }

    /// What was doubted before makes sense now.
    pub(super) fn believed(&mut self) {
        self.doubt_backoff.reset();
    }

    /// An answer came: an outage, if there was one, is over.
    pub(super) fn answered(&mut self) {
        self.proven = true;
        self.round.answered();
        self.timed_out = false;
        self.round_backoff.reset();
        self.outage.answered(&self.contact.endpoint());
    }

    /// Something came back over the client: whatever ends it now, its certificate was accepted.
    pub(super) fn reached(&mut self) {
        self.proven = true;
    }

    /// Etcd did what it may have refused before.
    pub(super) fn accepted(&mut self) {
        self.login_renewed = false;
        self.contact.clear_failure();
        self.refusal_backoff.reset();
        self.outage.accepted(&self.contact.endpoint());
    }

    /// Of a member that never answered more can be said than that it ended.
    fn explain(&self, error: Error) -> Error {
        match &self.client {
            Some(client) if !self.proven => client.explain(error),
            _ => error,
        }
    }

    fn leave(&mut self, reason: &str) {
        self.client = None;
        self.outage.left(&self.contact.endpoint(), reason);
        self.timed_out |= reason == NO_ANSWER;
        self.round_is_over = self.round.leave();
        self.contact.set_endpoint(self.shown());
        if self.round_is_over {
            self.outage.nobody_answers(self.round.len());
            if std::mem::take(&mut self.timed_out) {
                self.patience.nobody_answered();
            }
            let pause = self.round_backoff.pause(self.timing.round_cap());
            self.not_before = Some(Instant::now() + pause);
            if let Some(ttl) = self.timing.ttl.filter(|_| self.holds_lease) {
                let round = self.attempt() * self.timing.endpoints;
                self.outage.round_is_long(round, ttl);
            }
        }
    }

    fn refused(&mut self, error: &Error, cap: Duration) {
        let user = self.options.login.as_ref().map_or("none", |login| &login.user);
        self.outage.refused(&self.contact.endpoint(), user, error);
        self.not_before = Some(Instant::now() + self.refusal_backoff.pause(cap));
    }
}

/// Waits for `request` until `deadline`. The clock is monotonic.
pub(super) async fn bounded<T>(
    deadline: Instant,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout_at(deadline, request).await.unwrap_or_else(|_| Err(Error::no_answer()))
}
