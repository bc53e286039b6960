//! One CrateDB in a container.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::OnceLock,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    crate_db::{CrateDb, ULIMITS},
    engine::{Container, Network, engine_answers, run_docker},
    etcd::{arg, scratch},
    eventually,
};

/// A real CrateDB takes 3 to 7 s until its ports are open, and a cluster of three up to 25 s, on two idle cores.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A node, which ends with the test.
pub struct Node {
    pub container: Container,
    /// What is mounted on `/data`.
    data: TempDir,
    network: String,
}

impl Node {
    /// Starts one of this name, which is also how the others reach it, with these flags. It is told of the
    /// ports, of its name and of what it publishes; and it has what CrateDB's bootstrap checks ask for.
    pub fn start(network: &Network, name: &str, flags: &[&str]) -> Self {
        Self::start_with(network, name, "6.4.3", &[], flags)
    }

    /// As [`Node::start`], of this version where the stand-in plays it, with more arguments of `docker run`.
    pub fn start_with(network: &Network, name: &str, version: &str, more: &[&str], flags: &[&str]) -> Self {
        let own = [format!("-Cnode.name={name}"), format!("-Cnetwork.publish_host={name}")];
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let fixed = ["-Chttp.port=4200", "-Ctransport.tcp.port=4300"];
        let limits = limits(&ULIMITS);
        let more: Vec<&str> = limits.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Self::bare(network, name, version, &more, &[&own[..], &fixed, flags].concat())
    }

    /// One with these arguments of `docker run` and these flags, and nothing else.
    pub fn bare(network: &Network, name: &str, version: &str, more: &[&str], flags: &[&str]) -> Self {
        engine_answers();
        let data = scratch();
        let volume = format!("{}:/data", arg(data.path()));
        let args =
            ["--network", network.name(), "--network-alias", name, "--hostname", name, "--volume", &volume];
        let image = image(version);
        let container = Container::create(&[&args[..], more, &[&image], flags].concat());
        container.start();
        Self { container, data, network: network.name().to_owned() }
    }

    /// Stops it, gives it an empty disk, and starts another one in its place with these flags.
    pub fn wiped(self, network: &Network, name: &str, flags: &[&str]) -> Self {
        drop(self);
        Self::start(network, name, flags)
    }

    /// Where its data is on this machine.
    pub fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    /// `host:port` of one of its ports.
    pub fn at(&self, port: u16) -> String {
        let format = format!("{{{{(index .NetworkSettings.Networks {:?}).IPAddress}}}}", self.network);
        format!("{}:{port}", self.container.inspect(&format))
    }

    /// The whole answer to a request, or why there was none.
    pub fn asked(&self, request: &str) -> std::io::Result<String> {
        let address = self.at(4200);
        let address = address.parse().map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The answer to `GET /` as our gate asks, with more header lines.
    pub fn root(&self, headers: &str) -> std::io::Result<String> {
        self.asked(&format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n{headers}\r\n"
        ))
    }

    /// The status of `GET /`, or 0 where nothing answers.
    pub fn status(&self) -> u16 {
        let answer = self.root("").unwrap_or_default();
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Waits until `GET /` has that status.
    #[track_caller]
    pub fn says(&self, status: u16) {
        eventually(&format!("/ answers {status}"), PATIENCE, || match self.status() {
            seen if seen == status => Ok(()),
            seen => Err(format!("{seen}\n{}", self.container.logs())),
        });
    }

    /// Waits until `GET /` has an answer of CrateDB's.
    #[track_caller]
    pub fn says_anything(&self) {
        eventually("/ answers", PATIENCE, || match self.status() {
            200 | 503 => Ok(()),
            seen => Err(format!("{seen}\n{}", self.container.logs())),
        });
    }

    /// The rows of a statement, or why there are none.
    pub fn sql(&self, statement: &str) -> Result<Vec<String>, String> {
        let body = serde_json::json!({ "stmt": statement }).to_string();
        let answer = self
            .asked(&format!(
                "POST /_sql HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(answer);
        }
        let body: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))?;
        let rows = body["rows"].as_array().cloned().unwrap_or_default();
        Ok(rows.iter().map(|row| row[0].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Its cluster's uuid, and the names of those that are in it.
    pub fn cluster(&self) -> Result<(String, Vec<String>), String> {
        let uuid = self.sql("select id from sys.cluster")?.concat();
        Ok((uuid, self.sql("select name from sys.nodes order by name")?))
    }

    /// Waits until it is in one cluster with exactly these: the cluster's uuid.
    #[track_caller]
    pub fn is_with(&self, names: &[&str]) -> String {
        eventually(&format!("it is in a cluster of {names:?}"), PATIENCE, || match self.cluster() {
            Ok((uuid, found)) if found == names => Ok(uuid),
            other => Err(format!("{other:?}\n{}", self.container.logs())),
        })
    }

    /// Waits until it has ended: its exit code.
    #[track_caller]
    pub fn exit_code(&self) -> String {
        self.container.has_ended(PATIENCE);
        self.container.inspect("{{.State.ExitCode}}")
    }

    /// Waits until it has said `what`.
    #[track_caller]
    pub fn has_said(&self, what: &str) {
        eventually(&format!("it says {what:?}"), PATIENCE, || {
            let log = self.container.logs();
            if log.contains(what) { Ok(()) } else { Err(log) }
        });
    }

    /// Stops it as `docker stop` does; it stays where it is.
    pub fn stop(&self) {
        run_docker(&["stop", "--time", "60", self.container.name()]);
    }
}

/// The arguments of `docker run` for these limits. The stand-in is told of them, since they cannot be had
/// wherever it runs; it judges what docker was asked for.
pub fn limits(ulimits: &[&str]) -> Vec<String> {
    match CrateDb::of_this_run() {
        CrateDb::StandIn => vec!["--env".to_owned(), format!("STAND_IN_ULIMITS={}", ulimits.join(" "))],
        CrateDb::Image(_) => {
            ulimits.iter().flat_map(|limit| ["--ulimit".to_owned(), (*limit).to_owned()]).collect()
        }
    }
}

/// The image, made once for each version.
fn image(version: &str) -> String {
    static MADE: [OnceLock<String>; 2] = [const { OnceLock::new() }; 2];
    let slot = usize::from(version != "6.4.3");
    MADE[slot]
        .get_or_init(|| {
            let name = format!("crate-discovery-test/cratedb:{version}");
            CrateDb::of_this_run().image(&name, version)
        })
        .clone()
}
