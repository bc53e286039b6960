//! What can go wrong with etcd, in the kinds that callers branch on.

use std::error::Error as _;

use super::words;
use crate::{
    credentials::UnusableFile,
    text::{escape, plain},
};

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

/// How messages of tonic's own begin (codec/decode.rs, client/grpc.rs and status.rs in its source).
const OF_THE_LIBRARY: [&str; 7] = [
    "protocol error",
    "grpc-status header missing",
    "failed to decode Protobuf",
    "Error decompressing",
    "Unexpected EOF",
    "Missing response",
    "Content is compressed",
];

/// How a wait that ran out of time is said.
pub(super) const NO_ANSWER: &str = "no answer in time";

impl Error {
    /// Nothing came back in time.
    pub fn no_answer() -> Self {
        Self::Unavailable(NO_ANSWER.to_owned())
    }

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
            etcd_client::Error::GRpcStatus(status) if status.source().is_some() => {
                Self::Unavailable(words::of_cause(status))
            }
            etcd_client::Error::GRpcStatus(status) => {
                // What the library says itself comes in the same place as what etcd says.
                if OF_THE_LIBRARY.iter().any(|start| status.message().starts_with(start)) {
                    let text = words::remainder(status.message());
                    return Self::Unavailable(format!("what it answers is not etcd's ({text})"));
                }
                Self::from_message(status.message())
            }
            etcd_client::Error::TransportError(e) => Self::Unavailable(words::of_cause(e)),
            // The library's streams: whoever reads them is gone, with the connection.
            other => match Self::from_message(&other.to_string()) {
                Self::Unavailable(text) if text.contains("closed") => {
                    Self::Unavailable(words::CLOSED.to_owned())
                }
                judged => judged,
            },
        }
    }
}
