//! The errors of etcd, in the kinds that callers treat differently.

use std::error::Error as _;

use super::words;
use crate::{
    credentials::UnusableFile,
    text::{escape, plain},
};

/// Why a request to etcd gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This endpoint did not answer: connection refused or reset, deadline, no leader, or anything unknown. We do not
    /// know whether etcd acted on the request.
    #[error("{0}")]
    Unavailable(String),
    /// Etcd refused the login or has no permission for us. It did nothing.
    #[error("{0}")]
    Refused(String),
    /// Etcd does not accept our token any more. A new login may help. It did nothing.
    #[error("{0}")]
    StaleLogin(String),
    /// Etcd has the NOSPACE alarm. Nothing can be granted or put.
    #[error("etcd's database space is exceeded (alarm NOSPACE)")]
    NoSpace,
    /// The lease does not exist, or does not exist any more.
    #[error("lease not found")]
    LeaseNotFound,
    /// Only for a grant: this id is taken already. Ids are random, so in practice it is our own grant whose answer was
    /// lost.
    #[error("lease already exists")]
    LeaseExists,
    /// The answer is larger than we accept.
    #[error("the answer is too large")]
    TooLarge,
    /// The revision that we asked for is compacted.
    #[error("the revision is compacted")]
    Compacted,
    /// A local file (TLS, password) cannot be used. Etcd was not asked.
    #[error(transparent)]
    Unusable(#[from] UnusableFile),
}

/// Parts of etcd's error messages. They are more reliable than the gRPC codes, because a broken stream can come with
/// any code (api/v3rpc/rpctypes/error.go in etcd's source).
// The last one is the message of etcd 3.5.1 for the second (auth/store.go, `ErrAuthOldRevision`).
const STALE_LOGIN: [&str; 3] =
    ["invalid auth token", "revision of auth store is old", "revision in header is old"];
const REFUSED: [&str; 2] = ["permission denied", "authentication failed"];

/// The beginnings of tonic's own messages (codec/decode.rs, client/grpc.rs and status.rs in its source).
const OF_THE_LIBRARY: [&str; 7] = [
    "protocol error",
    "grpc-status header missing",
    "failed to decode Protobuf",
    "Error decompressing",
    "Unexpected EOF",
    "Missing response",
    "Content is compressed",
];

/// The reason of a wait that ran out of time.
pub(super) const NO_ANSWER: &str = "no answer in time";

impl Error {
    /// The error for an answer that did not come in time.
    pub fn no_answer() -> Self {
        Self::Unavailable(NO_ANSWER.to_owned())
    }

    /// Whether etcd does not let us in. Trying again at once does not change that.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::StaleLogin(_))
    }

    /// The error for a message of etcd: an error, or the reason why it cancelled a watch.
    pub(super) fn from_message(message: &str) -> Self {
        let has = |part: &&str| message.contains(*part);
        let text = || plain(&escape(message.trim_start_matches("etcdserver: ").as_bytes()));
        if message.contains("user name is empty") {
            // The message of etcd would make the operator look for an empty setting.
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
                // Messages of the library come in the same field as messages of etcd.
                if OF_THE_LIBRARY.iter().any(|start| status.message().starts_with(start)) {
                    let text = words::remainder(status.message());
                    return Self::Unavailable(format!("what it answers is not etcd's ({text})"));
                }
                Self::from_message(status.message())
            }
            etcd_client::Error::TransportError(e) => Self::Unavailable(words::of_cause(e)),
            // An error of the library's streams: their reader is gone, and so is the connection.
            other => match Self::from_message(&other.to_string()) {
                Self::Unavailable(text) if text.contains("closed") => {
                    Self::Unavailable(words::CLOSED.to_owned())
                }
                judged => judged,
            },
        }
    }
}
