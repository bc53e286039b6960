//! One member at a time: a client for a single endpoint, left for the next one on any failure.
//!
//! A balancing channel would send its share of all requests to a dead member for ever (measured:
//! a quarter of the requests fail with one of three members down).

use std::{future::Future, rc::Rc, time::Duration};

use etcd_client::{Client, ConnectOptions};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use super::{
    credentials::{Login, TlsFiles},
    error::Error,
    outage::{Contact, Outage},
    timing::Timing,
};
use crate::backoff::Backoff;

/// Pings are a backstop against half-open connections. Etcd tolerates no more than one in 5 s and
/// none without a stream (embed/config.go, `DefaultGRPCKeepAliveMinTime`).
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Where etcd is and how to get in: the connection options of the command line, validated.
#[derive(Clone, Debug)]
pub struct Options {
    /// URLs, all http or all https, at least one.
    pub endpoints: Vec<String>,
    /// TLS material.
    pub tls: TlsFiles,
    /// User and password, where etcd wants them.
    pub login: Option<Login>,
    /// Longest wait for one answer, connecting included.
    pub request_timeout: Duration,
}

/// The connection to one member, and the way to the next.
#[derive(Debug)]
pub struct Connection {
    options: Options,
    timing: Timing,
    /// Revoking under a deadline: attempts are cut so that every endpoint gets its turn.
    hurry: Option<Duration>,
    holds_lease: bool,
    current: usize,
    client: Option<ClientInUse>,
    /// Something came back over this client.
    proven: bool,
    /// A fresh login was tried because of a stale one and nothing has succeeded since.
    login_renewed: bool,
    /// Between rounds that nobody answered.
    round_backoff: Backoff,
    /// Between refusals. Other requests may well be answered in the meantime.
    refusal_backoff: Backoff,
    not_before: Option<Instant>,
    outage: Outage,
    contact: Rc<Contact>,
}

struct ClientInUse(Client);

impl std::fmt::Debug for ClientInUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// A client to try, and until when its first answer has to be there.
pub(super) struct Attempt {
    pub(super) client: Client,
    pub(super) deadline: Instant,
}

impl Options {
    /// Reads the credentials once, so that a file which cannot be used is known at the start.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn read_files(&self) -> Result<(), Error> {
        if self.endpoints.iter().any(|endpoint| endpoint.starts_with("https:")) {
            self.tls.read()?;
        }
        if let Some(login) = &self.login {
            login.read_password()?;
        }
        Ok(())
    }
}

impl Connection {
    /// Nothing is read or sent yet.
    pub(super) fn new(mut options: Options) -> Self {
        // Each process its own order, so that a fleet spreads over the members.
        fastrand::shuffle(&mut options.endpoints);
        let timing = Timing {
            ttl: None,
            endpoints: u32::try_from(options.endpoints.len()).unwrap_or(u32::MAX),
            request_timeout: options.request_timeout,
        };
        let contact = Rc::new(Contact::default());
        contact.set_endpoint(options.endpoints.first().map_or("", String::as_str));
        Self {
            options,
            timing,
            hurry: None,
            holds_lease: false,
            current: 0,
            client: None,
            proven: false,
            login_renewed: false,
            round_backoff: Backoff::default(),
            refusal_backoff: Backoff::default(),
            not_before: None,
            outage: Outage::default(),
            contact,
        }
    }

    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    /// There is, or is to be, a lease of this TTL; all waiting times follow it.
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

    pub(super) fn contact(&self) -> &Rc<Contact> {
        &self.contact
    }

    /// One attempt, where everything has to be done within `limit`: each endpoint gets its turn.
    pub(super) fn hurried_attempt(&self, limit: Duration) -> Duration {
        (limit / (2 * self.timing.endpoints.max(3))).min(self.timing.attempt())
    }

    /// Everything has to be done within `limit` from now on.
    pub(super) fn hurry(&mut self, limit: Duration) {
        self.hurry = Some(self.hurried_attempt(limit));
        self.not_before = None;
    }

    /// How many endpoints there are.
    pub(super) fn endpoint_count(&self) -> usize {
        self.options.endpoints.len().max(1)
    }

    fn endpoint(&self) -> &str {
        self.options.endpoints.get(self.current).map_or("", String::as_str)
    }

    /// One attempt, as long as it may take: connect, TLS, login and answer together.
    fn attempt(&self) -> Duration {
        self.hurry.unwrap_or_else(|| self.timing.attempt())
    }

    /// A client for the current endpoint, after the back-off that is due.
    ///
    /// # Errors
    /// As [`Connection::judge`], which has been told already. Safe to drop at any point.
    pub(super) async fn open(&mut self) -> Result<Attempt, Error> {
        if let Some(not_before) = self.not_before {
            sleep_until(not_before).await;
            self.not_before = None;
        }
        let deadline = Instant::now() + self.attempt();
        if let Some(ClientInUse(client)) = &self.client {
            return Ok(Attempt { client: client.clone(), deadline });
        }
        self.proven = false;
        let client = match bounded(deadline, self.connect()).await {
            // No success yet: without a login, nothing has been sent so far.
            Ok(client) => client,
            Err(error) => return self.judge(Err(error)),
        };
        self.client = Some(ClientInUse(client.clone()));
        Ok(Attempt { client, deadline })
    }

    async fn connect(&self) -> Result<Client, Error> {
        debug!(endpoint = self.endpoint(), "connecting");
        let mut options = ConnectOptions::new()
            .with_require_leader(true)
            .with_keep_alive(PING_EVERY, PING_TIMEOUT)
            .with_keep_alive_while_idle(false);
        if self.endpoint().starts_with("https:") {
            options = options.with_tls(self.options.tls.read()?);
        }
        let Some(login) = &self.options.login else {
            return Ok(Client::connect([self.endpoint()], Some(options)).await?);
        };
        let password = login.read_password()?;
        let with_user = options.clone().with_user(&login.user, password.0);
        match Client::connect([self.endpoint()], Some(with_user)).await {
            // Credentials are configured ahead of `etcdctl auth enable`: go in without until then.
            Err(etcd_client::Error::GRpcStatus(status))
                if status.message().contains("authentication is not enabled") =>
            {
                Ok(Client::connect([self.endpoint()], Some(options)).await?)
            }
            other => Ok(other?),
        }
    }

    /// One request in one attempt.
    ///
    /// # Errors
    /// See [`Error`]. The next call goes to the next endpoint where this one did not answer. When
    /// dropped, whether etcd acted on the request is unknown.
    pub(super) async fn call<T, F>(&mut self, request: impl FnOnce(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Attempt { client, deadline } = self.open().await?;
        let result = bounded(deadline, request(client)).await;
        self.judge(result)
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
                debug!(endpoint = self.endpoint(), reason, "logging in again");
                self.answered();
                self.login_renewed = true;
                self.client = None;
            }
            Err(error @ (Error::StaleLogin(_) | Error::Refused(_) | Error::Unusable(_))) => {
                if !matches!(error, Error::Unusable(_)) {
                    self.answered();
                }
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

    /// An answer came: an outage, if there was one, is over.
    pub(super) fn answered(&mut self) {
        self.proven = true;
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

    /// A client certificate is judged after the handshake of TLS 1.3, and the alert that says so is
    /// mostly overtaken by the end of the connection.
    fn explain(&self, error: Error) -> Error {
        let ended = ["closed", "canceled", "broken pipe", "reset"];
        match error {
            Error::Unavailable(reason)
                if !self.proven
                    && self.endpoint().starts_with("https:")
                    && !reason.contains("certificate")
                    && ended.iter().any(|end| reason.contains(end)) =>
            {
                Error::Unavailable(format!(
                    "{reason}, as when etcd does not accept our certificate: check \"--cert\" and \"--key\""
                ))
            }
            other => other,
        }
    }

    fn leave(&mut self, reason: &str) {
        self.client = None;
        let endpoints = self.endpoint_count();
        let round_is_over = self.outage.left(self.current, &self.contact.endpoint(), endpoints, reason);
        self.current = (self.current + 1) % endpoints;
        self.contact.set_endpoint(self.endpoint());
        if round_is_over {
            let pause = self.round_backoff.pause(self.pause_cap(self.timing.round_cap()));
            self.not_before = Some(Instant::now() + pause);
        }
    }

    fn refused(&mut self, error: &Error, cap: Duration) {
        let user = self.options.login.as_ref().map_or("none", |login| &login.user);
        self.outage.refused(&self.contact.endpoint(), user, error);
        self.not_before = Some(Instant::now() + self.refusal_backoff.pause(self.pause_cap(cap)));
    }

    fn pause_cap(&self, cap: Duration) -> Duration {
        self.hurry.map_or(cap, |cut| cut.min(cap))
    }
}

/// Waits for `request` until `deadline`. The clock is monotonic.
pub(super) async fn bounded<T>(
    deadline: Instant,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout_at(deadline, request)
        .await
        .unwrap_or_else(|_| Err(Error::Unavailable("no answer in time".to_owned())))
}
