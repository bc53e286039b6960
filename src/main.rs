//! Parse, log, run, exit: `main` only translates.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use crate_discovery::{
    announcer::{
        self, Notice, Supervisor,
        noting::{self, Noting},
    },
    bootstrap::Memory,
    cli::{self, Announce, Invocation, LogFormat, Outcome, Status, Verb},
    etcd::Registry,
    exit, feeds,
    host::{self, Host},
    names::Names,
    node::{self, check::Check},
    process::{logging, shutdown, systemd},
    verbs::{
        bootstrap, hosts,
        status::{self, Whom},
        watch as follow,
    },
};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

/// Longest wait for the name service when looking whether our host is known as loopback.
const LOOKUP: Duration = Duration::from_secs(2);
/// How long `hosts` and `status` wait for stderr, once, before they drop log lines.
const LINE_WAITS: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Outcome::Run(invocation) => *invocation,
        Outcome::Print(text) => {
            // A reader that went away has seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Outcome::Reject(text) => {
            logging::fail(&text);
            return ExitCode::from(exit::USAGE);
        }
    };
    // Where no key has to be kept, completeness of what is said is worth a moment.
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
        // A name service that does not answer must not hold us up: its thread ends with the process.
        runtime.shutdown_background();
        ended?
    };
    Ok(signal.map_or(0, exit::of_signal))
}

/// Runs the verb. Gives the signal that ended it, where that is not how it should end.
async fn verb(invocation: Invocation) -> anyhow::Result<Option<i32>> {
    let signal = shutdown::signals().context("failed to handle signals")?;
    let Invocation { etcd, prefix, warnings, verb, .. } = invocation;
    for warning in warnings {
        warn!("{warning}");
    }
    let endpoints = etcd.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let names = Names::new();
    let user = etcd.login.as_ref().map_or_else(|| "none".to_owned(), |login| login.user.clone());
    match verb {
        // They go on without, as they do when a file goes away later.
        Verb::Announce(_) | Verb::Watch(_) => etcd.look_at_files().await?,
        // A host that remembers a cluster starts its node even where etcd cannot be asked for want of a file.
        Verb::Bootstrap(_) => {}
        Verb::Hosts(_) | Verb::Status(_) => etcd.read_files()?,
    }
    let registry = Registry::new(etcd.clone(), names.clone(), prefix.clone());
    match verb {
        Verb::Hosts(options) => tokio::select! {
            done = hosts::run(registry, options) => done.map(|()| None),
            signal = signal => Ok(Some(signal)),
        },
        Verb::Watch(options) => {
            follow::run(registry, options, async { _ = signal.await }).await.map(|()| None)
        }
        Verb::Bootstrap(options) => bootstrap::run(registry, options, signal).await,
        Verb::Status(Status { json, host, own_host }) => {
            let whom = match (own_host, host) {
                (Some(own), _) => Whom::OwnHost(own_host_or_default(own)?),
                (None, Some(host)) => Whom::Host(host),
                (None, None) => Whom::All,
            };
            tokio::select! {
                done = status::run(registry, status::Options { json, whom }) => done.map(|()| None),
                signal = signal => Ok(Some(signal)),
            }
        }
        Verb::Announce(Announce { host, announcement, ttl, gate, stop_timeout, state_dir, feeds }) => {
            let host = own_host_or_default(host)?;
            let (stop_feeds, feeds_stopped) = oneshot::channel::<()>();
            let connect = {
                let (etcd, names, prefix) = (etcd.clone(), names.clone(), prefix.clone());
                || Registry::new(etcd, names, prefix)
            };
            let feeding = feeds::follow(feeds, connect, feeds_stopped).await?;
            let checks = gate.checks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let own_key = registry.own_key(&host, &announcement, ttl);
            info!(
                version = env!("CARGO_PKG_VERSION"),
                %host,
                key = own_key.key(),
                ttl = %humantime::format_duration(ttl),
                endpoints,
                user,
                checks,
                "starting"
            );
            let (probes, reports) = node::channel(&gate);
            let by = host.clone();
            let target = announcement.address.unwrap_or(host);
            let known = names.clone();
            tokio::spawn(async move {
                if known.is_loopback_only(&target, LOOKUP).await {
                    warn!(%target, "peers on other machines cannot join: this resolves to loopback only, set --address");
                }
            });
            let manager = systemd::Manager::from_env();
            let tell = |notice, status: &str| match (notice, &manager) {
                (Notice::Ready, Some(manager)) => manager.ready(status),
                (Notice::Alive, Some(manager)) => manager.alive(status),
                (Notice::Stopping, Some(manager)) => manager.stopping(status),
                (_, None) => {}
            };
            let supervisor =
                manager.as_ref().map(|manager| Supervisor { every: manager.every(), tell: &tell });
            let shutdown = async {
                _ = signal.await;
                // What they keep stays as it was: our own withdrawal is no news to our own node.
                drop(stop_feeds);
            };
            // With a connection of its own, so that it is never in the way.
            let noting = Noting {
                memory: Memory::of_this_machine(state_dir, &prefix),
                mark: Registry::new(etcd, names.clone(), prefix).formed_mark(&by),
                asks_cratedb: gate.checks.iter().any(Check::asks_cratedb),
            };
            let (claims, claimed) = watch::channel(0);
            let noting = noting::run(noting, reports.clone(), claimed);
            let probing = node::gate::run(gate, names, probes);
            let announcing = announcer::run(own_key, reports, claims, stop_timeout, shutdown, supervisor);
            let ended = tokio::select! {
                ended = announcing => ended,
                never = feeding => match never {},
                never = probing => match never {},
                never = noting => match never {},
            };
            ended.map(|()| None).map_err(Into::into)
        }
    }
}

fn own_host_or_default(host: Option<Host>) -> anyhow::Result<Host> {
    match host {
        Some(host) => Ok(host),
        None => host::default_host().context("set \"--host\" or CRATE_DISCOVERY_HOST"),
    }
}
