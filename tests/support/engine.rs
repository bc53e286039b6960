//! Docker: images from what this machine has, and networks and containers that end with the test.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    PATIENCE,
    etcd::{Etcd, scratch},
    eventually,
};

/// What these tests leave behind when they are killed can be found by this label.
const LABEL: &str = "crate-discovery-test";

/// The engine's own client: the one in `PATH` may be another version's.
pub fn docker() -> Command {
    let debian = Path::new("/usr/bin/docker");
    Command::new(if debian.exists() { debian } else { Path::new("docker") })
}

/// Runs docker with `args`: what it printed, or what it complained of.
pub fn try_docker(args: &[&str]) -> Result<String, String> {
    let done = docker().args(args).stdin(Stdio::null()).output();
    let done = done.unwrap_or_else(|error| panic!("docker cannot be run: {error}; see .ci/install docker"));
    let printed = String::from_utf8_lossy(&done.stdout).trim_end().to_owned();
    if done.status.success() { Ok(printed) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// Runs docker with `args`: what it printed.
#[track_caller]
pub fn run_docker(args: &[&str]) -> String {
    try_docker(args).unwrap_or_else(|error| panic!("docker {args:?}: {error}"))
}

/// The image in which Debian boots; made once.
pub fn debian_image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| made_by("debian-image.sh"))
}

/// The image of the sidekick, built by `make image` from this machine's toolchain; made once.
pub fn sidekick_image() -> &'static str {
    static IMAGE: OnceLock<()> = OnceLock::new();
    const NAME: &str = "crate-discovery-test/crate-discovery";
    IMAGE.get_or_init(|| {
        let made = Command::new("make")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["--silent", "image", &format!("IMAGE={NAME}"), "IMAGE_FLAGS=--network host"])
            .arg(format!("BUILDER={}", made_by("builder-image.sh")))
            .status();
        assert!(made.expect("make runs").success(), "make image failed: see above");
    });
    NAME
}

/// Runs a script beside this file that makes an image and prints its name.
fn made_by(script: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(script);
    let done = Command::new(&script).stderr(Stdio::inherit()).output().expect("the script runs");
    assert!(done.status.success(), "{} failed: see above", script.display());
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A tar with the file system of what stands in for CrateDB, which plays `curl` as well: the official
/// image has one, for health checks. Made once; see `tests/stand_in`.
pub fn stand_in_tar() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        // Cargo builds examples for `cargo test`, but not for `cargo test --test one`.
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
            "build",
            "--quiet",
            "--locked",
            "--example",
            "cratedb-stand-in",
        ]);
        // What cargo told us about this package: ring's build script would take it for a change, and half of what
        // is built would be built again.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
                cargo.env_remove(name);
            }
        }
        assert!(cargo.status().expect("cargo runs").success(), "the stand-in for CrateDB does not build");
        let profile =
            Path::new(env!("CARGO_BIN_EXE_crate-discovery")).parent().expect("it is in a directory");
        let stand_in = profile.join("examples/cratedb-stand-in");
        pack("stand-in", &[(&stand_in, "crate"), (&stand_in, "usr/bin/curl")])
    })
}

/// An image that has the etcd and the etcdctl in `PATH`. Made once.
pub fn etcd_image() -> &'static str {
    static IMAGE: OnceLock<()> = OnceLock::new();
    const NAME: &str = "crate-discovery-test/etcd";
    IMAGE.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let find = |program: &str| {
            let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
            found.unwrap_or_else(|| panic!("{program} is not in PATH: see .ci/install etcd"))
        };
        let (etcd, etcdctl) = (find("etcd"), find("etcdctl"));
        let programs = [(etcd.as_path(), "usr/local/bin/etcd"), (&etcdctl, "usr/local/bin/etcdctl")];
        import(&pack("etcd", &programs), NAME, &[]);
    });
    NAME
}

/// Makes an image of a tar, with these changes, as `docker import` takes them, in the place of the one that had its name.
pub fn import(tar: &Path, image: &str, changes: &[&str]) {
    let before = try_docker(&["image", "inspect", "--format", "{{.Id}}", image]);
    let changes: Vec<&str> = changes.iter().flat_map(|change| ["--change", change]).collect();
    run_docker(&[&["import"], &changes[..], &[&tar.display().to_string(), image]].concat());
    if let Ok(before) = before {
        // It may be in use, by another run of these tests.
        let _ = try_docker(&["image", "rm", &before]);
    }
}

/// Packs programs, each with its place, and the libraries that they load.
fn pack(name: &str, programs: &[(&Path, &str)]) -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = TempDir::new_in(kept).unwrap();
    let root = dir.path().join("root");
    for (program, place) in programs {
        copy(program, &root.join(place));
        for library in libraries(program) {
            copy(&library, &root.join(library.strip_prefix("/").expect("ldd names whole paths")));
        }
    }
    for directory in ["data", "tmp"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let packed = dir.path().join("tar");
    let made = Command::new("tar").arg("-C").arg(&root).args(["-c", "-f"]).arg(&packed).arg(".").status();
    assert!(made.expect("tar runs").success(), "the file system of {name} cannot be packed");
    let tar = kept.join(format!("{name}.tar"));
    fs::rename(packed, &tar).unwrap();
    tar
}

fn libraries(binary: &Path) -> Vec<PathBuf> {
    // Of a static binary it prints none, and fails.
    let listed = Command::new("ldd").arg(binary).output().expect("ldd runs");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    listed.lines().filter_map(path).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a file is in a directory")).unwrap();
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// A bridge of its own, on which containers know each other by name.
pub struct Network {
    name: String,
    gateway: Ipv4Addr,
}

impl Network {
    /// Makes one.
    pub fn create() -> Self {
        let name = unique("net");
        run_docker(&["network", "create", "--label", LABEL, &name]);
        let gateway = run_docker(&[
            "network",
            "inspect",
            "--format",
            "{{range .IPAM.Config}}{{.Gateway}}{{end}}",
            &name,
        ]);
        Self { gateway: gateway.parse().expect("the engine gives a gateway"), name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where this machine is, for those on it.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// An etcd on this machine that containers on the network reach, and its URL for them.
    pub fn etcd(&self) -> (Etcd, String) {
        let mut etcd = self.etcd_to_be();
        etcd.launch();
        assert!(etcd.comes_up(), "etcd ended at its start:\n{}", etcd.log_tail());
        let url = self.url(&etcd);
        (etcd, url)
    }

    /// As [`Network::etcd`], not started yet.
    pub fn etcd_to_be(&self) -> Etcd {
        let mut etcd = Etcd::unstarted(&[], false);
        let both = format!("{},{}", etcd.url(), self.url(&etcd));
        etcd.add_flags(&["--listen-client-urls", &both]);
        etcd
    }

    /// The address of a container on it.
    #[track_caller]
    pub fn address_of(&self, container: &Container) -> String {
        container.inspect(&format!("{{{{(index .NetworkSettings.Networks {:?}).IPAddress}}}}", self.name))
    }

    /// Where containers reach `etcd`.
    pub fn url(&self, etcd: &Etcd) -> String {
        format!("http://{}:{}", self.gateway, etcd.port())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What is still attached is another failure's.
        let _ = try_docker(&["network", "rm", &self.name]);
    }
}

/// A container; removed when dropped.
pub struct Container {
    name: String,
}

impl Container {
    /// Creates one with these arguments of `docker create`, the image among them.
    #[track_caller]
    pub fn create(args: &[&str]) -> Self {
        let name = unique("c");
        run_docker(&[&["create", "--label", LABEL, "--name", &name], args].concat());
        Self { name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it.
    #[track_caller]
    pub fn start(&self) {
        run_docker(&["start", &self.name]);
    }

    /// Runs a command in it: what it printed, or what it complained of.
    pub fn try_exec(&self, command: &[&str]) -> Result<String, String> {
        try_docker(&[&["exec", &self.name], command].concat())
    }

    /// Runs a command in it: what it printed.
    #[track_caller]
    pub fn exec(&self, command: &[&str]) -> String {
        self.try_exec(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Copies what is in directory `from` to `/` in it.
    #[track_caller]
    pub fn copy_in(&self, from: &Path) {
        let from = format!("{}/.", from.display());
        run_docker(&["cp", &from, &format!("{}:/", self.name)]);
    }

    /// Writes a file in it that anybody may read.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let dir = scratch();
        let file = dir.path().join("file");
        fs::write(&file, text).unwrap();
        run_docker(&["cp", &file.display().to_string(), &format!("{}:{path}", self.name)]);
    }

    /// What `docker inspect` says with this format.
    #[track_caller]
    pub fn inspect(&self, format: &str) -> String {
        run_docker(&["inspect", "--format", format, &self.name])
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn has_ended(&self, within: Duration) {
        eventually("the container ends", within, || match self.inspect("{{.State.Running}}").as_str() {
            "false" => Ok(()),
            other => Err(other.to_owned()),
        });
    }

    /// What it said.
    pub fn logs(&self) -> String {
        let done = docker().args(["logs", &self.name]).output().expect("docker runs");
        [done.stdout, done.stderr].iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = try_docker(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// A name that no other test has.
pub fn unique(what: &str) -> String {
    let name =
        scratch().path().file_name().expect("a scratch directory has a name").to_string_lossy().into_owned();
    format!("cdt-{what}-{}", name.trim_start_matches('.').to_lowercase())
}

/// Fails, with a sentence, where no engine answers.
pub fn engine_answers() {
    let answer = eventually("the docker engine answers", PATIENCE, || {
        try_docker(&["info", "--format", "{{.ServerVersion}}"])
    });
    assert!(
        !answer.is_empty(),
        "no docker engine answers: start one, or run the tests through .ci/with-docker"
    );
}
