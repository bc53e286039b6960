//! `bootstrap`: one list of first masters for everybody, once per cluster. What is stored is read back
//! through `etcdctl`; what is handed out is what the binary prints.

#[path = "../support/mod.rs"]
mod support;

mod aftermath;
mod answers;
mod formed;
mod operator;
mod remembers;
mod transactions;
mod trials;

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use support::{
    PATIENCE,
    daemon::{Finished, run, tool},
    etcd::Etcd,
    eventually, signal,
};

/// What is stored for the first election under the default prefix.
pub const STORED: &str = "/services/crate.meta/bootstrap/";

/// `bootstrap` for the node `name` of `expect`, with more arguments. The hold is so short that only the tests about it
/// wait for it.
pub fn ask(etcd: &Etcd, name: &str, expect: u32, args: &[&str]) -> Command {
    let mut command = tool();
    command.args(["bootstrap", "--endpoints", &etcd.url()]);
    command.args(["--node-name", name, "--expect", &expect.to_string()]);
    if !args.contains(&"--hold") {
        command.args(["--hold", "100ms"]);
    }
    command.args(args);
    command
}

/// `bootstrap` as an operator has it.
pub fn operate(etcd: &Etcd, args: &[&str]) -> Finished {
    let mut command = tool();
    command.args(["bootstrap", "--endpoints", &etcd.url()]).args(args);
    run(command)
}

/// What `--show` prints after `what` and a tab.
#[track_caller]
pub fn shown(etcd: &Etcd, what: &str) -> Vec<String> {
    let printed = operate(etcd, &["--show"]).printed();
    let lines = printed.lines().filter_map(|line| line.strip_prefix(&format!("{what}\t")));
    lines.map(str::to_owned).collect()
}

/// A process that is waiting for its answer.
pub struct Asking(Option<Child>);

impl Asking {
    /// Starts it; see [`ask`].
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().expect("the binary starts")))
    }

    /// Starts it, and waits until `name` is a candidate.
    #[track_caller]
    pub fn registered(etcd: &Etcd, name: &str, expect: u32) -> Self {
        let asking = Self::start(ask(etcd, name, expect, &[]));
        eventually("it is registered", PATIENCE, || {
            let key = format!("{STORED}candidates/{name}");
            etcd.key(&key).map(drop).ok_or_else(|| "no candidate".to_owned())
        });
        asking
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.as_ref().expect("it runs").id()
    }

    /// Sends it a signal, and waits for its end.
    #[track_caller]
    pub fn end(self, number: Signal) -> Finished {
        signal(self.pid(), number);
        self.finish(PATIENCE)
    }

    /// Ends it with SIGKILL; what it had printed.
    pub fn kill(mut self) -> String {
        let mut child = self.0.take().expect("it runs");
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self, within: Duration) -> Finished {
        // Ours until it has ended, so that it is ended where it does not end.
        let child = self.0.as_mut().expect("it runs");
        let status =
            eventually("it ends", within, || child.try_wait().unwrap().ok_or_else(|| "it waits".to_owned()));
        let output = self.0.take().expect("it ran").wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = std::os::unix::process::ExitStatusExt::signal(&status);
        Finished {
            code: status.code().or(code.map(|signal| 128 + signal)).unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Errors mean that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
