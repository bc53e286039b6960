//! Exit codes, and what leads to each. The numbers from 64 on are those of sysexits.h.

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

/// Nobody foresaw it.
pub const UNEXPECTED: u8 = 1;
/// A flag or variable is rejected.
pub const USAGE: u8 = 2;
/// `status`: the host is not announced.
pub const NOT_ANNOUNCED: u8 = 3;
/// Etcd was unavailable in time, a wait was not met, or a withdrawal not confirmed.
pub const UNAVAILABLE: u8 = 69;
/// Etcd refused us.
pub const REFUSED: u8 = 77;
/// A file or the host's state is unusable; `bootstrap`: what the candidates say, or who is announced,
/// has to be put right first.
pub const UNUSABLE: u8 = 78;

/// The exit code of an error, by its causes.
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
        // Whoever read our output has seen enough.
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

/// The exit code of a process that a signal ended.
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
