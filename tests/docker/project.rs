//! `docker/compose.yaml`, with images made here under the names that it is told to use.

use std::{
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::support::{
    PATIENCE,
    crate_db::CrateDb,
    engine::{engine_answers, etcd_image, run_docker, sidekick_image, try_docker, unique},
    eventually, free_port,
    observer::Observer,
};

/// Three nodes, three sidekicks and an etcd start on two cores, with a real CrateDB, too.
pub const COMPOSE_PATIENCE: Duration = Duration::from_secs(120);

/// A project of its own; taken down, with its volumes, when dropped.
pub struct Project {
    name: String,
    ports: [String; 2],
    subnet: String,
    // One at a time on two cores.
    _turn: MutexGuard<'static, ()>,
}

impl Project {
    /// `up --detach`, of all services.
    pub fn up() -> Self {
        Self::up_with(&[])
    }

    /// `up --detach`, of these services and those they depend on.
    pub fn up_with(services: &[&str]) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        // Whoever failed has taken his project down.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        engine_answers();
        // Before there is a project to take down.
        crate_image();
        etcd_image();
        sidekick_image();
        let ports = [free_port(), free_port()].map(|port| port.to_string());
        // Not the default one: somebody may use the compose file on this very machine.
        let subnet = format!("10.142.{}", fastrand::u8(1..240));
        let project = Self { name: unique("p"), ports, subnet, _turn: turn };
        project.compose(&[&["up", "--detach"], services].concat());
        project
    }

    /// Runs compose: what it printed.
    #[track_caller]
    pub fn compose(&self, args: &[&str]) -> String {
        let done = self.command(args).output().expect("compose runs");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim_end().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = compose();
        command
            .args(["--project-name", &self.name, "--file"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docker/compose.yaml"))
            .args(args)
            .envs([("CRATE_IMAGE", crate_image()), ("ETCD_IMAGE", etcd_image())])
            .env("CRATE_DISCOVERY_IMAGE", sidekick_image())
            .env("SUBNET", &self.subnet)
            .envs([("CRATE_HTTP_PORT", &self.ports[0]), ("CRATE_PSQL_PORT", &self.ports[1])])
            .stdin(Stdio::null());
        command
    }

    /// The container of a service, running or not.
    #[track_caller]
    pub fn container(&self, service: &str) -> String {
        let id = self.compose(&["ps", "--all", "--quiet", service]);
        assert!(!id.is_empty(), "{service} has no container");
        id
    }

    /// What `docker inspect` says of a service's container with this format.
    #[track_caller]
    pub fn inspect(&self, service: &str, format: &str) -> String {
        run_docker(&["inspect", "--format", format, &self.container(service)])
    }

    /// A witness at the project's etcd, as it is now.
    #[track_caller]
    pub fn observer(&self) -> Observer {
        let address = eventually("etcd has an address", PATIENCE, || {
            let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
            Some(self.inspect("etcd", format)).filter(|address| !address.is_empty()).ok_or(String::new())
        });
        Observer::at(format!("http://{address}:2379"))
    }

    /// Asks a node for rows, on its own loopback, or says why there are none.
    pub fn sql(&self, service: &str, statement: &str) -> Result<Vec<String>, String> {
        let body = serde_json::json!({ "stmt": statement }).to_string();
        let container = self.container(service);
        let curl =
            ["exec", &container, "curl", "--silent", "--fail", "--header", "Content-Type: application/json"];
        let answer = try_docker(&[&curl[..], &["--data", &body, "http://127.0.0.1:4200/_sql"]].concat())?;
        let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        let rows = answer["rows"].as_array().cloned().unwrap_or_default();
        Ok(rows.iter().map(|row| row[0].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Waits until a node is in one cluster with exactly these: the cluster's uuid.
    #[track_caller]
    pub fn is_with(&self, service: &str, names: &[&str]) -> String {
        eventually(&format!("{service} is in a cluster of {names:?}"), COMPOSE_PATIENCE, || {
            let found = self.sql(service, "select name from sys.nodes order by name")?;
            let uuid = self.sql(service, "select id from sys.cluster")?.concat();
            if found == names { Ok(uuid) } else { Err(format!("{uuid} of {found:?}")) }
        })
    }

    /// Waits until the engine says that a service is healthy.
    #[track_caller]
    pub fn is_healthy(&self, service: &str) {
        eventually(&format!("{service} is healthy"), COMPOSE_PATIENCE, || {
            match self.inspect(service, "{{.State.Health.Status}}").as_str() {
                "healthy" => Ok(()),
                _ => Err(self.inspect(service, "{{json .State.Health}}")),
            }
        });
    }

    /// When a node's stand-in said `what`, each time.
    #[track_caller]
    pub fn said(&self, service: &str, what: &str) -> Vec<SystemTime> {
        let log = run_docker(&["logs", &self.container(service)]);
        let said = log.lines().filter_map(|line| line.split_once(' ')).filter(|(_, said)| *said == what);
        said.filter_map(|(at, _)| at.parse().ok())
            .map(|milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds))
            .collect()
    }

    /// Begins to run compose.
    pub fn begin(&self, args: &[&str]) -> Running {
        let command = self.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        Running(command.expect("compose runs"))
    }
}

/// A command of compose on its way.
pub struct Running(Child);

impl Running {
    /// Waits until it has done what it was asked for.
    #[track_caller]
    pub fn ends_well(self) {
        let done = self.0.wait_with_output().expect("compose runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.command(&["logs", "--tail", "30"]).output().expect("compose runs");
            eprintln!("---- {}\n{}", self.name, String::from_utf8_lossy(&logs.stdout));
        }
        // Without patience: what it would show has been seen.
        let _ = self.command(&["kill"]).output();
        let _ = self.command(&["down", "--volumes", "--remove-orphans"]).output();
    }
}

/// Compose v2 where the client has it, or docker-compose 1.29.
fn compose() -> Command {
    static HAS_PLUGIN: OnceLock<bool> = OnceLock::new();
    let has_plugin = *HAS_PLUGIN.get_or_init(|| {
        let asked = Command::new("docker").args(["compose", "version"]).output();
        asked.is_ok_and(|asked| asked.status.success())
    });
    if has_plugin {
        let mut command = Command::new("docker");
        command.arg("compose");
        command
    } else {
        Command::new("docker-compose")
    }
}

/// The image of the nodes; made once.
fn crate_image() -> &'static str {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| CrateDb::of_this_run().image("crate-discovery-test/crate", "6.4.3"))
}
