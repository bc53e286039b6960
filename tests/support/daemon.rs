//! The real binary: as a daemon that goes on, or as a command that ends.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{PATIENCE, etcd::Etcd, eventually, freeze, signal, thaw};

/// The binary with an environment that holds nothing but `PATH`.
pub fn tool() -> Command {
    tool_behind(env!("CARGO_BIN_EXE_crate-discovery"), &[])
}

/// Copies the binary to `place`, for a user who may not reach the original. Another process does it: what is started beside
/// this would inherit a file that is open for writing here, and nobody could run it then ("text file busy").
pub fn copy_binary(place: &std::path::Path) {
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_crate-discovery")).arg(place).status();
    assert!(copied.expect("cp runs").success(), "the binary cannot be copied to {}", place.display());
}

/// As [`tool`], started through `program`, whose last argument becomes the binary.
pub fn tool_behind(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null());
    command
}

/// `hosts` on this etcd, with its certificates if it wants any.
pub fn hosts(etcd: &Etcd, args: &[&str]) -> Command {
    let mut command = tool();
    command.arg("hosts");
    connect(&mut command, etcd);
    command.args(args);
    command
}

/// `watch` on this etcd.
pub fn watch(etcd: &Etcd, args: &[&str]) -> Command {
    let mut command = tool();
    command.arg("watch");
    connect(&mut command, etcd);
    command.args(args);
    command
}

/// `announce` for `host` on this etcd. The TTL of 5 s comes from the environment, so that a test may
/// still give `--ttl`.
pub fn announce(etcd: &Etcd, host: &str, args: &[&str]) -> Command {
    let mut command = tool();
    command.arg("announce");
    connect(&mut command, etcd);
    command.args(["--host", host]).args(args).env("CRATE_DISCOVERY_TTL", "5s");
    command
}

fn connect(command: &mut Command, etcd: &Etcd) {
    command.args(["--endpoints", &etcd.url()]);
    if etcd.url().starts_with("https") {
        let pki = etcd.pki();
        command
            .args(["--cacert".as_ref(), pki.ca.as_os_str()])
            .args(["--cert".as_ref(), pki.cert.as_os_str()])
            .args(["--key".as_ref(), pki.key.as_os_str()]);
    }
}

/// A running process. Killed when dropped; a failing test then shows what it said.
pub struct Daemon {
    child: Child,
    name: String,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    code: Option<i32>,
}

impl Daemon {
    /// Starts `announce` for `host`; see [`announce`]. Does not wait for anything.
    pub fn announce(etcd: &Etcd, host: &str, args: &[&str]) -> Self {
        Self::spawn(announce(etcd, host, args))
    }

    /// Starts `announce` for `host` and waits until it says that it is announced.
    pub fn announced(etcd: &Etcd, host: &str, args: &[&str]) -> Self {
        let mut daemon = Self::announce(etcd, host, args);
        daemon.says("announced", PATIENCE);
        daemon
    }

    /// Starts `command`; nobody reads its stdout.
    pub fn spawn(command: Command) -> Self {
        Self::spawn_writing_to(command, Stdio::null(), Stdio::piped())
    }

    /// As [`Daemon::spawn`], with its stdout read into [`Daemon::stdout`].
    pub fn spawn_printing(command: Command) -> Self {
        Self::spawn_writing_to(command, Stdio::piped(), Stdio::piped())
    }

    /// As [`Daemon::spawn`], with its stderr elsewhere: then nothing of it is known here.
    pub fn spawn_logging_to(command: Command, stderr: Stdio) -> Self {
        Self::spawn_writing_to(command, Stdio::null(), stderr)
    }

    /// Starts `command`; what it writes to a pipe is read.
    pub fn spawn_writing_to(mut command: Command, stdout: Stdio, stderr: Stdio) -> Self {
        let mut child = command.stdout(stdout).stderr(stderr).spawn().expect("the binary starts");
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = [
            child.stdout.take().map(|pipe| collect(pipe, Arc::clone(&stdout))),
            child.stderr.take().map(|pipe| collect(pipe, Arc::clone(&stderr))),
        ];
        let readers = readers.into_iter().flatten().collect();
        Self { child, name: format!("{command:?}"), stdout, stderr, readers, code: None }
    }

    /// Everything that it printed so far, where that is read.
    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    /// Waits until it has printed exactly this since its start.
    #[track_caller]
    pub fn prints(&mut self, expected: &str, within: Duration) {
        eventually(&format!("prints {expected:?}"), within, || {
            let stdout = self.stdout();
            if stdout == expected {
                return Ok(());
            }
            assert!(self.ended().is_none(), "ended with {:?} after printing {stdout:?}", self.code);
            Err(stdout)
        });
    }

    /// Everything that it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Its log lines that begin with `message`; see [`message_of`].
    pub fn lines(&self, message: &str) -> Vec<String> {
        let stderr = self.stderr();
        stderr.lines().filter(|line| message_of(line).starts_with(message)).map(str::to_owned).collect()
    }

    /// Waits for the first log line that begins with `message`, and returns it.
    #[track_caller]
    pub fn says(&mut self, message: &str, within: Duration) -> String {
        self.says_times(message, 1, within).remove(0)
    }

    /// Waits for at least `times` log lines that begin with `message`, and returns them.
    #[track_caller]
    pub fn says_times(&mut self, message: &str, times: usize, within: Duration) -> Vec<String> {
        eventually(&format!("says {message:?} {times} times"), within, || {
            let lines = self.lines(message);
            if lines.len() >= times {
                return Ok(lines);
            }
            assert!(self.ended().is_none(), "ended with {:?} instead of saying {message:?}", self.code);
            Err(format!("{} times", lines.len()))
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, number: Signal) {
        signal(self.pid(), number);
    }

    /// Stops it in its tracks.
    pub fn freeze(&self) {
        freeze(self.pid());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        thaw(self.pid());
    }

    /// Its exit code as a shell has it, if it ended.
    pub fn ended(&mut self) -> Option<i32> {
        if self.code.is_none() {
            self.code = self.child.try_wait().unwrap().map(shell_code);
            if self.code.is_some() {
                // Only now everything that it said has arrived.
                self.readers.drain(..).for_each(|reader| reader.join().unwrap());
            }
        }
        self.code
    }

    /// Waits until it ends; its exit code as a shell has it.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> i32 {
        eventually("the process ends", within, || self.ended().ok_or_else(|| "it runs".to_owned()))
    }

    /// Sends `number` and waits for the exit code.
    #[track_caller]
    pub fn end(&mut self, number: Signal, within: Duration) -> i32 {
        self.signal(number);
        self.wait(within)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {}\nended: {:?}; stderr:\n{}", self.name, self.code, self.stderr());
        }
    }
}

/// What is left of a log line after `<time> <LEVEL> `.
pub fn message_of(line: &str) -> &str {
    let mut rest = line.trim_start();
    for _ in 0..2 {
        rest = rest.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
    }
    rest
}

/// The value of `name=` in a log line, without its quotes.
pub fn field(line: &str, name: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!(" {name}="))?;
    Some(match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?.0.to_owned(),
        None => rest.split(' ').next()?.to_owned(),
    })
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// The exit code as a shell has it: 128 + n for signal n.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Finished {
    /// What it printed, if it ended well.
    #[track_caller]
    pub fn printed(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }
}

/// Runs `command` to its end, which must come within `within`.
#[track_caller]
pub fn run_within(mut command: Command, within: Duration) -> Finished {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let stdout = drain(child.stdout.take().expect("stdout is piped"));
    let stderr = drain(child.stderr.take().expect("stderr is piped"));
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() > within => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("not within {within:?}: {command:?} ends; stderr:\n{}", stderr.join().unwrap());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    Finished { code: shell_code(status), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// [`run_within`] the usual patience.
#[track_caller]
pub fn run(command: Command) -> Finished {
    run_within(command, PATIENCE)
}

/// Reads a pipe line by line, for as long as anybody writes to it.
fn collect(pipe: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().expect("it was a signal then"))
}
