//! Environment variables: which ones count, how they may be quoted, and which ones have no effect although they look
//! like ours.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::Command;

/// Variables of etcdctl (`GlobalFlags` in etcdctl/ctlv3, and those of v2) that do not change where or how it connects,
/// and the password, which is no flag of ours.
const OF_NO_CONCERN: [&str; 16] = [
    "PASSWORD",
    "API",
    "WRITE_OUT",
    "OUTPUT",
    "DEBUG",
    "HEX",
    "COMMAND_TIMEOUT",
    "DIAL_TIMEOUT",
    "KEEPALIVE_TIME",
    "KEEPALIVE_TIMEOUT",
    "MAX_REQUEST_BYTES",
    "MAX_RECV_BYTES",
    "TIMEOUT",
    "TOTAL_TIMEOUT",
    "WATCH_KEY",
    "WATCH_RANGE_END",
];

/// Variables of etcdctl's version 2 that have another name now.
const RENAMED: [(&str, &str); 6] = [
    ("ENDPOINT", "ETCDCTL_ENDPOINTS"),
    ("PEERS", "ETCDCTL_ENDPOINTS"),
    ("CA_FILE", "ETCDCTL_CACERT"),
    ("CERT_FILE", "ETCDCTL_CERT"),
    ("KEY_FILE", "ETCDCTL_KEY"),
    ("USERNAME", "ETCDCTL_USER"),
];

/// Whether a variable counts as not set: an environment file may have a line without a value, and docker keeps the
/// quotes of an empty value (`ETCDCTL_CACERT=""`).
pub(super) fn is_unset(name: &OsStr) -> bool {
    env::var_os(name).is_some_and(|value| is_empty(name, &value))
}

fn is_empty(name: &OsStr, value: &OsStr) -> bool {
    let is_etcdctls = name.to_string_lossy().starts_with("ETCDCTL_");
    value.is_empty() || is_etcdctls && value.to_str().is_some_and(|value| bare(value).is_empty())
}

/// The value without quotes and white space around it. `docker --env-file` keeps both, and the carriage return of a
/// Windows file. No path, user or endpoint of etcd has them.
pub(super) fn bare(value: &str) -> &str {
    let value = value.trim();
    let inner = ['"', '\''].iter().find_map(|&quote| value.strip_prefix(quote)?.strip_suffix(quote));
    inner.map_or(value, str::trim)
}

/// As [`bare`], for a path.
pub(super) fn bare_path(path: PathBuf) -> PathBuf {
    path.to_str().map(bare).map(PathBuf::from).unwrap_or(path)
}

/// Warnings about variables that look like ours or like etcdctl's, and have no effect. Otherwise nobody would notice,
/// for example, that a check is never made, or that a certificate is verified where etcdctl does not verify one.
pub(super) fn unknown(command: &Command) -> Vec<String> {
    let known: Vec<_> =
        command.get_subcommands().flat_map(Command::get_arguments).filter_map(|arg| arg.get_env()).collect();
    let set = env::vars_os().filter(|(name, value)| !is_empty(name, value)).map(|(name, _)| name);
    set.filter(|name| !known.contains(&name.as_os_str())).filter_map(|name| complaint(&name)).collect()
}

fn complaint(name: &OsString) -> Option<String> {
    let text = name.to_string_lossy();
    if let Some(etcdctls) = text.strip_prefix("ETCDCTL_") {
        if OF_NO_CONCERN.contains(&etcdctls) {
            return None;
        }
        if let Some((_, now)) = RENAMED.iter().find(|(old, _)| *old == etcdctls) {
            return Some(format!(
                "the variable {name:?} is one of etcdctl's version 2 and does nothing: set {now}"
            ));
        }
    } else if !text.starts_with("CRATE_DISCOVERY_") {
        return None;
    }
    Some(format!("the variable {name:?} is unknown and does nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_white_space_around_a_value_do_not_count() {
        for kept in ["/x", "\"/x\"", "'/x'", " /x\r", "\" /x \"", "/x\n"] {
            assert_eq!(bare(kept), "/x", "{kept:?}");
        }
        for whole in ["a\"b", "\"a", "'a\""] {
            assert_eq!(bare(whole), whole);
        }
        assert_eq!(bare("\"\""), "");
        assert_eq!(bare("\""), "\"");
    }
}
