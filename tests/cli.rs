//! The command line: help that fits a screen, durations, and who beats whom. What is rejected is in
//! `bad_input`.

mod support;

use support::{
    PATIENCE, PREFIX,
    daemon::{Daemon, announce, hosts, run, tool, watch},
    etcd::Etcd,
    eventually_eq, key_of,
    observer::Raw,
};

/// The connection options, which every verb takes: `docs/design.md`, "Connection and timing".
const CONNECTION: [&str; 11] = [
    "ETCDCTL_ENDPOINTS",
    "ETCDCTL_CACERT",
    "ETCDCTL_CERT",
    "ETCDCTL_KEY",
    "ETCDCTL_USER",
    "ETCDCTL_PASSWORD",
    "CRATE_DISCOVERY_PASSWORD_FILE",
    "CRATE_DISCOVERY_PREFIX",
    "CRATE_DISCOVERY_REQUEST_TIMEOUT",
    "CRATE_DISCOVERY_LOG",
    "CRATE_DISCOVERY_LOG_FORMAT",
];

/// `announce`'s own.
const ANNOUNCE: [&str; 18] = [
    "CRATE_DISCOVERY_HOST",
    "CRATE_DISCOVERY_HTTP",
    "CRATE_DISCOVERY_TRANSPORT",
    "CRATE_DISCOVERY_PSQL",
    "CRATE_DISCOVERY_ADDRESS",
    "CRATE_DISCOVERY_TTL",
    "CRATE_DISCOVERY_CHECK",
    "CRATE_DISCOVERY_CHECK_INTERVAL",
    "CRATE_DISCOVERY_CHECK_TIMEOUT",
    "CRATE_DISCOVERY_CHECK_USER",
    "CRATE_DISCOVERY_CHECK_PASSWORD_FILE",
    "CRATE_DISCOVERY_CLUSTER_NAME",
    "CRATE_DISCOVERY_RISE",
    "CRATE_DISCOVERY_FALL",
    "CRATE_DISCOVERY_STOP_TIMEOUT",
    "CRATE_DISCOVERY_SEED_FILE",
    "CRATE_DISCOVERY_SEED_FILE_IN_PLACE",
    "CRATE_DISCOVERY_HOLD",
];

/// What the binary prints for these arguments, which must be a success.
fn printed(args: &[&str]) -> String {
    let mut command = tool();
    command.args(args);
    run(command).printed()
}

#[test]
fn help_and_version_are_data_and_succeed() {
    assert_eq!(printed(&["--version"]), concat!("crate-discovery ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(printed(&["-V"]), printed(&["--version"]));
    let help = printed(&["--help"]);
    for verb in ["announce", "hosts", "watch", "bootstrap", "status"] {
        assert!(help.contains(verb), "{help}");
    }
}

/// Whoever types the name alone wants to know what there is; a script that does it is wrong.
#[test]
fn no_verb_is_rejected_with_the_help() {
    let finished = run(tool());
    assert_eq!((finished.code, finished.stdout.as_str()), (2, ""));
    assert_eq!(finished.stderr, printed(&["--help"]));
}

/// The variables of a connection have names of their own, and those of `announce` follow a rule: so may
/// the help. That the rule holds for each of them is in `bad_input`.
#[test]
fn help_of_each_verb_fits_a_screen_and_names_the_variables() {
    let rule = "--check-interval is CRATE_DISCOVERY_CHECK_INTERVAL";
    let mut wrong = Vec::new();
    let verbs =
        [("announce", &ANNOUNCE[..]), ("hosts", &[]), ("watch", &[]), ("bootstrap", &[]), ("status", &[])];
    for (verb, own) in verbs {
        let help = printed(&[verb, "--help"]);
        if help.lines().count() > 60 {
            wrong.push(format!("{verb}: {} lines", help.lines().count()));
        }
        let long = help.lines().filter(|line| line.chars().count() > 100);
        wrong.extend(long.map(|line| format!("{verb}: {} columns: {line}", line.chars().count())));
        let named = |name: &&&str| help.contains(**name);
        let missing = CONNECTION.iter().filter(|name| !named(name));
        wrong.extend(missing.map(|name| format!("{verb}: does not mention {name}")));
        if !own.iter().all(|name| named(&name)) && !help.contains(rule) {
            wrong.push(format!("{verb}: names neither its own variables nor their rule"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A leftover variable does nothing to the reading verbs, so they must not promise any.
    for verb in ["hosts", "watch"] {
        let help = printed(&[verb, "--help"]);
        assert!(!ANNOUNCE.iter().any(|name| help.contains(&format!("[env: {name}]"))), "{help}");
    }
}

/// The TTL is where a duration can be seen from outside: etcd says what it granted.
#[test]
fn durations_are_one_number_and_one_unit() {
    let etcd = Etcd::start();
    for (index, (text, seconds)) in
        [("6", 6), ("7s", 7), ("5000ms", 5), ("2m", 120), ("24h", 86_400)].into_iter().enumerate()
    {
        let host = format!("h{index}");
        let _daemon = Daemon::announced(&etcd, &host, &["--ttl", text, "--request-timeout", "1500ms"]);
        let lease = etcd.key(&key_of(&host)).expect("announced").lease;
        let state = etcd.lease(lease);
        assert!(state.contains(&format!("granted with TTL({seconds}s)")), "{text}: {state}");
    }
}

#[test]
fn empty_variable_is_an_unset_variable() {
    let etcd = Etcd::start();
    let mut command = announce(&etcd, "h1", &[]);
    for name in CONNECTION.iter().chain(&ANNOUNCE) {
        command.env(name, "");
    }
    command.env("CREDENTIALS_DIRECTORY", "");
    let _daemon = Daemon::spawn(command);
    eventually_eq("announced with every default", PATIENCE, &Some(support::DEFAULT_VALUE.to_owned()), || {
        etcd.key(&key_of("h1")).map(|stored| stored.value)
    });
    let lease = etcd.key(&key_of("h1")).expect("announced").lease;
    let state = etcd.lease(lease);
    assert!(state.contains("granted with TTL(60s)"), "{state}");

    let mut command = hosts(&etcd, &[]);
    for name in CONNECTION {
        command.env(name, "");
    }
    assert_eq!(run(command).printed(), "h1:4300\n");
}

#[test]
fn flag_beats_environment_beats_default() {
    let etcd = Etcd::start();
    let mut raw = Raw::connect(&etcd);
    for (prefix, host) in [(PREFIX, "default"), ("/environment", "environment"), ("/flag", "flag")] {
        raw.put(format!("{prefix}/{host}").as_bytes(), support::DEFAULT_VALUE.as_bytes());
    }
    let run_with = |variable: Option<&str>, args: &[&str]| {
        let mut command = tool();
        command.arg("hosts").env("ETCDCTL_ENDPOINTS", etcd.url()).args(args);
        command.envs(variable.map(|value| ("CRATE_DISCOVERY_PREFIX", value)));
        run(command).printed()
    };
    assert_eq!(run_with(None, &[]), "default:4300\n");
    assert_eq!(run_with(Some("/environment"), &[]), "environment:4300\n");
    assert_eq!(run_with(Some("/environment"), &["--prefix", "/flag"]), "flag:4300\n");
}

/// A leftover variable must not change what a script prints.
#[test]
fn flags_of_hosts_have_no_environment() {
    let etcd = Etcd::start();
    Raw::connect(&etcd).put(key_of("h1").as_bytes(), support::DEFAULT_VALUE.as_bytes());
    let mut command = hosts(&etcd, &[]);
    command
        .env("CRATE_DISCOVERY_FORMAT", "json")
        .env("CRATE_DISCOVERY_PORT", "http")
        .env("CRATE_DISCOVERY_EXCLUDE", "h1")
        .env("CRATE_DISCOVERY_OUTPUT", "/nowhere/at/all")
        .env("CRATE_DISCOVERY_WAIT_FOR", "7")
        .env("CRATE_DISCOVERY_HOST", "-not-a-host");
    assert_eq!(run(command).printed(), "h1:4300\n");
}

#[test]
fn flags_of_watch_have_no_environment() {
    let etcd = Etcd::start();
    Raw::connect(&etcd).put(key_of("h1").as_bytes(), support::DEFAULT_VALUE.as_bytes());
    let mut command = watch(&etcd, &[]);
    command
        .env("CRATE_DISCOVERY_FORMAT", "json")
        .env("CRATE_DISCOVERY_OUTPUT", "/nowhere/at/all")
        .env("CRATE_DISCOVERY_SEED_FILE", "/nowhere/at/all")
        .env("CRATE_DISCOVERY_SEED_FILE_IN_PLACE", "perhaps")
        .env("CRATE_DISCOVERY_HOLD", "for ever");
    Daemon::spawn_printing(command).prints("h1:4300\n", PATIENCE);
}

#[test]
fn endpoints_may_be_several_and_bare() {
    let etcd = Etcd::start();
    Raw::connect(&etcd).put(key_of("h1").as_bytes(), support::DEFAULT_VALUE.as_bytes());
    // Nobody listens on port 1: the other endpoint has to answer, whichever is tried first.
    for endpoints in [
        format!("127.0.0.1:{}", etcd.port()),
        format!("localhost:{}", etcd.port()),
        format!("http://127.0.0.1:1,http://127.0.0.1:{}", etcd.port()),
        format!("http://127.0.0.1:{},127.0.0.1:1", etcd.port()),
    ] {
        let mut command = tool();
        command.args(["hosts", "--endpoints", &endpoints]);
        assert_eq!(run(command).printed(), "h1:4300\n", "{endpoints}");
    }
}
