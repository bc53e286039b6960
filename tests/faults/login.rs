//! Logins, row 19: tokens that end, an etcd that forgets them, passwords that change.
//!
//! Etcd 3.6.9 and later, and the last of 3.5 and 3.4, ask for the permission at every renewal of the
//! lease; older ones only when a request comes. The bounds hold for both.

use std::{path::PathBuf, thread::sleep, time::Duration};

use rcgen::KeyPair;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    OUTLIVED, key,
    lookout::Lookout,
    support::{
        AT_ONCE, PREFIX, SLACK, TTL,
        daemon::{Daemon, run, tool_behind},
        etcd::{Etcd, arg, scratch},
    },
};

/// A TTL with room for a fault inside of it.
const ROOMY: Duration = Duration::from_secs(10);

pub const RIGHT: &str = "s3cret-of-h1";
const NEXT: &str = "n3xt-of-h1";
pub const WRONG: &str = "wr0ng-of-h1";

/// The password of the user `h1` in a file.
pub struct Login {
    dir: TempDir,
    file: PathBuf,
}

impl Login {
    pub fn with(password: &str) -> Self {
        let dir = scratch();
        let login = Self { file: dir.path().join("password"), dir };
        login.write(password);
        login
    }

    /// By rename, as whoever rotates secrets does it.
    pub fn write(&self, password: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, format!("{password}\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    pub fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["--log", "crate_discovery=debug", "--user", "h1", "--password-file", arg(&self.file)], more]
            .concat()
    }

    pub fn announce(&self, etcd: &Etcd, more: &[&str]) -> Daemon {
        Daemon::announce(etcd, "h1", &self.args(more))
    }

    /// Announced, and a lookout for it.
    pub fn announced(&self, etcd: &Etcd, more: &[&str]) -> (Daemon, Lookout) {
        let daemon = Daemon::announced(etcd, "h1", &self.args(more));
        (daemon, Lookout::plain(etcd.url(), key()))
    }

    /// [`Login::announced`] for so long.
    fn announced_for(self, etcd: &Etcd, during: Duration) -> (Daemon, Lookout) {
        let seen = self.announced(etcd, &[]);
        sleep(during);
        seen
    }
}

/// Turns authentication on, with the user `h1` who may do what docs/operating.md lets one host do.
pub fn enable_auth(etcd: &mut Etcd) {
    let all = format!("{PREFIX}/");
    etcd.enable_auth(&[("h1", RIGHT, &[&["readwrite", &key()], &["--prefix=true", "read", &all]])]);
}

pub fn etcd_with_auth(flags: &[&str]) -> Etcd {
    let mut etcd = Etcd::start_with_flags(flags);
    enable_auth(&mut etcd);
    etcd
}

/// An etcd whose tokens are signed, hold for `ttl` whatever happens, and know the revision of the
/// auth store that they were made at.
fn etcd_with_jwt(dir: &TempDir, ttl: &str) -> Etcd {
    let pair = KeyPair::generate().unwrap();
    let (public, private) = (dir.path().join("jwt.pub"), dir.path().join("jwt.key"));
    std::fs::write(&public, pair.public_key_pem()).unwrap();
    std::fs::write(&private, pair.serialize_pem()).unwrap();
    let (public, private) = (arg(&public), arg(&private));
    etcd_with_auth(&[&format!(
        "--auth-token=jwt,pub-key={public},priv-key={private},sign-method=ES256,ttl={ttl}"
    )])
}

/// No password of ours was ever shown, and nothing went wrong in a way nobody thought of.
#[track_caller]
pub fn assert_discreet(daemon: &Daemon) {
    let stderr = daemon.stderr();
    for secret in [RIGHT, NEXT, WRONG] {
        assert!(!stderr.contains(secret), "{stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Still one announcement, said once.
#[track_caller]
fn assert_undisturbed(daemon: &Daemon) {
    assert_eq!(daemon.lines("announced").len(), 1, "{}", daemon.stderr());
    assert_eq!(daemon.lines("lost").len(), 0, "{}", daemon.stderr());
    assert_discreet(daemon);
}

/// Of a token that ended nobody has to know.
#[track_caller]
fn assert_silent(daemon: &Daemon) {
    assert_undisturbed(daemon);
    for message in ["etcd refuses", "endpoint left"] {
        assert_eq!(daemon.lines(message).len(), 0, "{}", daemon.stderr());
    }
}

/// Row 19. Simple tokens end when they are not used for as long as this.
#[test]
fn key_is_never_missing_while_simple_tokens_expire() {
    let etcd = etcd_with_auth(&["--auth-token-ttl=1"]);
    let (daemon, lookout) = Login::with(RIGHT).announced_for(&etcd, Duration::from_secs(15));
    lookout.never_missing("row 19: simple tokens expire");
    assert_silent(&daemon);
}

/// Row 19. Signed tokens end at their time, used or not.
#[test]
fn key_is_never_missing_while_signed_tokens_expire() {
    let dir = scratch();
    let etcd = etcd_with_jwt(&dir, "5s");
    let (daemon, lookout) = Login::with(RIGHT).announced_for(&etcd, Duration::from_secs(17));
    lookout.never_missing("row 19: signed tokens expire");
    assert_silent(&daemon);
}

/// Row 19. "Revision of auth store is old", which the token's own life does not cure in time.
#[test]
fn key_is_never_missing_when_anything_changes_in_the_auth_store() {
    let dir = scratch();
    let etcd = etcd_with_jwt(&dir, "1h");
    let login = Login::with(RIGHT);
    let (daemon, lookout) = login.announced(&etcd, &[]);
    for change in 0..4 {
        etcd.etcdctl(&["user", "add", &format!("somebody{change}:any")]);
        sleep(TTL / 2);
    }
    sleep(OUTLIVED - TTL);
    lookout.never_missing("row 19: auth store changes under signed tokens");
    assert_silent(&daemon);
}

/// Row 19. Simple tokens are in etcd's memory only.
#[test]
fn key_is_never_missing_when_etcd_restarts_and_forgets_its_tokens() {
    let mut etcd = etcd_with_auth(&[]);
    let login = Login::with(RIGHT);
    let (daemon, lookout) = login.announced(&etcd, &[]);
    for _ in 0..2 {
        etcd.kill();
        etcd.restart();
        sleep(OUTLIVED);
    }
    lookout.never_missing("row 19: etcd forgets its tokens");
    assert_undisturbed(&daemon);
}

/// Row 19. Credentials first, `etcdctl auth enable` then: that is the way without a gap.
#[test]
fn key_is_never_missing_when_auth_is_switched_on_and_off_under_an_announcer_with_credentials() {
    let mut etcd = Etcd::start();
    let login = Login::with(RIGHT);
    let (mut daemon, lookout) = login.announced(&etcd, &[]);
    enable_auth(&mut etcd);
    sleep(OUTLIVED);
    assert_undisturbed(&daemon);

    etcd.etcdctl(&["auth", "disable"]);
    sleep(OUTLIVED);
    lookout.never_missing("row 19: auth switched on and off");
    assert_undisturbed(&daemon);
    assert_eq!(daemon.end(Signal::TERM, AT_ONCE + SLACK), 0);
    assert_eq!(etcd.key(&key()), None);
}

/// Row 19. The lease is up to 0.37 of a TTL old when the password changes, and a renewal may be
/// refused from then on: what is left until two thirds of the TTL is 0.3 of it.
#[test]
fn key_is_never_missing_when_the_password_is_rotated() {
    let etcd = etcd_with_auth(&[]);
    let login = Login::with(RIGHT);
    let (daemon, lookout) = login.announced(&etcd, &["--ttl", "10s"]);
    for password in [NEXT, RIGHT] {
        passwd(&etcd, password);
        sleep(ROOMY.mul_f64(0.3));
        login.write(password);
        sleep(ROOMY + AT_ONCE);
    }
    lookout.never_missing("row 19: password rotated");
    assert_undisturbed(&daemon);
}

/// As the user's administrator does it.
fn passwd(etcd: &Etcd, password: &str) {
    let mut command = etcd.etcdctl_command();
    command.args(["user", "passwd", "h1", "--interactive=false"]);
    let (input, mut output) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut output, format!("{password}\n").as_bytes()).unwrap();
    drop(output);
    let done = command.stdin(input).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// In a network namespace of its own there is nobody whom the password could reach.
#[test]
fn password_over_http_to_another_machine_is_warned_about() {
    let login = Login::with(RIGHT);
    for (endpoint, is_warned) in [
        ("http://192.0.2.1:2379", true),
        ("http://etcd.example:2379", true),
        ("https://192.0.2.1:2379", false),
        ("http://127.0.0.1:2379", false),
        ("http://[::1]:2379", false),
        ("http://localhost:2379", false),
    ] {
        let mut command = tool_behind("unshare", &["--net", env!("CARGO_BIN_EXE_crate-discovery")]);
        command.args(["hosts", "--endpoints", endpoint, "--request-timeout", "100ms"]).args(login.args(&[]));
        let finished = run(command);
        assert_eq!(finished.code, 69, "{endpoint}: {}", finished.stderr);
        let warnings = finished.stderr.matches("the password goes over http to another machine").count();
        assert_eq!(warnings, usize::from(is_warned), "{endpoint}: {}", finished.stderr);
        assert!(!finished.stderr.contains(RIGHT));
    }
}
