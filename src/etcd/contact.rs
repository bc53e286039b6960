//! How we stand with etcd: published on a watch channel, so that it can be read while a request is on its way.

use tokio::{sync::watch, time::Instant};

/// How we stand with etcd now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// The endpoint in use, or to be tried next.
    pub endpoint: String,
    /// What went wrong last, if anything has since etcd last did what it was asked for.
    pub failure: Option<Failure>,
    /// When the last renewal of our lease that was answered had been sent.
    pub renewed: Option<Instant>,
    /// Since when our lease could not be renewed. Nothing while it is renewed, and where there is none to renew.
    pub silent_since: Option<Instant>,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The endpoint that was asked.
    pub endpoint: String,
    /// Why it gave no result.
    pub reason: String,
    /// When that was found out.
    pub at: Instant,
}

/// The one end of the channel that writes.
#[derive(Debug, Default)]
pub(super) struct Publisher(watch::Sender<Contact>);

impl Publisher {
    /// The other end: how we stand now, at any time.
    pub(super) fn subscribe(&self) -> watch::Receiver<Contact> {
        self.0.subscribe()
    }

    pub(super) fn endpoint(&self) -> String {
        self.0.borrow().endpoint.clone()
    }

    pub(super) fn set_endpoint(&self, endpoint: String) {
        self.0.send_modify(|contact| contact.endpoint = endpoint);
    }

    pub(super) fn set_failure(&self, reason: String) {
        self.0.send_modify(|contact| {
            let endpoint = contact.endpoint.clone();
            contact.failure = Some(Failure { endpoint, reason, at: Instant::now() });
        });
    }

    pub(super) fn clear_failure(&self) {
        self.0.send_modify(|contact| contact.failure = None);
    }

    pub(super) fn set_renewed(&self, sent: Option<Instant>) {
        self.0.send_modify(|contact| contact.renewed = sent);
    }

    /// Our lease could not be renewed just now.
    pub(super) fn set_silent(&self) {
        self.0.send_modify(|contact| _ = contact.silent_since.get_or_insert_with(Instant::now));
    }

    /// Our lease is renewed again, or there is none to renew any more. Gives whether there was a silence until now.
    pub(super) fn end_silence(&self) -> bool {
        let mut was_silent = false;
        self.0.send_modify(|contact| was_silent = contact.silent_since.take().is_some());
        was_silent
    }
}
