//! A sidekick in a container of its own, as docs/containers.md starts one.

use std::time::Duration;

use crate::support::{
    TTL,
    engine::{Container, Network, engine_answers, run_docker, sidekick_image},
};

/// Nothing that it does not need, and 16 MB of memory.
pub const CONFINED: [&str; 9] = [
    "--read-only",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--memory",
    "16m",
    "--memory-swap",
    "16m",
];

/// Creates one that announces `host` at the etcd of `url`, with `more` arguments of `docker create`.
pub fn sidekick(network: &Network, host: &str, url: &str, more: &[&str]) -> Container {
    let variables =
        [format!("CRATE_DISCOVERY_HOST={host}"), format!("CRATE_DISCOVERY_TTL={}s", TTL.as_secs())];
    let variables: Vec<&str> = variables.iter().flat_map(|variable| ["--env", variable]).collect();
    tool(network, url, &[&variables[..], more].concat(), &[])
}

/// Creates one that runs `command`, or else what the image runs.
pub fn tool(network: &Network, url: &str, more: &[&str], command: &[&str]) -> Container {
    engine_answers();
    let endpoints = format!("ETCDCTL_ENDPOINTS={url}");
    let args = [&CONFINED[..], &["--network", network.name(), "--env", &endpoints], more].concat();
    Container::create(&[&args[..], &[sidekick_image()], command].concat())
}

/// `docker stop`: how long it took, and the exit code.
pub fn stop(container: &Container) -> (Duration, String) {
    let began = std::time::Instant::now();
    run_docker(&["stop", container.name()]);
    (began.elapsed(), container.inspect("{{.State.ExitCode}}"))
}
