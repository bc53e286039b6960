//! Stands in for CrateDB in the tests of the units and of the compose file: no registry that can be
//! reached here holds a server. What it does was seen on real servers, 6.4.3 and 5.10.16; where it
//! could be kinder than they are it is not.
//!
//! One program under the names that the official image has: `docker-entrypoint.sh`, `crate` and `curl`.
//! It says on stdout, with milliseconds since the epoch, what happens to it. Each file beside this one
//! answers one question: which flags are taken ([`settings`]), what ends a start ([`checks`]), what is
//! answered on 4200 ([`http`]), who is asked for peers ([`seeds`]), who is master ([`cluster`]), what
//! stays on disk ([`disk`]).
//!
//! A test steers it through the file `/data/stand-in`, see [`steering`], and through variables that say
//! what the engine was asked for where that cannot be had here, see [`checks`].

mod checks;
mod cluster;
mod curl;
mod disk;
// The tests use more of it.
#[allow(dead_code)]
#[path = "../support/dns.rs"]
mod dns;
mod entrypoint;
mod http;
mod log;
mod seeds;
mod settings;
mod steering;
mod wire;

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{sleep, spawn},
    time::Duration,
};

use signal_hook::{consts::SIGTERM, flag};

use cluster::Node;
use log::{fail, say};
use settings::Settings;
use steering::steered;

/// How long `/` answers 400 before the coordinator starts.
const BEFORE_THE_COORDINATOR: Duration = Duration::from_millis(150);

/// How long the ports are open before a bootstrap check ends the process.
const BEFORE_THE_CHECKS: Duration = Duration::from_millis(500);

/// Java's, on SIGTERM.
const TERMINATED: i32 = 143;

fn main() {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    match program.rsplit('/').next() {
        Some("curl") => exit(curl::run(&arguments)),
        Some("docker-entrypoint.sh") => entrypoint::run(&arguments),
        _ => run(&arguments),
    }
}

fn run(arguments: &[String]) -> ! {
    if rustix::process::geteuid().is_root() {
        fail(1, "Cannot run as root. Please start CrateDB as a different user.");
    }
    say(&format!("flags {}", arguments.join(" ")));
    let settings = Settings::parse(arguments);
    let asked_to_stop = Arc::new(AtomicBool::new(false));
    flag::register(SIGTERM, Arc::clone(&asked_to_stop)).expect("SIGTERM can be handled");

    let publish = settings.publish_address();
    let seeds = seeds::Seeds::prepare(&settings);
    let disk = disk::Disk::open(settings.get("path.data").unwrap_or("/data/data"));
    sleep(steered("listen-after=").map_or(Duration::ZERO, Duration::from_millis));

    // In the order of `Node.start`.
    let bind = settings.bind_address();
    let (psql, _) = listen(bind, &settings, "psql.port", 5432);
    let (web, _) = listen(bind, &settings, "http.port", 4200);
    let (transport, port) = listen(bind, &settings, "transport.tcp.port", 4300);
    let node = Node::new(&settings, (publish, port).into(), disk);
    spawn({
        let node = Arc::clone(&node);
        let settings = settings.clone();
        move || http::serve(&web, &node, &settings)
    });
    spawn(move || psql.incoming().for_each(drop));
    say("listening");

    if let Some(complaint) = checks::complaint(!bind.is_loopback() || !publish.is_loopback()) {
        sleep(BEFORE_THE_CHECKS);
        fail(checks::EXIT_CODE, &complaint);
    }
    sleep(BEFORE_THE_COORDINATOR);
    node.start();
    spawn({
        let node = Arc::clone(&node);
        move || wire::serve(&transport, &node)
    });
    spawn({
        let node = Arc::clone(&node);
        move || cluster::coordinate(&node, &seeds)
    });

    loop {
        if asked_to_stop.load(Ordering::Relaxed) {
            say("SIGTERM");
            sleep(Duration::from_millis(steered("stop-after=").unwrap_or(100)));
            say("ended");
            exit(TERMINATED);
        }
        if let Some(code) = steered("exit=") {
            say(&format!("exits with {code}"));
            exit(i32::try_from(code).unwrap_or(1));
        }
        if node.is_decommissioned() {
            say("decommissioned");
            exit(0);
        }
        sleep(Duration::from_millis(20));
    }
}

/// Binds the port that the settings give, or else the first free one of CrateDB's hundred.
fn listen(address: IpAddr, settings: &Settings, key: &str, default: u16) -> (TcpListener, u16) {
    let ports = match settings.get(key) {
        Some(port) => {
            let port: u16 = port.parse().unwrap_or_else(|_| fail(1, &format!("[{key}] is no port: {port}")));
            port..=port
        }
        None => default..=default + 100,
    };
    let tried = format!("{ports:?}");
    ports
        .into_iter()
        .find_map(|port| TcpListener::bind((address, port)).ok().map(|listener| (listener, port)))
        .unwrap_or_else(|| fail(1, &format!("BindHttpException: failed to bind to [{tried}] of {key}")))
}

/// The address that stands for all of a host's.
const EVERYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
