//! What is in the image, and what it needs: next to nothing.

use std::process::Stdio;

use crate::{
    sidekick::CONFINED,
    support::engine::{Container, docker, engine_answers, run_docker, sidekick_image, try_docker},
};

/// Bytes; the limit that the project sets itself.
const LARGEST: u64 = 5_000_000;

fn inspect(format: &str) -> String {
    run_docker(&["image", "inspect", "--format", format, sidekick_image()])
}

/// Runs the image without a network: what it printed, or what it complained of.
fn run_alone(args: &[&str], arguments: &[&str]) -> Result<String, String> {
    let before = [&["run", "--rm", "--network", "none"], &CONFINED[..], args].concat();
    try_docker(&[&before[..], &[sidekick_image()], arguments].concat())
}

#[test]
fn image_is_small_and_holds_one_program_and_the_roots() {
    engine_answers();
    let size: u64 = inspect("{{.Size}}").parse().unwrap();
    assert!(size <= LARGEST, "{size} bytes");

    let container = Container::create(&[sidekick_image()]);
    let mut export =
        docker().args(["export", container.name()]).stdout(Stdio::piped()).spawn().expect("docker runs");
    let listed = std::process::Command::new("tar")
        .args(["-t", "-v", "-f", "-"])
        .stdin(export.stdout.take().expect("it is piped"))
        .output()
        .expect("tar runs");
    assert!(export.wait().unwrap().success());
    // Mode, owner, size, date, time, name. What is empty was made by the engine, as a place to mount something.
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut files: Vec<&str> = listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[0].starts_with('-') && fields[2] != "0")
        .map(|fields| fields[5])
        .collect();
    files.sort_unstable();
    assert_eq!(files, ["crate-discovery", "etc/ssl/certs/ca-certificates.crt"]);
}

#[test]
fn image_is_nobody_in_particular_and_says_what_it_is() {
    engine_answers();
    assert_eq!(inspect("{{.Config.User}}"), "65532:65532");
    assert_eq!(
        inspect("{{json .Config.Entrypoint}} {{json .Config.Cmd}}"),
        r#"["/crate-discovery"] ["announce"]"#
    );
    assert_eq!(
        inspect("{{json .Config.Healthcheck.Test}}"),
        r#"["CMD","/crate-discovery","status","--self"]"#
    );
    let label =
        |name: &str| inspect(&format!("{{{{index .Config.Labels \"org.opencontainers.image.{name}\"}}}}"));
    assert_eq!(label("title"), "crate-discovery");
    assert_eq!(label("licenses"), "Apache-2.0");
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_ne!(label("revision"), "");
}

#[test]
fn image_runs_without_network_capabilities_or_a_place_to_write() {
    engine_answers();
    let version = run_alone(&[], &["--version"]).unwrap();
    assert_eq!(version, concat!("crate-discovery ", env!("CARGO_PKG_VERSION")));
    assert!(run_alone(&[], &["announce", "--help"]).unwrap().contains("--stop-timeout"));
}

#[test]
fn random_host_name_of_a_container_is_refused_in_words() {
    engine_answers();
    let said = run_alone(&[], &[]).unwrap_err();
    assert!(
        said.starts_with("error: set \"--host\" or CRATE_DISCOVERY_HOST: the system's host name \""),
        "{said}"
    );
    assert!(said.contains("looks like a container id"), "{said}");
    // A name that somebody chose is one.
    let said = run_alone(&["--hostname", "crate1", "--env", "ETCDCTL_ENDPOINTS=127.0.0.1"], &[]).unwrap_err();
    assert!(said.contains("ETCDCTL_ENDPOINTS") && !said.contains("host name"), "{said}");
}
