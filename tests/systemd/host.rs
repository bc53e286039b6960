//! One host of a fleet: a container in which Debian's systemd is PID 1, with our install and a docker
//! engine of its own that has the image of the CrateDB stand-in.

use std::{
    cell::Cell,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Condvar, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::support::{
    crate_db::{CrateDb, stand_in_changes},
    engine::{Container, Network, debian_image, docker, engine_answers, stand_in_tar},
    eventually,
};

/// What `crate@.service` runs unless told otherwise.
pub const IMAGE: &str = "crate:6.4.3";

/// A boot, a start of the node with its image and its sidekick, a cluster of three, a stop: all of it takes a while where
/// six tests share two cores, and with a real CrateDB.
pub const UNIT_PATIENCE: Duration = Duration::from_secs(120);

/// How long candidates have to be there before a list is frozen: a test need not wait for ten seconds each time.
const HOLD: &str = "CRATE_BOOTSTRAP_HOLD=1s";

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
        let host = Self::boot_as_installed(network, name);
        // As the README says.
        host.exec(&["systemd-sysusers"]);
        host.exec(&["install", "-d", "/etc/crate-discovery"]);
        host.write_settings("crate-discovery.env", &[&[HOLD], settings].concat());
        host
    }

    /// Boots one on which `make install` was run, and nothing else.
    pub fn boot_as_installed(network: &Network, name: &str) -> Self {
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
                let mut saving =
                    docker().args(["save", image]).stdout(Stdio::piped()).spawn().expect("docker runs");
                let saved = saving.stdout.take().expect("it is piped");
                let done = client.arg("load").stdin(saved).status();
                assert!(saving.wait().expect("docker runs").success(), "{image} cannot be saved");
                done
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
        CrateDb::is_the_stand_in();
        self.exec(&["mkdir", "-p", "/var/lib/crate"]);
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

    /// The flags that the node got at its last start: what follows the image's name.
    #[track_caller]
    pub fn node_flags(&self) -> Vec<String> {
        let calls = self.docker_calls();
        let run = calls.iter().rfind(|call| call.starts_with("run ")).expect("the node has started");
        let flags = run.split_once(&format!(" {IMAGE} ")).expect("it runs the image").1;
        flags.split(' ').map(str::to_owned).collect()
    }

    /// The first masters that the node was given at its last start; nothing for none.
    #[track_caller]
    pub fn first_masters(&self) -> Option<String> {
        let flags = self.node_flags();
        flags.iter().find_map(|flag| flag.strip_prefix("-Ccluster.initial_master_nodes=").map(str::to_owned))
    }

    /// How often docker was told to run the node.
    pub fn starts(&self) -> usize {
        let calls = self.try_exec(&["cat", "/var/log/docker-calls"]).unwrap_or_default();
        calls.lines().filter(|call| call.starts_with("run ")).count()
    }

    /// Asks the node for rows, on its own loopback, or says why there are none.
    pub fn sql(&self, statement: &str) -> Result<Vec<String>, String> {
        let body = serde_json::json!({ "stmt": statement }).to_string();
        let curl = ["docker.real", "exec", "crate-1", "curl", "--silent", "--fail", "--header"];
        let ask = ["Content-Type: application/json", "--data", &body, "http://127.0.0.1:4200/_sql"];
        let answer = self.try_exec(&[&curl[..], &ask].concat())?;
        let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        let rows = answer["rows"].as_array().cloned().unwrap_or_default();
        Ok(rows.iter().map(|row| row[0].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Waits until the node is in one cluster with exactly these: the cluster's uuid.
    #[track_caller]
    pub fn is_with(&self, names: &[&str]) -> String {
        eventually(&format!("it is in a cluster of {names:?}"), UNIT_PATIENCE, || {
            let found = self.sql("select name from sys.nodes order by name")?;
            let uuid = self.sql("select id from sys.cluster")?.concat();
            if found == names { Ok(uuid) } else { Err(format!("{uuid} of {found:?}")) }
        })
    }

    /// Whether the node knows a master.
    pub fn has_master(&self) -> bool {
        self.sql("select id from sys.cluster").is_ok()
    }

    /// Stops the node, and waits until that is done.
    pub fn stop_node(&self) {
        self.systemctl(&["stop", "crate@1"]);
    }

    /// Takes the node's data away, which has to be stopped.
    pub fn wipe_data(&self) {
        self.exec(&["rm", "-rf", "/var/lib/crate/data"]);
    }

    /// Takes away what the host remembers of its node.
    pub fn wipe_notes(&self) {
        self.exec(&["sh", "-c", "rm -f /var/lib/crate-discovery/note-* /var/lib/crate-discovery/started-*"]);
    }

    /// Whether the host remembers that its node was in a cluster.
    pub fn has_note(&self) -> bool {
        self.try_exec(&["sh", "-c", "ls /var/lib/crate-discovery/note-*"]).is_ok()
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

thread_local! {
    /// Of this test: hosts that it may still boot, and hosts that it has booted.
    static OF_THIS_TEST: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Waits until so many hosts may run, for a test that boots more than one: were they taken one by one, two tests could
/// wait for each other for ever. What is returned is kept until the last one has been booted.
#[must_use]
pub fn reserve(hosts: usize) -> Reserved {
    let (running, ended) = &RUNNING;
    let running = running.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = ended.wait_while(running, |running| *running + hosts > AT_A_TIME);
    *waited.unwrap_or_else(PoisonError::into_inner) += hosts;
    OF_THIS_TEST.set((hosts, OF_THIS_TEST.get().1));
    Reserved
}

/// See [`reserve`].
pub struct Reserved;

impl Drop for Reserved {
    fn drop(&mut self) {
        let (left, booted) = OF_THIS_TEST.get();
        OF_THIS_TEST.set((0, booted));
        give_back(left);
    }
}

fn give_back(turns: usize) {
    let (running, ended) = &RUNNING;
    *running.lock().unwrap_or_else(PoisonError::into_inner) -= turns;
    ended.notify_all();
}

/// A turn to run a host; given back when dropped, by the test's own thread.
struct Turn;

impl Turn {
    fn wait() -> Self {
        if OF_THIS_TEST.get().0 == 0 {
            assert_eq!(OF_THIS_TEST.get().1, 0, "a test that boots several hosts reserves them first");
            std::mem::forget(reserve(1));
        }
        let (left, booted) = OF_THIS_TEST.get();
        OF_THIS_TEST.set((left - 1, booted + 1));
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (left, booted) = OF_THIS_TEST.get();
        OF_THIS_TEST.set((left, booted - 1));
        give_back(1);
    }
}
