//! Stands in for CrateDB in the tests of the units and of the compose file: no registry that can be
//! reached here holds a server. It does what a sidekick and a unit can see of a node, and says on
//! stdout, with milliseconds since the epoch, what happened to it.
//!
//! It takes the flags of the official image and judges them as CrateDB does
//! (`EnvironmentAwareCommand`, `AbstractScopedSettings`): an empty value, a key given twice and an
//! unknown key end it; `${NAME}` in a value is the variable of that name. It listens on 4200 and 4300,
//! answers `GET /` with 503 until it is told that it has a master, and exits with 143 on SIGTERM, as
//! Java does. With the SRV provider it asks for its peers and says whom it knows. Under the name `curl` it asks the URL that is its last argument, and fails as
//! `curl --fail` does.
//!
//! A test steers it through the file `/data/stand-in`, blanks between these words:
//!
//! | word | what it does |
//! | --- | --- |
//! | `formed` | answers 200 |
//! | `hang` | accepts connections and says nothing any more |
//! | `exit=N` | exits with N |
//! | `listen-after=MS` | binds its ports this long after its start |
//! | `stop-after=MS` | takes this long to end on SIGTERM, instead of 100 ms |

#[path = "../support/dns.rs"]
mod dns;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs},
    process::exit,
    sync::atomic::{AtomicBool, Ordering},
    thread::{sleep, spawn},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use signal_hook::{consts::SIGTERM, flag};

/// Where the image has its volume.
const STEERING: &str = "/data/stand-in";

/// Those of CrateDB's settings that our units and compose file may name.
const KNOWN: [&str; 15] = [
    "cluster.initial_master_nodes",
    "cluster.name",
    "discovery.seed_hosts",
    "discovery.seed_providers",
    "discovery.srv.query",
    "discovery.srv.resolver",
    "gateway.expected_data_nodes",
    "gateway.recover_after_data_nodes",
    "http.port",
    "network.bind_host",
    "network.host",
    "network.publish_host",
    "node.name",
    "path.conf",
    "transport.tcp.port",
];

/// `ExitCodes.USAGE`.
const USAGE: i32 = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if std::env::args().next().is_some_and(|name| name.ends_with("curl")) {
        exit(curl(arguments.last().map_or("", String::as_str)));
    }
    say(&format!("flags {}", arguments.join(" ")));
    let settings = settings(&arguments);
    let asked_to_stop = std::sync::Arc::new(AtomicBool::new(false));
    flag::register(SIGTERM, std::sync::Arc::clone(&asked_to_stop)).expect("SIGTERM can be handled");

    let port = |key: &str, default: u16| match settings.get(key) {
        Some(port) => port.parse().unwrap_or_else(|_| fail(1, &format!("[{key}] is no port: {port}"))),
        None => default,
    };
    let name = settings.get("node.name").cloned().unwrap_or_else(|| "unnamed".to_owned());
    let (http, transport) = (port("http.port", 4200), port("transport.tcp.port", 4300));
    sleep(steered("listen-after=").map_or(Duration::ZERO, Duration::from_millis));
    // In the order of `Node.start`.
    let http = listen(http);
    spawn(move || serve(&http, &name));
    let transport = listen(transport);
    say("listening");
    if settings.get("discovery.seed_providers").is_some_and(|providers| providers.contains("srv")) {
        let resolver = settings.get("discovery.srv.resolver").cloned().unwrap_or_default();
        spawn(move || discover(&resolver));
    }
    spawn(move || {
        for stream in transport.incoming() {
            drop(stream);
        }
    });

    loop {
        if asked_to_stop.load(Ordering::Relaxed) {
            say("SIGTERM");
            sleep(Duration::from_millis(steered("stop-after=").unwrap_or(100)));
            say("ended");
            exit(143);
        }
        if let Some(code) = steered("exit=") {
            say(&format!("exits with {code}"));
            exit(i32::try_from(code).unwrap_or(1));
        }
        sleep(Duration::from_millis(20));
    }
}

/// The settings, or CrateDB's way out.
fn settings(arguments: &[String]) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for argument in arguments {
        let Some((key, value)) = argument.strip_prefix("-C").and_then(|setting| setting.split_once('='))
        else {
            fail(USAGE, &format!("{argument} is not a recognized option"));
        };
        if value.is_empty() {
            fail(USAGE, &format!("no value provided for setting [{key}]"));
        }
        if !KNOWN.contains(&key) {
            fail(1, &format!("unknown setting [{key}]"));
        }
        let value = substituted(value);
        if let Some(before) = settings.insert(key.to_owned(), value.clone()) {
            fail(USAGE, &format!("setting [{key}] already set, saw [{before}] and [{value}]"));
        }
    }
    settings
}

/// What `PropertyPlaceholder` makes of a value that begins with a placeholder, which is all we use.
fn substituted(value: &str) -> String {
    match value.strip_prefix("${").and_then(|rest| rest.split_once('}')) {
        Some((name, rest)) => match std::env::var(name) {
            Ok(set) => set + rest,
            Err(_) => fail(1, &format!("could not resolve placeholder '{name}'")),
        },
        None => value.to_owned(),
    }
}

/// The exit code of `curl --fail` for `http://127.0.0.1:PORT/`.
fn curl(url: &str) -> i32 {
    let port = url.trim_start_matches("http://127.0.0.1:").trim_end_matches('/').parse().unwrap_or(0);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => 0,
        Ok(_) => 22,
        Err(_) => 7,
    }
}

fn listen(port: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .unwrap_or_else(|error| fail(1, &format!("failed to bind to [{port}]: {error}")))
}

/// Asks in every round of discovery, which is one a second, and says who is known whenever that
/// changes. The resolver's name is looked up once, as `SrvUnicastHostsProvider` does.
fn discover(resolver: &str) {
    let resolver = resolver.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let Some(resolver) = resolver else { return say("no resolver") };
    let mut known = Vec::new();
    loop {
        if let Ok(seeds) = dns::seeds(resolver)
            && seeds != known
        {
            say(&format!("knows {}", seeds.join(",")));
            known = seeds;
        }
        sleep(Duration::from_secs(1));
    }
}

/// `GET /` as `MainAndStaticFileHandler` answers it.
fn serve(listener: &TcpListener, name: &str) {
    let mut unanswered = Vec::new();
    for stream in listener.incoming().flatten() {
        if steering().iter().any(|word| word == "hang") {
            unanswered.push(stream);
            continue;
        }
        // Whoever does not wait for the answer does not get it.
        let _ = answer(stream, name);
    }
}

fn answer(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let _ = stream.read(&mut [0; 1024])?;
    let formed = steering().iter().any(|word| word == "formed");
    let status = if formed { "200 OK" } else { "503 Service Unavailable" };
    let number = &status[..3];
    let body = format!(
        r#"{{"ok":{formed},"status":{number},"name":"{name}","cluster_name":"crate","version":{{"number":"6.4.3"}}}}"#
    );
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The words that steer us now.
fn steering() -> Vec<String> {
    let text = std::fs::read_to_string(STEERING).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn steered(prefix: &str) -> Option<u64> {
    steering().iter().find_map(|word| word.strip_prefix(prefix)?.parse().ok())
}

fn say(what: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A log that nobody reads any more is no reason to end.
    let _ = writeln!(std::io::stdout(), "{} {what}", now.as_millis());
}

fn fail(code: i32, why: &str) -> ! {
    say(&format!("ERROR: {why}"));
    exit(code)
}
