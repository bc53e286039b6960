//! The real etcd, one member, on free loopback ports, in a directory of its own.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::{PATIENCE, PREFIX, Pki, eventually, free_port, freeze, http_get, thaw};

/// An etcd that lives as long as this value.
pub struct Etcd {
    dir: TempDir,
    child: Option<Child>,
    client_port: u16,
    peer_port: u16,
    /// Health and metrics, always plain http, whatever clients must speak.
    metrics_port: u16,
    tls: Option<Pki>,
    extra: Vec<String>,
    /// `--user` for our own `etcdctl`, once authentication is on.
    login: Option<String>,
}

/// A key as etcd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub value: String,
    /// The lease that the key is attached to, 0 for none.
    pub lease: i64,
    /// The revision that wrote it last.
    pub mod_revision: i64,
}

impl Etcd {
    /// Starts an empty etcd and waits until it is healthy.
    pub fn start() -> Self {
        Self::start_with(&[], false)
    }

    /// As [`Etcd::start`], with more flags.
    pub fn start_with_flags(extra: &[&str]) -> Self {
        Self::start_with(extra, false)
    }

    /// As [`Etcd::start_with_flags`], for clients with a certificate of [`Etcd::pki`] only.
    pub fn start_with_tls(extra: &[&str]) -> Self {
        Self::start_with(extra, true)
    }

    fn start_with(extra: &[&str], tls: bool) -> Self {
        for _ in 0..5 {
            let mut etcd = Self::unstarted(extra, tls);
            if etcd.spawn() {
                return etcd;
            }
            // Somebody else may have taken a port between our look and etcd's.
            eprintln!("etcd ended at its start, trying other ports:\n{}", etcd.log_tail());
        }
        panic!("etcd does not start");
    }

    /// One that does not run yet; see [`Etcd::launch`].
    pub fn unstarted(extra: &[&str], tls: bool) -> Self {
        let dir = TempDir::new().unwrap();
        Self {
            tls: tls.then(|| Pki::create(dir.path())),
            dir,
            child: None,
            client_port: free_port(),
            peer_port: free_port(),
            metrics_port: free_port(),
            extra: extra.iter().map(|&flag| flag.to_owned()).collect(),
            login: None,
        }
    }

    /// Adds flags to those of the next launch.
    pub fn add_flags(&mut self, extra: &[&str]) {
        self.extra.extend(extra.iter().map(|&flag| flag.to_owned()));
    }

    /// Whether etcd came up and answers.
    fn spawn(&mut self) -> bool {
        self.launch();
        self.comes_up()
    }

    /// Starts the process and waits for nothing: a member is healthy only when there is a quorum.
    pub fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let peers = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = Command::new("etcd");
        command
            .env_clear()
            // Without a PATH the system's default one is searched, whichever etcd we were told to take.
            .env("PATH", path())
            .arg("--data-dir")
            .arg(self.data())
            .args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .args(["--listen-metrics-urls", &format!("http://127.0.0.1:{}", self.metrics_port)])
            // Nobody pulls the plug of the test machine; bcrypt at full cost takes 100 ms a login.
            .args(["--unsafe-no-fsync", "--bcrypt-cost=4", "--logger=zap", "--log-outputs=stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(pki) = &self.tls {
            command
                .arg("--client-cert-auth")
                .args(["--cert-file".as_ref(), pki.cert.as_os_str()])
                .args(["--key-file".as_ref(), pki.key.as_os_str()])
                .args(["--trusted-ca-file".as_ref(), pki.ca.as_os_str()]);
        }
        // Last, because the last one of a flag counts.
        command.args(&self.extra);
        self.child = Some(command.spawn().unwrap_or_else(|e| not_in_path("etcd", &e)));
    }

    /// Waits until etcd is healthy, or ended, which is false.
    pub fn comes_up(&mut self) -> bool {
        let metrics_port = self.metrics_port;
        let child = self.child.as_mut().expect("launched");
        eventually("etcd is healthy", PATIENCE, || {
            if child.try_wait().unwrap().is_some() {
                return Ok(false);
            }
            match http_get(metrics_port, "/health") {
                Ok(body) if body.contains(r#""true""#) => Ok(true),
                other => Err(format!("{other:?}")),
            }
        })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    /// The port of [`Etcd::url`].
    pub fn port(&self) -> u16 {
        self.client_port
    }

    /// The certificates of an etcd with TLS.
    pub fn pki(&self) -> &Pki {
        self.tls.as_ref().expect("this etcd has no TLS")
    }

    /// The port that other members reach it at.
    pub fn peer_port(&self) -> u16 {
        self.peer_port
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Ends etcd with SIGKILL; its data stays.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("etcd runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again, on the same ports, with the data it had.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "kill it first");
        assert!(self.spawn(), "etcd does not come back:\n{}", self.log_tail());
    }

    /// Deletes its data; it must not run.
    pub fn forget(&mut self) {
        assert!(self.child.is_none(), "kill it first");
        std::fs::remove_dir_all(self.data()).unwrap();
    }

    /// Copies its data to `backup`, which must not be there yet; it must not run.
    pub fn back_up(&self, backup: &Path) {
        self.copy(&self.data(), backup);
    }

    /// Takes the data that was copied to `backup` for its own; it must not run.
    pub fn restore(&mut self, backup: &Path) {
        self.forget();
        self.copy(backup, &self.data());
    }

    fn copy(&self, from: &Path, to: &Path) {
        assert!(self.child.is_none(), "kill it first");
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    }

    /// Ends etcd, deletes its data, and starts it again on the same ports.
    pub fn wipe(&mut self) {
        self.kill();
        self.forget();
        self.restart();
    }

    /// Stops etcd in its tracks: connections are accepted, nothing is answered.
    pub fn freeze(&self) {
        freeze(self.pid());
    }

    /// Lets etcd go on.
    pub fn thaw(&self) {
        thaw(self.pid());
    }

    /// The process id; it must have been started.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("etcd runs").id()
    }

    /// One of etcd's own numbers, such as `etcd_server_proposals_committed_total`.
    pub fn metric(&self, name: &str) -> f64 {
        self.try_metric(name).unwrap_or_else(|| panic!("etcd has no {name}"))
    }

    /// As [`Etcd::metric`], where this version has it: names change.
    pub fn try_metric(&self, name: &str) -> Option<f64> {
        let metrics = http_get(self.metrics_port, "/metrics").unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|number| number.parse().unwrap())
    }

    /// `etcdctl` for this etcd, with our login.
    pub fn etcdctl_command(&self) -> Command {
        let mut command = Command::new("etcdctl");
        command.env_clear().env("PATH", path()).env("ETCDCTL_API", "3").args(["--endpoints", &self.url()]);
        if let Some(pki) = &self.tls {
            command
                .args(["--cacert".as_ref(), pki.ca.as_os_str()])
                .args(["--cert".as_ref(), pki.cert.as_os_str()])
                .args(["--key".as_ref(), pki.key.as_os_str()]);
        }
        if let Some(login) = &self.login {
            command.args(["--user", login]);
        }
        command.stdin(Stdio::null());
        command
    }

    /// What `etcdctl` prints, or what it complains of.
    pub fn try_etcdctl(&self, args: &[&str]) -> Result<String, String> {
        let output =
            self.etcdctl_command().args(args).output().unwrap_or_else(|e| not_in_path("etcdctl", &e));
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// What `etcdctl` prints.
    #[track_caller]
    pub fn etcdctl(&self, args: &[&str]) -> String {
        self.try_etcdctl(args).unwrap_or_else(|e| panic!("etcdctl {args:?}: {e}"))
    }

    /// The key as `etcdctl` reads it.
    #[track_caller]
    pub fn key(&self, key: &str) -> Option<Stored> {
        let fields = self.etcdctl(&["get", key, "--write-out=fields"]);
        let field = |name: &str| fields.lines().find_map(|l| l.strip_prefix(&format!("\"{name}\" : ")));
        Some(Stored {
            // Go's quoting; for the printable values that we ask for it is JSON's.
            value: serde_json::from_str(field("Value")?).expect("a printable value"),
            lease: field("Lease")?.parse().unwrap(),
            mod_revision: field("ModRevision")?.parse().unwrap(),
        })
    }

    /// The keys of everybody announced under the default prefix.
    #[track_caller]
    pub fn announced(&self) -> Vec<String> {
        let keys = self.etcdctl(&["get", "--prefix", "--keys-only", &format!("{PREFIX}/")]);
        keys.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// All living leases.
    #[track_caller]
    pub fn leases(&self) -> Vec<i64> {
        self.etcdctl(&["lease", "list"]).lines().skip(1).map(lease_id).collect()
    }

    /// A new lease that nobody keeps alive.
    pub fn grant(&self, ttl: Duration) -> i64 {
        let granted = self.etcdctl(&["lease", "grant", &ttl.as_secs().to_string()]);
        lease_id(granted.split(' ').nth(1).expect("lease <hex> granted"))
    }

    /// What `etcdctl` knows of a lease: granted, remaining, attached keys; or that it is no more.
    #[track_caller]
    pub fn lease(&self, lease: i64) -> String {
        self.etcdctl(&["lease", "timetolive", &format!("{lease:x}"), "--keys"])
    }

    /// Turns authentication on: root's password is `root`, and each of `roles` is a user with that
    /// name, the password, and the permissions, each the arguments of `role grant-permission`.
    pub fn enable_auth(&mut self, roles: &[(&str, &str, &[&[&str]])]) {
        self.etcdctl(&["user", "add", "root:root"]);
        self.etcdctl(&["user", "grant-role", "root", "root"]);
        for (name, password, permissions) in roles {
            self.etcdctl(&["user", "add", &format!("{name}:{password}")]);
            self.etcdctl(&["role", "add", name]);
            for permission in *permissions {
                self.etcdctl(&[&["role", "grant-permission", name], *permission].concat());
            }
            self.etcdctl(&["user", "grant-role", name, name]);
        }
        self.etcdctl(&["auth", "enable"]);
        self.login = Some("root:root".to_owned());
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the end of etcd's log\n{}", self.log_tail());
        }
        if let Some(child) = &mut self.child {
            // A stopped process dies of SIGKILL as well; an error means that it is dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A lease id as everybody writes it, in hex.
pub fn lease_id(hex: &str) -> i64 {
    i64::from_str_radix(hex, 16).unwrap_or_else(|e| panic!("{hex:?} is no lease: {e}"))
}

/// A directory for a test's own files.
pub fn scratch() -> TempDir {
    TempDir::new().unwrap()
}

/// `path` as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("our own paths are UTF-8")
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

fn not_in_path(program: &str, error: &std::io::Error) -> ! {
    panic!("{program} is not in PATH: apt-get install etcd-server etcd-client ({error})")
}
