//! `announce` on an etcd that works: what is in etcd, for how long, with whose rights, and what is
//! said about it. What happens when things break is in `faults`.

mod support;

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use rustix::process::Signal;
use support::{
    AT_ONCE, DEFAULT_VALUE, PATIENCE, PREFIX, SLACK,
    daemon::{Daemon, announce, field, hosts, message_of, run, tool},
    etcd::{Etcd, arg, lease_id, scratch},
    eventually, eventually_eq, key_of,
    observer::Observer,
};

/// The value that `host` is announced with, by a daemon with these flags.
fn announced_value(etcd: &Etcd, host: &str, args: &[&str]) -> String {
    let _daemon = Daemon::announced(etcd, host, args);
    etcd.key(&key_of(host)).expect("it said that it is announced").value
}

#[test]
fn value_is_what_the_2014_sidekick_wrote_unless_told_otherwise() {
    let etcd = Etcd::start();
    assert_eq!(announced_value(&etcd, "plain", &[]), r#"{"http":4200,"transport":4300}"#);
    assert_eq!(
        announced_value(&etcd, "ports", &["--http", "80", "--transport", "65535"]),
        r#"{"http":80,"transport":65535}"#
    );
    assert_eq!(
        announced_value(&etcd, "psql", &["--psql", "5432"]),
        r#"{"http":4200,"transport":4300,"psql":5432}"#
    );
    assert_eq!(
        announced_value(&etcd, "address", &["--address", "10.0.0.5"]),
        r#"{"http":4200,"transport":4300,"address":"10.0.0.5"}"#
    );
    assert_eq!(
        announced_value(&etcd, "both", &["--address", "2001:db8::1", "--psql", "1"]),
        r#"{"http":4200,"transport":4300,"psql":1,"address":"2001:db8::1"}"#
    );
}

#[test]
fn key_is_under_the_prefix_told_and_nothing_else_is_written() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let mut daemon = Daemon::announced(&etcd, "h1", &["--prefix", "/elsewhere/c2"]);
    assert_eq!(etcd.key("/elsewhere/c2/h1").expect("announced").value, DEFAULT_VALUE);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    let history = observer.history("/elsewhere/c2/h1");
    assert_eq!(history.iter().map(|e| e.put).collect::<Vec<_>>(), [true, false], "{history:#?}");
    assert_eq!(etcd.announced(), Vec::<String>::new());
}

#[test]
fn key_hangs_on_a_lease_with_the_ttl_asked_for() {
    let etcd = Etcd::start();
    let _daemon = Daemon::announced(&etcd, "h1", &["--ttl", "77s"]);
    let stored = etcd.key(&key_of("h1")).expect("announced");
    assert_eq!(etcd.leases(), [stored.lease], "exactly one lease, the key's");
    let state = etcd.lease(stored.lease);
    assert!(state.contains("granted with TTL(77s)"), "{state}");
    assert!(state.contains("attached keys([/services/crate/h1])"), "{state}");
}

#[test]
fn sigint_withdraws_key_and_lease_at_once() {
    let etcd = Etcd::start();
    let mut daemon = Daemon::announced(&etcd, "h1", &["--ttl", "60s"]);
    assert_eq!(daemon.end(Signal::INT, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&key_of("h1")), None);
    assert_eq!(etcd.leases(), Vec::<i64>::new());
}

/// Etcd is gone and the patience is long: only the second signal can end this in time.
#[test]
fn second_signal_ends_at_once() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut etcd = Etcd::start();
        let mut daemon = Daemon::announced(&etcd, "h1", &["--stop-timeout", "5m"]);
        etcd.kill();
        daemon.signal(Signal::TERM);
        daemon.says("withdrawing", PATIENCE);
        assert_eq!(daemon.end(second, AT_ONCE + SLACK), code);
    }
}

/// Renewal is the lease's keep-alive alone: no raft write, no event, no second lease, and no
/// thread but ours and the one that writes the log.
#[test]
fn steady_state_writes_nothing() {
    let etcd = Etcd::start();
    let observer = Observer::start(&etcd);
    let daemon = Daemon::announced(&etcd, "h1", &[]);
    observer.next_put(&key_of("h1"), 0, PATIENCE);
    let proposals = || etcd.metric("etcd_server_proposals_committed_total");
    let before = proposals();

    // A span of time is what this is about: more than two TTLs and a request for watch progress.
    std::thread::sleep(Duration::from_secs(12));

    assert_eq!(proposals(), before, "raft proposals in 12 s of steady state");
    let heard = observer.heard(&key_of("h1"));
    assert_eq!(heard.len(), 1, "{heard:#?}");
    assert_eq!(etcd.leases().len(), 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).map(str::trim);
    assert_eq!(threads, Some("2"));
}

#[test]
fn flag_beats_environment() {
    let etcd = Etcd::start();
    let mut command = announce(&etcd, "flag", &["--http", "1"]);
    command
        .env("CRATE_DISCOVERY_HOST", "environment")
        .env("CRATE_DISCOVERY_HTTP", "2")
        .env("CRATE_DISCOVERY_TRANSPORT", "3")
        .env("CRATE_DISCOVERY_PREFIX", "/from/environment")
        .env("ETCDCTL_ENDPOINTS", "http://127.0.0.1:1");
    Daemon::spawn(command).says("announced", PATIENCE);
    let key = etcd.key("/from/environment/flag").expect("host from the flag, prefix from the environment");
    assert_eq!(key.value, r#"{"http":1,"transport":3}"#);
}

/// `docs/design.md`, "In etcd": `readwrite` on its own key and `read` on `<prefix>/`.
#[test]
fn one_small_role_is_enough() {
    let mut etcd = Etcd::start();
    let own = key_of("h1");
    let all = format!("{PREFIX}/");
    etcd.enable_auth(&[("crate", "s3cret-of-h1", &[&["readwrite", &own], &["--prefix=true", "read", &all]])]);
    let dir = scratch();
    let file = dir.path().join("password");
    std::fs::write(&file, "s3cret-of-h1\n").unwrap();

    let from_file = ["--user", "crate", "--password-file", arg(&file)];
    let mut daemon = Daemon::announced(&etcd, "h1", &from_file);
    assert_eq!(run(hosts(&etcd, &from_file)).printed(), "h1:4300\n");
    etcd.etcdctl(&["del", &own]);
    daemon.says_times("announced", 2, PATIENCE);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&own), None);
    assert_eq!(etcd.leases(), Vec::<i64>::new());

    let mut command = announce(&etcd, "h1", &[]);
    command.env("ETCDCTL_USER", "crate:s3cret-of-h1");
    let mut daemon = Daemon::spawn(command);
    daemon.says("announced", PATIENCE);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&own), None);
}

/// `docs/design.md`, "Connection and timing": the file, `$CREDENTIALS_DIRECTORY/etcd-password`, `ETCDCTL_PASSWORD`, the
/// password in `ETCDCTL_USER`. Every source after the right one holds a wrong password.
#[test]
fn password_sources_are_taken_in_order() {
    let mut etcd = Etcd::start();
    let all = format!("{PREFIX}/");
    etcd.enable_auth(&[("reader", "right", &[&["--prefix=true", "read", &all]])]);
    let dir = scratch();
    let right = dir.path().join("right");
    std::fs::write(&right, "right").unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    for (credentials, password) in [(&good, "right"), (&bad, "wrong")] {
        std::fs::create_dir(credentials).unwrap();
        std::fs::write(credentials.join("etcd-password"), password).unwrap();
    }
    let sources: [&[(&str, &str)]; 4] = [
        &[
            ("CRATE_DISCOVERY_PASSWORD_FILE", arg(&right)),
            ("CREDENTIALS_DIRECTORY", arg(&bad)),
            ("ETCDCTL_PASSWORD", "wrong"),
            ("ETCDCTL_USER", "reader:wrong"),
        ],
        &[
            ("CREDENTIALS_DIRECTORY", arg(&good)),
            ("ETCDCTL_PASSWORD", "wrong"),
            ("ETCDCTL_USER", "reader:wrong"),
        ],
        &[("ETCDCTL_PASSWORD", "right"), ("ETCDCTL_USER", "reader:wrong")],
        &[("ETCDCTL_USER", "reader:right")],
    ];
    for environment in sources {
        let mut command = hosts(&etcd, &[]);
        command.envs(environment.iter().copied());
        assert_eq!(run(command).printed(), "\n", "{environment:?}");
    }
}

/// The way from an etcd without authentication to one with it: the announcers are told their
/// passwords first. Etcdctl takes a login there as well.
#[test]
fn login_on_an_etcd_without_authentication_is_no_error() {
    let etcd = Etcd::start();
    let mut command = announce(&etcd, "h1", &[]);
    command.env("ETCDCTL_USER", "crate:any");
    Daemon::spawn(command).says("announced", PATIENCE);
    let mut command = hosts(&etcd, &[]);
    command.env("ETCDCTL_USER", "crate:any");
    assert_eq!(run(command).printed(), "h1:4300\n");
}

#[test]
fn tls_with_client_certificates_works_end_to_end() {
    let etcd = Etcd::start_with_tls(&[]);
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    assert_eq!(etcd.key(&key_of("h1")).expect("announced").value, DEFAULT_VALUE);
    assert_eq!(run(hosts(&etcd, &[])).printed(), "h1:4300\n");

    // Bare host:port is https when a TLS flag is given.
    let pki = etcd.pki();
    let mut bare = tool();
    bare.args(["hosts", "--endpoints", &format!("127.0.0.1:{}", etcd.port())])
        .env("ETCDCTL_CACERT", &pki.ca)
        .env("ETCDCTL_CERT", &pki.cert)
        .env("ETCDCTL_KEY", &pki.key);
    assert_eq!(run(bare).printed(), "h1:4300\n");

    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&key_of("h1")), None);
}

#[test]
fn each_boundary_of_its_life_is_one_line() {
    let etcd = Etcd::start();
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    let stored = etcd.key(&key_of("h1")).expect("announced");
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);

    let stderr = daemon.stderr();
    let messages: Vec<&str> = stderr.lines().map(message_of).collect();
    for boundary in ["starting", "announced", "withdrawing", "withdrawn"] {
        let count = messages.iter().filter(|m| m.split(' ').next() == Some(boundary)).count();
        assert_eq!(count, 1, "{boundary}:\n{stderr}");
    }
    let starting = &daemon.lines("starting")[0];
    assert_eq!(field(starting, "version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(field(starting, "host").as_deref(), Some("h1"));
    assert_eq!(field(starting, "key"), Some(key_of("h1")));
    assert!(field(starting, "ttl").is_some_and(|ttl| ttl.starts_with('5')), "{starting}");
    assert!(starting.contains(&etcd.port().to_string()), "{starting}");
    let announced = &daemon.lines("announced")[0];
    assert_eq!(field(announced, "key"), Some(key_of("h1")));
    assert_eq!(field(announced, "lease").map(|hex| lease_id(&hex)), Some(stored.lease));
    assert_eq!(field(announced, "revision"), Some(stored.mod_revision.to_string()));
}

#[test]
fn json_log_is_one_object_a_line() {
    let etcd = Etcd::start();
    let mut daemon = Daemon::announce(&etcd, "h1", &["--log-format", "json"]);
    eventually_eq("announced", PATIENCE, &true, || daemon.stderr().contains(r#""announced""#));
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    let stderr = daemon.stderr();
    let mut messages = BTreeSet::new();
    for line in stderr.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(object["level"], "INFO", "{line}");
        assert!(object["timestamp"].is_string(), "{line}");
        messages.insert(object["fields"]["message"].as_str().expect("a message").to_owned());
    }
    let expected = ["announced", "starting", "withdrawing", "withdrawn"].map(str::to_owned);
    assert_eq!(messages, BTreeSet::from(expected), "{stderr}");
}

/// A log collector that restarts, or a full disk under the log, must not cost the key.
#[test]
fn announcer_outlives_whoever_reads_its_log() {
    let etcd = Etcd::start();
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (host, stderr) in [("pipe", Stdio::from(gone)), ("disk", Stdio::from(full))] {
        let mut daemon = Daemon::spawn_logging_to(announce(&etcd, host, &["--log", "trace"]), stderr);
        eventually(&format!("{host}: announced"), PATIENCE, || {
            assert_eq!(daemon.ended(), None, "{host}");
            etcd.key(&key_of(host)).ok_or_else(|| "no key".to_owned())
        });
        assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0, "{host}");
        assert_eq!(etcd.key(&key_of(host)), None, "{host}");
    }
}

#[test]
fn password_is_never_shown() {
    const SECRET: &str = "hunter2-never-shown";
    let mut etcd = Etcd::start();
    etcd.enable_auth(&[("crate", SECRET, &[&["readwrite", &key_of("h1")]])]);
    let login = format!("crate:{SECRET}");
    let dir = scratch();
    let file = dir.path().join("password");
    std::fs::write(&file, SECRET).unwrap();

    let mut from_file =
        announce(&etcd, "h1", &["--log", "trace", "--user", "crate", "--password-file", arg(&file)]);
    from_file.env("RUST_BACKTRACE", "1");
    let mut from_environment = announce(&etcd, "h1", &["--log", "trace"]);
    from_environment.env("ETCDCTL_USER", &login);
    for command in [from_file, from_environment] {
        let mut daemon = Daemon::spawn(command);
        daemon.says("announced", PATIENCE);
        let cmdline = std::fs::read(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
        assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
        assert!(!String::from_utf8_lossy(&cmdline).contains(SECRET));
        let stderr = daemon.stderr();
        assert!(!stderr.contains(SECRET), "{stderr}");
    }
}
