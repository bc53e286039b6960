//! The program: parses the command line, starts the log, runs the verb, and turns the result into an exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use crate_discovery::{
    cli::{self, Invocation, LogFormat, Outcome, Verb},
    exit,
    names::Names,
    process::{logging, shutdown},
    verbs::{Access, announce, bootstrap, hosts, status, watch},
};
use tracing::warn;

/// How long `hosts` and `status` wait for stderr before they drop log lines. They wait at most once.
const LINE_WAITS: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Outcome::Run(invocation) => *invocation,
        Outcome::Print(text) => {
            // It is no error if the reader of stdout has gone.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Outcome::Reject(text) => {
            logging::fail(&text);
            return ExitCode::from(exit::USAGE);
        }
    };
    // `hosts` and `status` keep no key alive, so they can wait a moment for a complete log.
    let patience = match &invocation.verb {
        Verb::Hosts(_) | Verb::Status(_) => LINE_WAITS,
        Verb::Announce(_) | Verb::Watch(_) | Verb::Bootstrap(_) => Duration::ZERO,
    };
    logging::init(invocation.log.clone(), invocation.log_format == LogFormat::Json, patience);
    let code = run(invocation).unwrap_or_else(|error| {
        let code = exit::code(&error);
        if code != 0 {
            logging::fail(&format!("error: {error:#}\n"));
        }
        code
    });
    logging::flush();
    ExitCode::from(code)
}

fn run(invocation: Invocation) -> anyhow::Result<u8> {
    let signal = {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the runtime")?;
        let ended = runtime.block_on(verb(invocation));
        // A lookup of a name may still hang in its thread. We do not wait for it; the thread ends with the process.
        runtime.shutdown_background();
        ended?
    };
    Ok(signal.map_or(0, exit::of_signal))
}

/// Runs the verb. Returns the signal if a signal ended the verb before it was done. Ending `announce` or `watch` by a
/// signal is normal, and returns `None`.
async fn verb(invocation: Invocation) -> anyhow::Result<Option<i32>> {
    let signal = shutdown::signals().context("failed to handle signals")?;
    let Invocation { etcd, prefix, warnings, verb, .. } = invocation;
    for warning in warnings {
        warn!("{warning}");
    }
    let access = Access { etcd, names: Names::new(), prefix };
    match verb {
        Verb::Announce(options) => announce::run(access, options, signal).await,
        Verb::Hosts(options) => hosts::run(access, options, signal).await,
        Verb::Watch(options) => watch::run(access, options, signal).await,
        Verb::Bootstrap(options) => bootstrap::run(access, options, signal).await,
        Verb::Status(options) => status::run(access, options, signal).await,
    }
}
