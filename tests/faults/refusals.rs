//! Refusals, row 20: etcd says no, to the password or to what we ask for. It is said once, in words
//! that name the cure, and needs no restart.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    OUTLIVED, is_back, key,
    login::{Login, RIGHT, WRONG, assert_discreet, enable_auth, etcd_with_auth},
    lookout::Lookout,
    support::{
        AT_ONCE, PATIENCE, PREFIX, SLACK, TTL,
        daemon::{Daemon, hosts, run},
        etcd::{Etcd, arg, scratch},
        key_of, round, stays,
    },
};

/// The cap of the back-off after a refusal: `docs/design.md`, "Connection and timing".
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// Row 19, for those who forgot: it says what to do, once, and needs no restart.
#[test]
fn auth_switched_on_under_an_announcer_without_credentials_is_said_once_and_got_over() {
    let mut etcd = Etcd::start();
    let mut daemon = Daemon::announced(&etcd, "h1", &[]);
    let lookout = Lookout::plain(etcd.url(), key());
    enable_auth(&mut etcd);
    // An old etcd asks only when the key is looked at, which is every TTL.
    let said = daemon.says("etcd refuses", TTL + round(TTL) + SLACK);
    assert!(said.contains("login required") && said.contains("--user"), "{said}");
    stays("nothing is said again", TTL, &1, || daemon.lines("etcd refuses").len());
    assert_eq!(daemon.ended(), None);

    etcd.etcdctl(&["auth", "disable"]);
    let disabled = Instant::now();
    is_back(&etcd, REFUSED_AGAIN + SLACK);
    println!("row 19: auth off again: back after {} ms", disabled.elapsed().as_millis());
    daemon.says("etcd accepts again", AT_ONCE + SLACK);
    lookout.worst_absence("row 19: auth on for about 10 s, no credentials");
}

/// Refusals are retried, slowly, and stay visible (`docs/design.md`, "What never happens"). Etcd hashes at every login: a
/// fleet that asks ten times a second would keep it from anything else.
#[test]
fn wrong_password_is_said_once_retried_slowly_and_got_over_when_corrected() {
    let etcd = etcd_with_auth(&[]);
    let login = Login::with(WRONG);
    let logins = || {
        let labels = r#"grpc_method="Authenticate",grpc_service="etcdserverpb.Auth",grpc_type="unary""#;
        etcd.metric(&format!("grpc_server_started_total{{{labels}}}"))
    };
    let before = logins();
    let mut daemon = login.announce(&etcd, &[]);
    let said = daemon.says("etcd refuses", PATIENCE);
    assert!(said.contains(r#"reason="authentication failed, invalid user ID or password""#), "{said}");
    sleep(Duration::from_secs(10));
    let tried = logins() - before;
    // Pauses of 50, 100, 200 … ms in the mean: 8 in 10 s, and full jitter.
    assert!((2.0..=20.0).contains(&tried), "{tried} logins in 10 s");
    assert_eq!(daemon.lines("etcd refuses").len(), 1, "{}", daemon.stderr());
    assert_eq!(daemon.ended(), None);

    let corrected = Instant::now();
    login.write(RIGHT);
    daemon.says("announced", REFUSED_AGAIN + SLACK);
    println!(
        "wrong password: {tried} logins in 10 s, announced {} ms after",
        corrected.elapsed().as_millis()
    );
    daemon.says("etcd accepts again", AT_ONCE);
    assert_discreet(&daemon);
}

/// Row 20.
#[test]
fn key_returns_when_a_permission_that_was_taken_away_is_given_back() {
    let etcd = etcd_with_auth(&[]);
    let login = Login::with(RIGHT);
    let (mut daemon, lookout) = login.announced(&etcd, &[]);
    etcd.etcdctl(&["role", "revoke-permission", "h1", &key()]);
    etcd.etcdctl(&["role", "revoke-permission", "--prefix=true", "h1", &format!("{PREFIX}/")]);
    let said = daemon.says("etcd refuses", TTL + round(TTL) + SLACK);
    assert!(said.contains("permission denied"), "{said}");
    stays("nothing is said again", TTL, &1, || daemon.lines("etcd refuses").len());
    assert_eq!(daemon.ended(), None);

    etcd.etcdctl(&["role", "grant-permission", "h1", "readwrite", &key()]);
    let given = Instant::now();
    is_back(&etcd, REFUSED_AGAIN + SLACK);
    println!("row 20: permission given back: back after {} ms", given.elapsed().as_millis());
    daemon.says("etcd accepts again", AT_ONCE + SLACK);
    // And stays.
    let lease = lookout.spans().last().expect("seen").lease;
    sleep(OUTLIVED);
    assert_eq!(lookout.spans().last().expect("seen").lease, lease);
    lookout.worst_absence("row 20: permission away for about 10 s");
    assert_discreet(&daemon);
}

/// What the README lets one host do is enough for all of its life, and no more than that: another host's key is safe
/// from it. `docs/design.md`, "In etcd".
#[test]
fn role_of_one_host_as_the_readme_has_it_is_enough_and_no_more() {
    let mut etcd = Etcd::start_with_flags(&["--auth-token-ttl=2"]);
    etcd.enable_auth(&[]);
    let page = include_str!("../../docs/operating.md");
    let roles = page.split_once("## Users and roles").expect("the page has roles").1;
    let block = roles.split("```").nth(1).expect("a block of commands");
    for line in block.lines().filter_map(|line| line.strip_prefix("etcdctl ")) {
        let words =
            line.split('#').next().expect("a command").replace("user add crate1", "user add crate1:pw");
        etcd.etcdctl(&words.split_whitespace().collect::<Vec<_>>());
    }
    let dir = scratch();
    let file = dir.path().join("password");
    std::fs::write(&file, "pw").unwrap();
    let login = ["--user", "crate1", "--password-file", arg(&file)];

    let mut daemon = Daemon::announced(&etcd, "crate1", &login);
    let lookout = Lookout::plain(etcd.url(), key_of("crate1"));
    sleep(OUTLIVED);
    lookout.never_missing("a role as documented");
    etcd.etcdctl(&["del", &key_of("crate1")]);
    daemon.says_times("announced", 2, AT_ONCE + SLACK);
    assert_eq!(run(hosts(&etcd, &login)).printed(), "crate1:4300\n");

    let mut thief = Daemon::announce(&etcd, "crate2", &login);
    let said = thief.says("etcd refuses", PATIENCE);
    assert!(said.contains("permission denied"), "{said}");
    assert_eq!(etcd.key(&key_of("crate2")), None);
    assert_eq!(thief.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.leases(), Vec::<i64>::new());
    assert_eq!(etcd.announced(), Vec::<String>::new());
}
