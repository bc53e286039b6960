//! The state of our connection to etcd. It is published on a watch channel, so that it can be read while a request is
//! on its way.

use tokio::{sync::watch, time::Instant};

/// The state of our connection to etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// The endpoint in use, or the one to be tried next.
    pub endpoint: String,
    /// The last error. `None` once etcd has done what it was asked for since then.
    pub failure: Option<Failure>,
    /// When we sent the last renewal of our lease that was answered.
    pub renewed: Option<Instant>,
    /// Since when our lease could not be renewed. `None` while it is renewed, and while there is no lease to renew.
    pub silent_since: Option<Instant>,
}

/// The last error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The endpoint that was asked.
    pub endpoint: String,
    /// Why it gave no result.
    pub reason: String,
    /// When we knew that.
    pub at: Instant,
}

/// The sending end of the channel.
#[derive(Debug, Default)]
pub(super) struct Publisher(watch::Sender<Contact>);

impl Publisher {
    /// A receiving end, which always shows the present state.
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

    /// Notes that our lease could not be renewed just now.
    pub(super) fn set_silent(&self) {
        self.0.send_modify(|contact| _ = contact.silent_since.get_or_insert_with(Instant::now));
    }

    /// Notes that our lease is renewed again, or that there is no lease to renew any more. Returns whether there was a
    /// silence until now.
    pub(super) fn end_silence(&self) -> bool {
        let mut was_silent = false;
        self.0.send_modify(|contact| was_silent = contact.silent_since.take().is_some());
        was_silent
    }
}
