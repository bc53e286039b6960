//! The command line: parses the flags, and validates them once. This is the only room that uses clap.

mod args;
mod feed_flags;
mod rejection;
mod validate;
mod values;
mod variables;

use std::ffi::OsString;

use clap::{Command, CommandFactory, FromArgMatches};
use tracing_subscriber::filter::Targets;

use crate::{
    etcd,
    verbs::{announce, bootstrap, hosts, status, watch},
};

/// The result of parsing a command line.
#[derive(Debug)]
pub enum Outcome {
    /// Run this invocation.
    Run(Box<Invocation>),
    /// Print this text, which is `--help` or `--version`, to stdout, and exit with 0.
    Print(String),
    /// A flag or variable is rejected: print this text to stderr, and exit with [`crate::exit::USAGE`].
    Reject(String),
}

/// The validated settings of one run.
#[derive(Debug)]
pub struct Invocation {
    /// The filter for log lines.
    pub log: Targets,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The endpoints of etcd, and the credentials.
    pub etcd: etcd::Options,
    /// The prefix. It begins with `/` and does not end with one.
    pub prefix: String,
    /// Warnings to log before anything else.
    pub warnings: Vec<String>,
    /// The verb.
    pub verb: Verb,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `<time>  INFO announced key="/services/crate/a" …`
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The verb and its options.
#[derive(Debug)]
pub enum Verb {
    /// `announce`.
    Announce(announce::Options),
    /// `hosts`.
    Hosts(hosts::Options),
    /// `watch`.
    Watch(watch::Options),
    /// `bootstrap`.
    Bootstrap(bootstrap::Options),
    /// `status`.
    Status(status::Options),
}

/// Parses a command line, which begins with the name of the program, and the environment.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Outcome {
    let command = command();
    let parsed = command
        .clone()
        .try_get_matches_from(arguments)
        .and_then(|matches| args::Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => match validate::validate(cli, variables::unknown(&command)) {
            Ok(invocation) => Outcome::Run(Box::new(invocation)),
            Err(message) => Outcome::Reject(format!("error: {message}\n")),
        },
        Err(error) => rejection::outcome(&error, &command),
    }
}

/// The command for clap. A variable that is set but empty is left out, because an environment file may have such a
/// line, and it means "not set".
fn command() -> Command {
    feed_flags::with_variables(args::Cli::command()).mut_subcommands(|verb| {
        verb.mut_args(|arg| {
            if arg.get_env().is_some_and(variables::is_unset) { arg.env(None::<&'static str>) } else { arg }
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The flags to test. Values from the command line and from the environment go through the same parsers.
    const FLAGS: [&str; 37] = [
        "--host",
        "--http",
        "--transport",
        "--psql",
        "--address",
        "--ttl",
        "--check",
        "--check-interval",
        "--check-timeout",
        "--check-user",
        "--check-password-file",
        "--cluster-name",
        "--rise",
        "--fall",
        "--stop-timeout",
        "--endpoints",
        "--cacert",
        "--cert",
        "--key",
        "--user",
        "--password-file",
        "--prefix",
        "--request-timeout",
        "--log",
        "--log-format",
        "--format",
        "--port",
        "--seed-file",
        "--seed-file-in-place",
        "--srv",
        "--srv-name",
        "--hold",
        "--expect",
        "--node-name",
        "--timeout",
        "--state-dir",
        "--node-data",
    ];

    proptest! {
        #[test]
        fn any_value_of_any_flag_is_taken_or_rejected_in_words(
            flags in proptest::collection::vec((0..FLAGS.len(), ".{0,40}"), 0..5),
            verb in "announce|hosts|watch|bootstrap|status",
        ) {
            let values = flags.iter().map(|(flag, value)| format!("{}={value}", FLAGS[*flag]));
            let line = ["crate-discovery".to_owned(), verb].into_iter().chain(values);
            if let Outcome::Reject(text) = parse(line.map(OsString::from)) {
                prop_assert!(text.starts_with("error: "), "{:?}", text);
            }
        }
    }

    #[test]
    fn command_is_consistent() {
        command().debug_assert();
    }
}
