//! One host of a fleet: a container in which Debian's systemd is PID 1, with our install and a docker
//! engine of its own that has the image of the CrateDB stand-in.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Condvar, Mutex, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::support::{
    crate_db::{CrateDb, stand_in_changes},
    engine::{Container, Network, debian_image, docker, engine_answers, stand_in_tar},
    eventually,
};

/// What `crate@.service` runs unless told otherwise.
pub const IMAGE: &str = "crate:6.4.3";

/// A boot, a start of the node with its image and its sidekick, a stop: all of it takes a while where six tests share
/// two cores.
pub const UNIT_PATIENCE: Duration = Duration::from_secs(60);

/// A real CrateDB needs the limits that the unit asks for, so the host has to be allowed to raise them.
const RAISES_LIMITS: [&str; 2] = ["--cap-add", "SYS_RESOURCE"];

/// How these tests boot a systemd without `--privileged`. SYS_PTRACE is for the user namespace of
/// the sidekick's sandbox.
const BOOTS_SYSTEMD: [&str; 24] = [
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "NET_ADMIN",
    "--cap-add",
    "SYS_PTRACE",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--tmpfs",
    "/run",
    "--tmpfs",
    "/run/lock",
    "--tmpfs",
    "/tmp",
    "--volume",
    "/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--cgroupns",
    "host",
    "--stop-signal",
    "SIGRTMIN+3",
    "--env",
    "container=docker",
];

/// A host that has booted.
pub struct Host {
    container: Container,
    _turn: Turn,
}

impl Host {
    /// Boots one on `network` under this host name, set up as the README has it, with these lines in
    /// its environment file.
    pub fn boot(network: &Network, name: &str, settings: &[&str]) -> Self {
        Self::boot_without_image(network, name, settings).with_image()
    }

    /// As [`Host::boot`], but its engine does not have the node's image.
    pub fn boot_without_image(network: &Network, name: &str, settings: &[&str]) -> Self {
        engine_answers();
        let turn = Turn::wait();
        let args = ["--hostname", name, "--network", network.name(), "--network-alias", name];
        let init = [debian_image(), "/sbin/init"];
        let limits: &[&str] = match CrateDb::of_this_run() {
            CrateDb::StandIn => &[],
            CrateDb::Image(_) => &RAISES_LIMITS,
        };
        let container = Container::create(&[&BOOTS_SYSTEMD[..], limits, &args, &init].concat());
        container.copy_in(install());
        container.start();
        let host = Self { container, _turn: turn };
        host.has_booted();
        // As the README says.
        host.exec(&["systemd-sysusers"]);
        host.exec(&["install", "-d", "/etc/crate-discovery", "/var/lib/crate"]);
        host.write_settings("crate-discovery.env", settings);
        host
    }

    fn with_image(self) -> Self {
        self.load_image();
        self
    }

    /// Puts the image of the node into the host's engine.
    pub fn load_image(&self) {
        let mut client = docker();
        client.args(["exec", "--interactive", self.container.name(), "docker.real"]).stdout(Stdio::null());
        let done = match CrateDb::of_this_run() {
            CrateDb::StandIn => {
                let changes = stand_in_changes(None);
                let changes = changes.iter().flat_map(|change| ["--change", change]);
                client.arg("import").args(changes).args(["-", IMAGE]);
                client.stdin(File::open(stand_in_tar()).unwrap()).status()
            }
            CrateDb::Image(image) => {
                let saved =
                    docker().args(["save", image]).stdout(Stdio::piped()).spawn().expect("docker runs");
                client.arg("load").stdin(saved.stdout.expect("it is piped")).status()
            }
        };
        assert!(
            done.expect("docker runs").success(),
            "the node's image cannot be put into the host's engine"
        );
        if let CrateDb::Image(image) = CrateDb::of_this_run() {
            self.exec(&["docker.real", "tag", image, IMAGE]);
        }
    }

    /// Waits until systemd says that all is up.
    pub fn has_booted(&self) {
        eventually("the host has booted", UNIT_PATIENCE, || {
            // It fails for "degraded", too; what failed is then in the message.
            match self.container.try_exec(&["systemctl", "is-system-running"]) {
                Ok(state) if state == "running" => Ok(()),
                other => Err(format!(
                    "{other:?}; failed: {:?}",
                    self.container.try_exec(&["systemctl", "--failed"])
                )),
            }
        });
    }

    /// Writes lines into a file under `/etc/crate-discovery`, as the README has it: 0640
    /// root:crate-discovery.
    pub fn write_settings(&self, file: &str, lines: &[&str]) {
        let path = format!("/etc/crate-discovery/{file}");
        self.container.write(&path, &(lines.join("\n") + "\n"));
        self.exec(&["chown", "root:crate-discovery", &path]);
        self.exec(&["chmod", "640", &path]);
    }

    /// Writes a file that anybody may read.
    pub fn write(&self, path: &str, text: &str) {
        self.exec(&["mkdir", "-p", &Path::new(path).parent().unwrap().display().to_string()]);
        self.container.write(path, text);
    }

    /// Tells the node's stand-in how to behave; see `tests/stand_in`.
    pub fn steer(&self, words: &str) {
        self.container.write("/var/lib/crate/stand-in", words);
    }

    /// Runs a command: what it printed.
    #[track_caller]
    pub fn exec(&self, command: &[&str]) -> String {
        self.container.exec(command)
    }

    /// Runs a command: what it printed, or what it complained of.
    pub fn try_exec(&self, command: &[&str]) -> Result<String, String> {
        self.container.try_exec(command)
    }

    /// Runs systemctl.
    #[track_caller]
    pub fn systemctl(&self, args: &[&str]) -> String {
        self.exec(&[&["systemctl", "--no-pager"], args].concat())
    }

    /// One property of a unit.
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.systemctl(&["show", "--value", "--property", name, unit])
    }

    /// Waits until a property of a unit is `expected`.
    #[track_caller]
    pub fn becomes(&self, unit: &str, name: &str, expected: &str) {
        eventually(&format!("{name} of {unit} is {expected:?}"), UNIT_PATIENCE, || {
            let seen = self.property(unit, name);
            if seen == expected { Ok(()) } else { Err(format!("{seen:?}\n{}", self.journal(unit))) }
        });
    }

    /// Sends a signal to the main process of a unit, and to no other.
    #[track_caller]
    pub fn signal(&self, unit: &str, signal: &str) {
        self.systemctl(&["kill", "--kill-whom=main", &format!("--signal={signal}"), unit]);
    }

    /// Holds that a unit that has ended did so without a failure. systemd forgets the properties of such a unit, so
    /// the journal has to tell.
    #[track_caller]
    pub fn ended_well(&self, unit: &str) {
        let journal = self.journal(unit);
        assert_eq!(self.property(unit, "ActiveState"), "inactive", "{journal}");
        assert!(journal.contains(&format!("{unit}: Deactivated successfully.")), "{journal}");
        assert!(!journal.contains("Failed with result"), "{journal}");
    }

    /// The main process of a unit.
    #[track_caller]
    pub fn main_pid(&self, unit: &str) -> String {
        self.property(unit, "MainPID")
    }

    /// What a unit logged, without times.
    #[track_caller]
    pub fn journal(&self, unit: &str) -> String {
        self.exec(&["journalctl", "--no-pager", "--output", "cat", "--unit", unit])
    }

    /// When the stand-in said `what`, each time.
    #[track_caller]
    pub fn node_said(&self, what: &str) -> Vec<SystemTime> {
        let journal = self.journal("crate@1");
        let said = journal.lines().filter_map(|line| line.split_once(' ')).filter(|(_, said)| *said == what);
        said.filter_map(|(at, _)| at.parse().ok())
            .map(|milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds))
            .collect()
    }

    /// The flags that the stand-in got at its last start.
    #[track_caller]
    pub fn node_flags(&self) -> Vec<String> {
        let journal = self.journal("crate@1");
        let flags = journal.lines().filter_map(|line| line.split_once(" flags ")).next_back();
        flags.expect("the node has started").1.split(' ').map(str::to_owned).collect()
    }

    /// Names of the containers in the host's engine, running or not.
    #[track_caller]
    pub fn containers(&self) -> String {
        self.exec(&["docker.real", "ps", "--all", "--format", "{{.Names}}"])
    }

    /// Each call of docker by a unit, literally.
    #[track_caller]
    pub fn docker_calls(&self) -> Vec<String> {
        self.exec(&["cat", "/var/log/docker-calls"]).lines().map(str::to_owned).collect()
    }

    /// Its address on the network.
    #[track_caller]
    pub fn address(&self) -> String {
        self.container.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    }

    /// The container that it is.
    pub fn container(&self) -> &Container {
        &self.container
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = ["journalctl", "--no-pager", "--output", "short-precise", "--unit", "crate*"];
            eprintln!(
                "---- {}\n{}",
                self.container.name(),
                self.try_exec(&journal).unwrap_or_else(|error| error)
            );
        }
    }
}

/// What `make install` puts on a host, and the docker client that notes its calls.
/// Made once.
fn install() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let tree = kept.join("installed");
        // Of the last run, which may have installed something else.
        let _ = fs::remove_dir_all(&tree);
        let made = Command::new("make")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["--silent", "install"])
            .arg(format!("DESTDIR={}", tree.display()))
            .arg(concat!("BINARY=", env!("CARGO_BIN_EXE_crate-discovery")))
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("make runs").success(), "make install failed: see above");
        let client = tree.join("usr/bin/docker");
        fs::create_dir_all(client.parent().expect("it is in a directory")).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/docker-that-notes.sh");
        fs::copy(script, client).unwrap();
        if matches!(CrateDb::of_this_run(), CrateDb::StandIn) {
            fs::create_dir_all(tree.join("etc")).unwrap();
            fs::write(tree.join("etc/limits-cannot-be-raised"), "").unwrap();
        }
        tree
    })
}

/// So many hosts run at a time on two cores.
const AT_A_TIME: usize = 4;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// A turn to run a host; given back when dropped.
struct Turn;

impl Turn {
    fn wait() -> Self {
        let (running, ended) = &RUNNING;
        let running = running.lock().unwrap();
        *ended.wait_while(running, |running| *running >= AT_A_TIME).unwrap() += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (running, ended) = &RUNNING;
        *running.lock().unwrap() -= 1;
        ended.notify_one();
    }
}
