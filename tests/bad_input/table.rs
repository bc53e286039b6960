//! The rows.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, process::Command};

use tempfile::TempDir;

use crate::support::{
    Pki,
    daemon::{tool, tool_behind},
    etcd::{Etcd, arg},
    free_port,
};

/// One bad input.
pub struct Row {
    /// What is run.
    pub command: Command,
    /// The exit code it must have.
    pub code: i32,
    /// What the sentence must hold.
    pub says: Vec<String>,
}

/// A row for `<verb> <args>` where everything else is in order: a host, and an endpoint where
/// nobody listens. Those come from the environment, so that a row can replace them.
fn row(verb: &str, args: &[&str], code: i32, says: &[&str]) -> Row {
    let mut command = tool();
    command
        .arg(verb)
        .args(args)
        .env("ETCDCTL_ENDPOINTS", "http://127.0.0.1:1")
        .env("CRATE_DISCOVERY_HOST", "h1");
    Row { command, code, says: says.iter().map(|&part| part.to_owned()).collect() }
}

fn announce(args: &[&str], code: i32, says: &[&str]) -> Row {
    row("announce", args, code, says)
}

fn hosts(args: &[&str], code: i32, says: &[&str]) -> Row {
    row("hosts", args, code, says)
}

/// With a check that may use a login.
fn check_login(args: &[&str], says: &[&str]) -> Row {
    announce(&[&["--check", "crate://127.0.0.1"], args].concat(), 2, says)
}

impl Row {
    fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }
}

/// A flag whose value is out of its grammar: the sentence names both and says what is allowed.
fn value(verb: &str, flag: &str, bad: &str) -> Row {
    let shown = format!("{bad:?}");
    row(verb, &[&format!("{flag}={bad}")], 2, &[&format!("\"{flag}\""), &shown, "allowed"])
}

pub fn values() -> Vec<Row> {
    let long = "x".repeat(254);
    let announce = [
        ("--ttl", "4"),
        ("--ttl", "25h"),
        ("--ttl", "5500ms"),
        ("--ttl", "abc"),
        ("--ttl", "1e3"),
        ("--request-timeout", "0"),
        ("--request-timeout", "1.5s"),
        ("--request-timeout", "-1s"),
        ("--stop-timeout", "1m30s"),
        ("--check-interval", "1d"),
        ("--check-timeout", "99999999999999999999s"),
        ("--http", "0"),
        ("--http", "65536"),
        ("--transport", "70000"),
        ("--transport", "-1"),
        ("--psql", "postgres"),
        ("--rise", "0"),
        ("--fall", "-1"),
        ("--fall", "many"),
        ("--host", "-Cfoo=bar"),
        ("--host", ".a"),
        ("--host", "a b"),
        ("--host", "a/b"),
        ("--host", "a:4300"),
        ("--host", "a\nb"),
        ("--host", "münchen"),
        ("--host", &long),
        ("--address", "a,b"),
        ("--address", "[::1]"),
        ("--prefix", "/"),
        ("--prefix", "services"),
        ("--prefix", "/services/"),
        ("--prefix", "//a"),
        ("--prefix", "/a b"),
        ("--endpoints", "a"),
        ("--endpoints", "ftp://a:1"),
        ("--endpoints", "http://a:1/x"),
        ("--endpoints", "http://a:0"),
        ("--endpoints", "http://a:70000"),
        ("--endpoints", "http://-a:1"),
        ("--check", "ftp://a:1"),
        ("--check", "tcp://a"),
        ("--check", "tcp://a:0"),
        ("--check", "http://"),
        ("--check", "4300"),
        ("--check", "crate://"),
        ("--check", "crate://a:0"),
        ("--check", "crate://a:4200/path"),
        ("--check", "crate+https://a?b"),
        ("--check", "crate+http://a"),
        ("--cluster-name", "a\nb"),
        ("--cluster-name", &long),
        ("--log", "crate_discovery=loud"),
        ("--log-format", "yaml"),
    ];
    let hosts = [
        ("--format", "xml"),
        ("--port", "4300"),
        ("--exclude", "a/b"),
        ("--wait-for", "0"),
        ("--wait-for", "-1"),
        ("--wait-for", "some"),
        ("--request-timeout", "5 s"),
        ("--prefix", "crate"),
        ("--endpoints", "a:b"),
    ];
    let announce = announce.iter().map(|(flag, bad)| value("announce", flag, bad));
    let watch = [
        ("--format", "xml"),
        ("--port", "4300"),
        ("--exclude", "a/b"),
        ("--hold", "0"),
        ("--hold", "1d"),
        ("--srv", "5399"),
        ("--srv", "127.0.0.1"),
        ("--srv", "127.0.0.1:0"),
        ("--srv", "localhost:5399"),
        ("--srv-name", "a..b"),
        ("--srv-name", "a b"),
    ];
    let status = [("--format", "csv"), ("--host", "a/b"), ("--host", "-x")];
    announce
        .chain(hosts.iter().map(|(flag, bad)| value("hosts", flag, bad)))
        .chain(watch.iter().map(|(flag, bad)| value("watch", flag, bad)))
        .chain(status.iter().map(|(flag, bad)| value("status", flag, bad)))
        .chain(bootstrap_values().into_iter().map(|(flag, bad)| value("bootstrap", flag, bad)))
        .collect()
}

fn bootstrap_values() -> Vec<(&'static str, &'static str)> {
    vec![
        ("--expect", "-1"),
        ("--expect", "51"),
        ("--expect", "three"),
        ("--expect", "1.5"),
        ("--node-name", "a,b"),
        ("--node-name", "a b"),
        ("--node-name", "-Cfoo=bar"),
        ("--node-name", "a\nb"),
        ("--node-name", "$(id)"),
        ("--timeout", "0"),
        ("--timeout", "1m30s"),
        ("--format", "csv"),
    ]
}

pub fn bootstrap_flags() -> Vec<Row> {
    let agree = |args: &[&str], code: i32, says: &[&str]| {
        row(
            "bootstrap",
            &[&["--expect", "3", "--node-name", "a", "--timeout", "300ms"], args].concat(),
            code,
            says,
        )
    };
    let bootstrap = |args: &[&str], code: i32, says: &[&str]| row("bootstrap", args, code, says);
    vec![
        bootstrap(&[], 2, &["--expect", "--node-name"]),
        bootstrap(&["--expect", "3"], 2, &["--node-name"]),
        bootstrap(&["--node-name", "a"], 2, &["--expect"]),
        bootstrap(&["--expect", "", "--node-name", "a"], 2, &["\"--expect\"", "allowed"]),
        bootstrap(&["--expect", "3", "--node-name", ""], 2, &["\"--node-name\"", "allowed"]),
        bootstrap(&["--reset"], 2, &["\"--reset\"", "\"--yes\""]),
        bootstrap(&["--yes"], 2, &["--reset"]),
        bootstrap(&["--show", "--reset", "--yes"], 2, &["--show", "--reset"]),
        agree(&["--show"], 2, &["--show"]),
        agree(&["--reset", "--yes"], 2, &["--reset"]),
        agree(&["--output", ""], 2, &["--output"]),
        agree(&["--output", "/missing/file"], 78, &["\"--output\"", "/missing/file"]),
        agree(
            &["--cacert", "/missing/ca.pem", "--endpoints", "https://127.0.0.1:1"],
            78,
            &["/missing/ca.pem"],
        ),
        agree(&[], 69, &["failed to agree on the first masters", "127.0.0.1:1", "refused"]),
        bootstrap(&["--show"], 69, &["failed to read from etcd", "refused"]),
        bootstrap(&["--reset", "--yes", "--timeout", "300ms"], 69, &["failed to reset", "refused"]),
        // No variable: a leftover one must not decide who may elect.
        bootstrap(&["--node-name", "a"], 2, &["--expect"]).env("CRATE_DISCOVERY_EXPECT", "3"),
    ]
}

pub fn flags() -> Vec<Row> {
    let not_utf8 = OsString::from_vec(b"--host=\xff\xfe".to_vec());
    let mut rows = vec![
        row("bootstrap", &[], 2, &["bootstrap"]),
        hosts(&["--bogus"], 2, &["--bogus"]),
        hosts(&["surplus"], 2, &["surplus"]),
        hosts(&["--format"], 2, &["--format"]),
        announce(&["--http", "1", "--http", "2"], 2, &["--http"]),
        announce(&["--host", ""], 2, &["\"--host\"", "allowed"]),
        announce(&["--ttl", ""], 2, &["\"--ttl\"", "allowed"]),
        announce(&["--prefix", ""], 2, &["\"--prefix\"", "allowed"]),
        announce(&["--endpoints", ""], 2, &["\"--endpoints\"", "allowed"]),
        announce(&["--endpoints", "http://a:1,"], 2, &["\"--endpoints\"", "allowed"]),
        announce(&["--check", ""], 2, &["\"--check\"", "allowed"]),
        announce(
            &["--endpoints", "http://a:1,https://b:1"],
            2,
            &["\"--endpoints\"", "http and https", "allowed"],
        ),
        announce(
            &["--endpoints", "http://a:1", "--cacert", "/x"],
            2,
            &["\"--endpoints\"", "--cacert", "allowed"],
        ),
        announce(&["--endpoints", "http://root:hunter2@a:1"], 2, &["\"--endpoints\"", "--user", "allowed"]),
        announce(&["--check", "http://root:hunter2@a:1/"], 2, &["\"--check\"", "allowed"]),
        announce(&["--check", "crate://root:hunter2@a:1"], 2, &["\"--check\"", "allowed"]),
        check_login(&["--check-user", "a"], &["\"--check-user\"", "\"--check-password-file\"", "allowed"]),
        check_login(
            &["--check-password-file", "/x"],
            &["\"--check-password-file\"", "\"--check-user\"", "allowed"],
        ),
        check_login(&["--check-user", "", "--check-password-file", "/x"], &["\"--check-user\"", "allowed"]),
        check_login(
            &["--check-user", "a:hunter2", "--check-password-file", "/x"],
            &["\"--check-user\"", "allowed", "\"--check-password-file\""],
        ),
        check_login(&["--check-user", "a", "--check-password-file", ""], &["--check-password-file"]),
        announce(
            &["--check", "http://a", "--check-user", "a", "--check-password-file", "/x"],
            2,
            &["\"--check-user\"", "crate://", "crate+https://", "allowed"],
        ),
        announce(
            &["--check", "tcp://a:1", "--cluster-name", "a"],
            2,
            &["\"--cluster-name\"", "crate://", "crate+https://", "allowed"],
        ),
        announce(&["--cluster-name", ""], 2, &["\"--cluster-name\"", "allowed"]),
        announce(&["--cert", "/x"], 2, &["\"--cert\"", "\"--key\"", "allowed"]),
        announce(&["--key", "/x"], 2, &["\"--cert\"", "\"--key\"", "allowed"]),
        announce(&["--user", "root"], 2, &["\"--user\"", "root", "--password-file", "ETCDCTL_PASSWORD"]),
        announce(&["--user", "root:hunter2"], 2, &["\"--user\"", "--password-file"]),
        announce(&["--password-file", "/x"], 2, &["\"--password-file\"", "\"--user\""]),
        announce(&[], 2, &["--user"]).env("ETCDCTL_USER", ":hunter2"),
        announce(&[], 2, &["--user", "--password-file"]).env("ETCDCTL_USER", "root:"),
        announce(&[], 2, &["\"--http\"", "70000", "CRATE_DISCOVERY_HTTP", "allowed"])
            .env("CRATE_DISCOVERY_HTTP", "70000"),
        announce(&[], 2, &["\"--host\"", r"a\nb", "allowed"]).env("CRATE_DISCOVERY_HOST", "a\nb"),
        announce(&[], 2, &["\"--endpoints\"", "allowed"]).env("ETCDCTL_ENDPOINTS", "http://root:hunter2@a:1"),
        announce(&[], 2, &["\"--check\"", "ftp://b:1", "allowed"])
            .env("CRATE_DISCOVERY_CHECK", "tcp://a:1,ftp://b:1"),
        hosts(&["--allow-stale"], 2, &["--allow-stale", "--output"]),
        row("status", &["--self", "--host", "a"], 2, &["--self", "--host"]),
        announce(&["--seed-file-in-place"], 2, &["\"--seed-file-in-place\"", "\"--seed-file\"", "allowed"]),
        row(
            "watch",
            &["--seed-file-in-place"],
            2,
            &["\"--seed-file-in-place\"", "\"--seed-file\"", "allowed"],
        ),
        announce(&[], 2, &["\"--seed-file-in-place\"", "\"--seed-file\"", "allowed"])
            .env("CRATE_DISCOVERY_SEED_FILE_IN_PLACE", "true"),
        announce(&["--seed-file", ""], 2, &["--seed-file"]),
        row("watch", &["--allow-stale"], 2, &["--allow-stale"]),
        hosts(&["--wait-for", "1", "--timeout", "never"], 2, &["\"--timeout\"", "\"never\"", "allowed"]),
    ];
    // Not even clap knows which flag that is.
    let mut unreadable = announce(&[], 2, &["UTF-8"]);
    unreadable.command.arg(not_utf8);
    rows.push(unreadable);
    rows
}

/// Each flag of `announce` is a variable too: a bad value in it is rejected under the flag's name.
pub fn variables() -> Vec<Row> {
    let long = "x".repeat(201);
    let rows = [
        ("HOST", "--host", "a b"),
        ("HTTP", "--http", "0"),
        ("TRANSPORT", "--transport", "x"),
        ("PSQL", "--psql", "65536"),
        ("ADDRESS", "--address", "-a"),
        ("TTL", "--ttl", "1s"),
        ("CHECK", "--check", "ftp://a:1"),
        ("CHECK_INTERVAL", "--check-interval", "0"),
        ("CHECK_TIMEOUT", "--check-timeout", "soon"),
        ("CLUSTER_NAME", "--cluster-name", &long),
        ("RISE", "--rise", "0"),
        ("FALL", "--fall", "x"),
        ("STOP_TIMEOUT", "--stop-timeout", "1 s"),
        ("SEED_FILE_IN_PLACE", "--seed-file-in-place", "perhaps"),
        ("HOLD", "--hold", "0"),
        ("SRV", "--srv", "localhost:53"),
        ("SRV_NAME", "--srv-name", "-.-..a"),
        ("PREFIX", "--prefix", "crate"),
        ("REQUEST_TIMEOUT", "--request-timeout", "-1"),
        ("LOG", "--log", "crate_discovery=loud"),
        ("LOG_FORMAT", "--log-format", "yaml"),
    ];
    let row = |(name, flag, bad): &(&str, &str, &str)| {
        announce(&[], 2, &[&format!("\"{flag}\""), bad, "allowed"])
            .env(&format!("CRATE_DISCOVERY_{name}"), bad)
    };
    rows.iter().map(row).collect()
}

/// Files that are missing, empty, or not what they should be. `dir` is where they are made.
pub fn files(dir: &TempDir) -> Vec<Row> {
    let path = |name: &str| arg(&dir.path().join(name)).to_owned();
    let file = |name: &str, content: &[u8]| {
        fs::write(dir.path().join(name), content).unwrap();
        path(name)
    };
    let (good, other) = (path("good"), path("other"));
    fs::create_dir(&good).unwrap();
    fs::create_dir(&other).unwrap();
    let (good, other) = (Pki::create(good.as_ref()), Pki::create(other.as_ref()));
    let (cert, key, foreign) = (arg(&good.cert), arg(&good.key), arg(&other.key));
    let missing = path("missing.pem");
    let directory = arg(dir.path()).to_owned();
    let junk = file("junk.pem", b"this is no PEM\n");
    let broken =
        file("broken.pem", b"-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydA==\n-----END CERTIFICATE-----\n");
    let (empty, newline, binary) = (file("empty", b""), file("newline", b"\n"), file("binary", b"\xff\xfe"));

    let mut rows = Vec::new();
    for verb in ["announce", "hosts", "watch"] {
        let tls = |args: &[&str], says: &[&str]| {
            row(verb, &[&["--endpoints", "https://127.0.0.1:1"], args].concat(), 78, says)
        };
        for bad in [&missing, &directory, &junk, &broken, &empty] {
            rows.push(tls(&["--cacert", bad], &["\"--cacert\"", bad]));
            rows.push(tls(&["--cert", bad, "--key", key], &["\"--cert\"", bad]));
        }
        for bad in [&missing, &junk, cert] {
            rows.push(tls(&["--cert", cert, "--key", bad], &["\"--key\"", bad]));
        }
        rows.push(tls(&["--cert", cert, "--key", foreign], &["\"--key\"", foreign, "\"--cert\""]));
        for bad in [&missing, &directory, &empty, &newline, &binary] {
            rows.push(row(
                verb,
                &["--user", "root", "--password-file", bad],
                78,
                &["\"--password-file\"", bad],
            ));
        }
    }
    let under_missing = path("missing/file");
    for bad in [directory.as_str(), &under_missing, "/dev/null"] {
        for verb in ["announce", "watch"] {
            rows.push(row(verb, &["--seed-file", bad], 78, &["\"--seed-file\"", bad]));
            rows.push(row(
                verb,
                &["--seed-file-in-place", "--seed-file", bad],
                78,
                &["\"--seed-file\"", bad],
            ));
        }
        rows.push(row("watch", &["--output", bad], 78, &["\"--output\"", bad]));
    }
    rows.push(
        announce(&[], 78, &["\"--seed-file\"", &directory]).env("CRATE_DISCOVERY_SEED_FILE", &directory),
    );
    let credentials = path("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(dir.path().join("credentials/etcd-password"), "").unwrap();
    rows.push(
        announce(&["--user", "root"], 78, &["etcd-password"]).env("CREDENTIALS_DIRECTORY", &credentials),
    );
    rows
}

/// A host name that is no name: the sentence says what to set.
pub fn default_hosts() -> Vec<Row> {
    // A name of our own needs a namespace of our own: as root, or as root of a user namespace.
    let namespaces: [&[&str]; 2] = [&["--uts"], &["--map-root-user", "--uts"]];
    let allowed = namespaces.into_iter().find(|flags| {
        Command::new("unshare")
            .args(*flags)
            .args(["sh", "-c", "hostname x"])
            .output()
            .is_ok_and(|o| o.status.success())
    });
    let flags =
        allowed.expect("the rows on host names need `unshare --uts`: run as root or allow user namespaces");
    let names = ["localhost".to_owned(), "0123456789ab".to_owned(), "4f".repeat(32)];
    let rows = names.iter().map(|name| {
        let set = format!("hostname {name} && exec \"$@\"");
        let inner =
            [flags, &["sh", "-c", &set, "sh", env!("CARGO_BIN_EXE_crate-discovery"), "announce"]].concat();
        let says = [name, "--host", "CRATE_DISCOVERY_HOST"].map(str::to_owned).to_vec();
        Row { command: tool_behind("unshare", &inner), code: 78, says }
    });
    rows.collect()
}

/// What stands at the other end is not what it should be.
pub fn endpoints(dir: &TempDir, open: &Etcd, tls: &Etcd, closed: &Etcd, silent: u16) -> Vec<Row> {
    let at = |etcd: &Etcd, args: &[&str], code: i32, says: &[&str]| {
        hosts(&[&["--request-timeout", "2s", "--endpoints", &etcd.url()], args].concat(), code, says)
    };
    let pki = tls.pki();
    let (ca, cert, key) = (arg(&pki.ca), arg(&pki.cert), arg(&pki.key));
    let stranger = dir.path().join("stranger");
    fs::create_dir(&stranger).unwrap();
    let stranger = Pki::create(&stranger);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let https_to_plain = format!("https://127.0.0.1:{}", open.port());
    let http_to_tls = format!("http://127.0.0.1:{}", tls.port());
    let silent = format!("http://127.0.0.1:{silent}");
    let refused = "permission denied";
    let (directory, missing) = (arg(dir.path()), arg(dir.path()).to_owned() + "/missing/file");
    vec![
        at(open, &["--output", directory], 78, &["\"--output\"", directory]),
        at(open, &["--output", &missing], 78, &["\"--output\"", &missing]),
        at(open, &["--output", "/dev/null"], 78, &["\"--output\"", "/dev/null"]),
        at(open, &["--output", ""], 2, &["--output"]),
        hosts(&["--endpoints", &nobody], 69, &[&nobody, "refused"]),
        hosts(&["--endpoints", &silent, "--request-timeout", "300ms"], 69, &[&silent]),
        hosts(&["--endpoints", &https_to_plain, "--cacert", ca], 69, &[&https_to_plain]),
        hosts(&["--endpoints", &http_to_tls], 69, &[&http_to_tls]),
        at(
            tls,
            &["--cacert", arg(&stranger.ca), "--cert", cert, "--key", key],
            69,
            &[&tls.url(), "certificate"],
        ),
        at(tls, &["--cert", cert, "--key", key], 69, &[&tls.url(), "certificate"]),
        at(tls, &["--cacert", ca], 69, &[&tls.url()]),
        at(
            tls,
            &["--cacert", ca, "--cert", arg(&stranger.cert), "--key", arg(&stranger.key)],
            69,
            &[&tls.url()],
        ),
        at(closed, &[], 77, &["--user"]),
        at(closed, &[], 77, &["authentication failed"]).env("ETCDCTL_USER", "reader:hunter2"),
        at(closed, &[], 77, &["authentication failed"]).env("ETCDCTL_USER", "nobody:hunter2"),
        at(closed, &["--user", "reader"], 77, &["authentication failed"]).env("ETCDCTL_PASSWORD", "hunter2"),
        at(closed, &["--prefix", "/elsewhere"], 77, &[refused]).env("ETCDCTL_USER", "reader:right"),
        at(closed, &[], 77, &[refused]).env("ETCDCTL_USER", "narrow:right"),
    ]
}
