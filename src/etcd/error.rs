//! What can go wrong with etcd, in the kinds that callers branch on.

use super::credentials::UnusableFile;
use crate::text::{decode, escape, plain};

/// Why a request to etcd gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This endpoint did not answer: refused, reset, deadline, no leader, anything unknown. Whether
    /// etcd acted on the request is unknown.
    #[error("{0}")]
    Unavailable(String),
    /// Etcd answered no: login or permission. Nothing was done.
    #[error("{0}")]
    Refused(String),
    /// Etcd does not take our token any more; a new login may help. Nothing was done.
    #[error("{0}")]
    StaleLogin(String),
    /// The NOSPACE alarm: nothing can be granted or put.
    #[error("etcd's database space is exceeded (alarm NOSPACE)")]
    NoSpace,
    /// The lease is not there (any more).
    #[error("lease not found")]
    LeaseNotFound,
    /// Only to a grant: the id is somebody's already. Ours are asked for once.
    #[error("lease already exists")]
    LeaseExists,
    /// The answer is larger than we accept.
    #[error("the answer is too large")]
    TooLarge,
    /// The revision that was asked for is compacted.
    #[error("the revision is compacted")]
    Compacted,
    /// A local file (TLS, password) cannot be used; etcd was not asked.
    #[error(transparent)]
    Unusable(#[from] UnusableFile),
}

/// Parts of etcd's answers, which are more reliable than the gRPC codes beside them: broken
/// streams, too, come under any code (api/v3rpc/rpctypes/error.go in etcd's source).
// The last one is how etcd 3.5.1 says the second (auth/store.go, `ErrAuthOldRevision`).
const STALE_LOGIN: [&str; 3] =
    ["invalid auth token", "revision of auth store is old", "revision in header is old"];
const REFUSED: [&str; 2] = ["permission denied", "authentication failed"];

impl Error {
    /// Whether etcd does not let us in, which trying again at once will not change.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::StaleLogin(_))
    }

    /// Judges a message of etcd's: an error, or the reason for which it cancelled a watch.
    pub(super) fn from_message(message: &str) -> Self {
        let has = |part: &&str| message.contains(*part);
        let text = || plain(&escape(message.trim_start_matches("etcdserver: ").as_bytes()));
        if message.contains("user name is empty") {
            // Etcd's own words would send the operator looking for an empty setting.
            Self::StaleLogin("login required (\"--user\" and a password)".to_owned())
        } else if STALE_LOGIN.iter().any(has) {
            Self::StaleLogin(text())
        } else if REFUSED.iter().any(has) {
            Self::Refused(text())
        } else if message.contains("database space exceeded") {
            Self::NoSpace
        } else if message.contains("lease not found") {
            Self::LeaseNotFound
        } else if message.contains("lease already exists") {
            Self::LeaseExists
        } else if message.contains("has been compacted") {
            Self::Compacted
        } else if message.contains("message length too large") || message.contains("larger than max") {
            Self::TooLarge
        } else {
            Self::Unavailable(text())
        }
    }
}

impl From<etcd_client::Error> for Error {
    fn from(error: etcd_client::Error) -> Self {
        match &error {
            etcd_client::Error::GRpcStatus(status) => match deepest(status) {
                Some(cause) => Self::Unavailable(explain(&cause)),
                None => Self::from_message(status.message()),
            },
            etcd_client::Error::TransportError(e) => {
                Self::Unavailable(explain(&deepest(e).unwrap_or_else(|| e.to_string())))
            }
            other => Self::from_message(&other.to_string()),
        }
    }
}

/// What went wrong with a connection, said so that an operator knows where to look: rustls speaks
/// to programmers.
fn explain(cause: &str) -> String {
    if let Some(wrong) = cause.strip_prefix("invalid peer certificate: ") {
        if wrong.starts_with("certificate expired") {
            return "etcd's certificate has expired".to_owned();
        }
        if wrong.starts_with("certificate not valid yet") {
            return "etcd's certificate is not valid yet".to_owned();
        }
        // The second one is what a CA that was made anew under the old name gives.
        if ["UnknownIssuer", "BadSignature"].iter().any(|unknown| wrong.starts_with(unknown)) {
            return "etcd's certificate is of a CA that we do not trust: check \"--cacert\"".to_owned();
        }
        // What rustls quotes of a certificate is escaped already.
        return match wrong.strip_prefix("certificate not valid for name ") {
            Some(names) => {
                let names = names.replacen("; certificate is only valid for", ", only for", 1);
                format!("etcd's certificate is not valid for {}", decode(names.as_bytes()))
            }
            None => format!("etcd's certificate is invalid: {}", escape(wrong.as_bytes())),
        };
    }
    match cause.strip_prefix("received fatal alert: ") {
        Some(alert) if alert.contains("Certificate") || alert.starts_with("UnknownC") => {
            format!("etcd does not accept our certificate ({alert}): check \"--cert\" and \"--key\"")
        }
        _ if cause.starts_with("peer closed connection without") => "connection closed".to_owned(),
        _ => plain(&escape(cause.as_bytes())),
    }
}

/// The cause at the bottom of the chain, which is what an operator can act on: "connection
/// refused" rather than "transport error".
fn deepest(error: &dyn std::error::Error) -> Option<String> {
    let mut cause = error.source()?;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Some(cause.to_string())
}
