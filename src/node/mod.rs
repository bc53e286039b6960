//! What we ask our own CrateDB, and what it answers: one loop of probes, whose results are published on one channel.

mod any_certificate;
mod authorization;
pub(crate) mod check;
pub mod cratedb;
pub(crate) mod gate;
mod news;
mod probe;

use tokio::sync::watch;

pub use self::authorization::Credentials;

/// The receiver of the results of the probes.
pub type Reports = watch::Receiver<Report>;

/// The results of the last probes. They are published only when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the node can be joined, by `rise` and `fall`.
    pub verdict: Verdict,
    /// What the node told about itself at the last probe, whatever the verdict is.
    pub told: Told,
}

/// The state of the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The node can be joined.
    Open,
    /// The node cannot be joined, for this reason. The reason is `None` before the first probe.
    Closed(Option<String>),
}

/// What a node tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// There is no `crate://` check, or the last probe was bad.
    #[default]
    Nothing,
    /// CrateDB's authenticator answered 401: a CrateDB is up, and nothing more is known.
    Locked,
    /// It told who it is.
    Known(Identity),
}

/// A CrateDB node, as it describes itself. Each text may hold anything, up to 200 characters and an ellipsis, so it
/// must be escaped where it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `node.name`.
    pub name: String,
    /// `cluster.name`.
    pub cluster: String,
    /// CrateDB's version, such as `6.4.3`.
    pub version: String,
    /// Whether it knows a master: it answered 200, and not 503.
    pub has_master: bool,
}

/// The channel of the reports, with the state before the first probe: the gate is open only if there are no checks. The
/// sender is for [`gate::run`].
pub(crate) fn channel(settings: &gate::Settings) -> (watch::Sender<Report>, Reports) {
    let verdict = if settings.checks.is_empty() { Verdict::Open } else { Verdict::Closed(None) };
    watch::channel(Report { verdict, told: Told::Nothing })
}

impl Verdict {
    /// Whether the node can be joined.
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

impl Told {
    /// Whether it is a CrateDB that knows a master, so that its cluster has formed.
    pub fn has_master(&self) -> bool {
        matches!(self, Self::Known(Identity { has_master: true, .. }))
    }
}
