//! The exit codes, and which error leads to which code. The numbers from 64 on are those of sysexits.h.

use std::io;

use crate::{
    announcer::NotWithdrawn,
    bootstrap::{NoMachineId, Obstacle},
    etcd,
    file::UnwritableFile,
    host::UnusableDefault,
    verbs::{
        bootstrap::{NotAgreed, StillAnnounced},
        hosts::TooFew,
        status::NotAnnounced,
    },
};

/// An error that was not expected.
pub const UNEXPECTED: u8 = 1;
/// A flag or variable is rejected.
pub const USAGE: u8 = 2;
/// `status`: the host is not announced.
pub const NOT_ANNOUNCED: u8 = 3;
/// Etcd did not answer in time, a wait ran out of time, or a withdrawal was not confirmed.
pub const UNAVAILABLE: u8 = 69;
/// Etcd refused us: login or permission.
pub const REFUSED: u8 = 77;
/// A file, or the state of the host, cannot be used. For `bootstrap`: something must be put right before the nodes can
/// agree, or before a reset.
pub const UNUSABLE: u8 = 78;

/// The exit code for an error: the first one that is known in its chain of causes.
pub fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(of_cause).unwrap_or(UNEXPECTED)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(error) = cause.downcast_ref::<etcd::Error>() {
        return Some(match error {
            etcd::Error::Unusable(_) => UNUSABLE,
            error if error.is_refusal() => REFUSED,
            _ => UNAVAILABLE,
        });
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        // The reader of our output has gone, which is no error.
        return (error.kind() == io::ErrorKind::BrokenPipe).then_some(0);
    }
    if let Some(error) = cause.downcast_ref::<NotAgreed>() {
        return Some(match error {
            NotAgreed::InTime { obstacle: Obstacle::TooFew { .. } | Obstacle::Settling { .. }, .. } => {
                UNAVAILABLE
            }
            NotAgreed::InTime { .. } | NotAgreed::Before(_) => UNUSABLE,
        });
    }
    let of_host = cause.is::<UnusableDefault>() || cause.is::<NoMachineId>() || cause.is::<StillAnnounced>();
    if cause.is::<UnwritableFile>() || of_host {
        return Some(UNUSABLE);
    }
    if cause.is::<NotAnnounced>() {
        return Some(NOT_ANNOUNCED);
    }
    (cause.is::<NotWithdrawn>() || cause.is::<TooFew>()).then_some(UNAVAILABLE)
}

/// The exit code if the process was ended by `signal`: 128 plus its number.
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
