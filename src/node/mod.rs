//! What we ask our own CrateDB, and what it tells: one loop of probes, published on one channel.

mod any_certificate;
mod authorization;
pub(crate) mod check;
pub mod cratedb;
pub(crate) mod gate;
mod news;
mod probe;

use tokio::sync::watch;

pub use self::authorization::Credentials;

/// What the probes say, for whoever wants to know.
pub type Reports = watch::Receiver<Report>;

/// What the last probes say of the node. Published on change only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether it can be joined, by `rise` and `fall`.
    pub verdict: Verdict,
    /// What it told of itself at the last probe, whatever the verdict.
    pub told: Told,
}

/// What the gate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The node can be joined.
    Open,
    /// It cannot, because of this; nothing before the first probe.
    Closed(Option<String>),
}

/// What a node tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// There is no `crate://` check, or the last probe was a bad one.
    #[default]
    Nothing,
    /// CrateDB's authenticator answered 401: it is a CrateDB that is up, and nothing more is known.
    Locked,
    /// It is this one.
    Known(Identity),
}

/// A CrateDB node, in its own words: each is anybody's text of at most 200 characters and an
/// ellipsis, to be escaped where it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `node.name`.
    pub name: String,
    /// `cluster.name`.
    pub cluster: String,
    /// CrateDB's version, such as `6.4.3`.
    pub version: String,
    /// It knows a master: it answered 200, and not 503.
    pub has_master: bool,
}

/// The channel of the reports. It holds what is so before the first probe: the gate is open only where
/// nothing is probed. The sender is for [`gate::run`].
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
    /// Whether it is a CrateDB that knows a master: its cluster has formed.
    pub fn has_master(&self) -> bool {
        matches!(self, Self::Known(Identity { has_master: true, .. }))
    }
}
