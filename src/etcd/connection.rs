//! The connection to etcd: one client for one address at a time. After a failure the next address is tried.
//!
//! A channel that balances would go on sending its share of the requests to a dead member. Measured with one of three
//! members down: a quarter of the requests failed.

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

/// The connection to one member, and the way to the next one.
#[derive(Debug)]
pub struct Connection {
    options: Arc<Options>,
    timing: Timing,
    /// If it is set, every request must be done within this time, and goes out to several endpoints at once; see
    /// [`Connection::ask_beside`].
    hurry: Option<Duration>,
    holds_lease: bool,
    round: Round,
    /// The last endpoint that we left was the last one of its round.
    round_is_over: bool,
    /// An attempt of this round ran out of time, so the time for an attempt may have been too short.
    timed_out: bool,
    client: Option<Member>,
    /// Something was received over this client.
    proven: bool,
    /// We logged in again because our token was stale, and nothing has succeeded since.
    login_renewed: bool,
    patience: Patience,
    /// The pauses between rounds in which no endpoint answered.
    round_backoff: Backoff,
    /// The pauses after answers that cannot be true.
    doubt_backoff: Backoff,
    /// The pauses after refusals. Other requests may succeed in between.
    refusal_backoff: Backoff,
    not_before: Option<Instant>,
    outage: Outage,
    contact: Publisher,
}

/// A client for one attempt, when the attempt began, and until when its first answer must come.
pub(super) struct Attempt {
    pub(super) client: Member,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
}

impl Connection {
    /// A connection with these options. Nothing is read or sent yet.
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

    /// Sets the TTL of the lease that we have or will ask for, or the time in which everything must be done. All
    /// waiting times are derived from it.
    pub(super) fn set_ttl(&mut self, ttl: Duration) {
        self.timing.ttl = Some(ttl);
    }

    /// Sets whether we have a lease to keep. A refusal is more urgent then.
    pub(super) fn set_holds_lease(&mut self, holds_lease: bool) {
        if self.holds_lease && !holds_lease {
            // The pauses that were short because of the lost lease do not count for the next refusal.
            self.refusal_backoff.reset();
        }
        self.holds_lease = holds_lease;
    }

    /// Logs nothing about outages and refusals from now on, because another connection does it.
    pub(super) fn silence(&mut self) {
        self.outage.silence();
    }

    pub(super) fn contact(&self) -> &Publisher {
        &self.contact
    }

    /// Every request must be done within `limit` from now on.
    pub(super) fn hurry(&mut self, limit: Duration) {
        self.hurry = Some(limit);
        self.not_before = None;
    }

    fn shown(&self) -> String {
        self.round.target().map_or_else(String::new, Target::shown)
    }

    /// The time for one attempt: connect, TLS, login and answer together.
    pub(super) fn attempt(&self) -> Duration {
        self.patience.attempt(self.timing.attempt(), self.timing.request_timeout)
    }

    /// A client for the endpoint whose turn it is. First it waits for the backoff that is due, and for the lookup if
    /// the address is not known yet. Neither counts as a part of the attempt.
    ///
    /// # Errors
    /// As [`Connection::judge`], which was called already. Safe to drop at any point.
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
            // This is no success yet: without a login, nothing was asked so far.
            Ok(client) => client,
            Err(error) => return self.judge(Err(error)),
        };
        self.client = Some(client.clone());
        Ok(Attempt { client, began, deadline })
    }

    /// The endpoint whose turn it is, and its address.
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
                        // Every target with an address had its turn before this one.
                        self.outage.left(&target.shown(), &pending);
                        self.outage.nobody_answers(count);
                        looking.await
                    }
                }
            };
            looked_up.map_err(|unknown| Error::Unavailable(unknown.to_string()))?;
        }
    }

    /// Makes one request in one attempt.
    ///
    /// # Errors
    /// See [`Error`]. If this endpoint did not answer, the next call goes to the next one. If the future is dropped, we
    /// do not know whether etcd acted on the request.
    pub(super) async fn call<T, F>(&mut self, request: impl FnOnce(Member) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Attempt { client, began, deadline } = self.open().await?;
        // It is boxed, because the futures of the library are large, and many are awaited one after the other.
        let result = bounded(deadline, Box::pin(request(client))).await;
        if result.is_ok() {
            self.took(began);
        }
        self.judge(result)
    }

    /// Makes a request that may be sent twice. Without a hurry it is [`Connection::call`]. In a hurry it goes on until
    /// an endpoint answers: a slow request is not given up, but a second one is sent to another endpoint, then a third,
    /// and the first answer counts.
    ///
    /// # Errors
    /// See [`Error`], but never [`Error::Unavailable`] in a hurry: the caller limits the time. If the future is
    /// dropped, we do not know whether etcd acted on the request.
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

    /// An attempt that began at `began` succeeded.
    pub(super) fn took(&mut self, began: Instant) {
        self.patience.succeeded(began.elapsed());
    }

    /// Learns from the result of an attempt: stays at the endpoint or leaves it, sets the next backoff, and logs once
    /// what an operator must know.
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
            // A local file cannot be used. To read it again costs etcd nothing, and it may only come late.
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

    /// The answer of this member cannot be true. It counts as no answer in [`Connection::judge`]. In addition there is
    /// a pause, which grows although there are answers, until [`Connection::believed`] is called.
    pub(super) fn doubted(&mut self, reason: String) -> Error {
        let error = Error::Unavailable(reason);
        _ = self.judge::<()>(Err(error.clone()));
        let pause = self.doubt_backoff.pause(self.timing.round_cap());
        self.not_before = self.not_before.max(Some(Instant::now() + pause));
        error
    }

    /// An answer makes sense again after one that could not be true.
    pub(super) fn believed(&mut self) {
        self.doubt_backoff.reset();
    }

    /// An answer came, so an outage, if there was one, is over.
    pub(super) fn answered(&mut self) {
        self.proven = true;
        self.round.answered();
        self.timed_out = false;
        self.round_backoff.reset();
        self.outage.answered(&self.contact.endpoint());
    }

    /// Something was received over the client. So our certificate was accepted, whatever ends the connection later.
    pub(super) fn reached(&mut self) {
        self.proven = true;
    }

    /// Etcd did what it was asked, which it may have refused before.
    pub(super) fn accepted(&mut self) {
        self.login_renewed = false;
        self.contact.clear_failure();
        self.refusal_backoff.reset();
        self.outage.accepted(&self.contact.endpoint());
    }

    /// If this member never answered, its connection may tell more about the error than that it ended.
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
