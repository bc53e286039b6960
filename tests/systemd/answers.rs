//! What root takes over of the answers that crate-seeds@.service writes, whose account is not root: lines of one form,
//! each once, and nothing else, whatever lies there.

use crate::{
    NODE, SEEDS, endpoints,
    host::{Host, UNIT_PATIENCE},
    support::{engine::Network, eventually},
};

/// Where the account writes its answers.
const SEEDS_FOUND: &str = "/run/crate-seeds-1/seeds.env";
const ANSWER: &str = "/run/crate-seeds-1/bootstrap.env";

/// What crate@.service says where there is no answer.
const SENTENCE: &str = "not started: crate-seeds@1.service has not said who may elect the first master.";

/// A host whose crate-seeds@.service runs what a test writes, as its own account in its own sandbox.
struct Forged {
    host: Host,
    _network: Network,
}

impl Forged {
    fn boot() -> Self {
        let network = Network::create();
        let host = Host::boot(&network, "h1", &[]);
        host.write(
            "/etc/systemd/system/crate-seeds@.service.d/forged.conf",
            "[Service]\nExecStart=\nExecStart=/bin/sh /etc/forged\nTimeoutStartSec=20\n",
        );
        // A program that would be loaded by whatever root runs, if root took that line over.
        host.systemctl(&["daemon-reload"]);
        Self { host, _network: network }
    }

    /// Starts the node with these answers: commands of the account's shell. Both files are gone before.
    fn start(&self, commands: &str) {
        let host = &self.host;
        host.systemctl(&["stop", NODE]);
        host.exec(&["rm", "-rf", SEEDS_FOUND, ANSWER]);
        host.write("/etc/forged", &format!("umask 022\n{commands}\n"));
        host.systemctl(&["start", "--no-block", NODE]);
    }

    /// Waits until the node was started for the `nth` time.
    #[track_caller]
    fn is_started(&self, nth: usize, case: &str) {
        eventually(&format!("the node is started: {case}"), UNIT_PATIENCE, || match self.host.starts() {
            n if n == nth => Ok(()),
            n => Err(format!("{n} times\n{}", self.host.journal(NODE))),
        });
    }
}

/// Answers of the right form.
const GOOD: &str = "echo CRATE_BOOTSTRAP_FLAGS= >/run/crate-seeds-1/bootstrap.env";

#[test]
fn seeds_of_another_form_are_none_and_the_node_starts() {
    let forged = Forged::boot();
    let host = &forged.host;
    let seeds =
        |node: &Host| node.node_flags().into_iter().find(|flag| flag.starts_with("-Cdiscovery.seed_hosts="));
    let mut starts = 0;
    let mut starts_with = |commands: &str, expected: Option<&str>| {
        forged.start(&format!("{GOOD}\n{}", commands.replace("FILE", SEEDS_FOUND)));
        starts += 1;
        forged.is_started(starts, commands);
        assert_eq!(seeds(host).as_deref(), expected, "{commands}");
    };
    let good = "CRATE_SEED_FLAGS=-Cdiscovery.seed_hosts=a:4300,[::1]:4300";
    starts_with(&format!("echo '{good}' >FILE"), Some("-Cdiscovery.seed_hosts=a:4300,[::1]:4300"));
    starts_with(
        &format!("printf '%s\\n' CRATE_SEED_HOSTS=a:4300,[::1]:4300 '{good}' >FILE"),
        Some("-Cdiscovery.seed_hosts=a:4300,[::1]:4300"),
    );
    // What else stands there is not taken over.
    starts_with(
        &format!(
            "printf '%s\\n' LD_PRELOAD=/tmp/evil.so DOCKER_HOST=tcp://evil CRATE_IMAGE=evil '{good}' >FILE"
        ),
        Some("-Cdiscovery.seed_hosts=a:4300,[::1]:4300"),
    );
    assert_eq!(
        host.exec(&["cat", "/run/crate-1/seeds.env"]),
        "CRATE_SEED_FLAGS=-Cdiscovery.seed_hosts=a:4300,[::1]:4300"
    );
    let many = "$(seq -s , 1 51)";
    for commands in [
        "true",
        "echo CRATE_SEED_FLAGS= >FILE",
        &format!("printf '%s\\n' '{good}' '{good}' >FILE"),
        &format!("echo '{good} -Cnode.name=evil' >FILE"),
        &format!("echo '{good};reboot' >FILE"),
        &format!("printf '%s\\r\\n' '{good}' >FILE"),
        &format!("printf '%s\\\\\\nLD_PRELOAD=x\\n' '{good}' >FILE"),
        &format!("echo \"CRATE_SEED_FLAGS=-Cdiscovery.seed_hosts={many}\" >FILE"),
        "echo 'CRATE_SEED_FLAGS=-Cnode.name=evil' >FILE",
        "ln -s /etc/shadow FILE",
        "ln -s /dev/zero FILE",
        "mkfifo FILE",
        "mkdir FILE",
        "head -c 1000000 /dev/zero | tr '\\0' a >FILE; echo >>FILE; echo CRATE_SEED_FLAGS=-Cdiscovery.seed_hosts=late >>FILE",
    ] {
        starts_with(commands, None);
    }
}

#[test]
fn answer_of_another_form_starts_no_node_and_one_of_the_right_form_does() {
    let forged = Forged::boot();
    let host = &forged.host;
    let said = || host.journal(NODE).matches(SENTENCE).count();
    let good = "CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=h1,h2";
    for commands in [
        "true",
        "exit 1",
        ": >FILE",
        "echo LD_PRELOAD=/tmp/evil.so >FILE",
        &format!("printf '%s\\n' '{good}' LD_PRELOAD=/tmp/evil.so >FILE"),
        &format!("printf '%s\\n' '{good}' '{good}' >FILE"),
        &format!("echo '{good} --privileged' >FILE"),
        &format!("printf '%s\\r\\n' '{good}' >FILE"),
        &format!("echo '{good},' >FILE"),
        "echo \"CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=$(seq -s , 1 51)\" >FILE",
        "ln -s /etc/shadow FILE",
        "ln -s /dev/zero FILE",
        "mkfifo FILE",
        "mkdir FILE",
        "head -c 1000000 /dev/zero | tr '\\0' a >FILE",
    ] {
        let before = said();
        forged.start(&commands.replace("FILE", ANSWER));
        eventually(&format!("it says why: {commands}"), UNIT_PATIENCE, || match said() {
            n if n > before => Ok(()),
            _ => Err(host.journal(NODE)),
        });
        assert_eq!(host.starts(), 0, "{commands}");
    }
    // It goes on trying, so that a good answer is enough. Something that cannot be removed as a file is no answer of ours.
    host.systemctl(&["stop", NODE]);
    forged.start(&format!("echo '{good}' >{ANSWER}"));
    forged.is_started(1, good);
    assert_eq!(host.first_masters().as_deref(), Some("h1,h2"));
    assert!(host.try_exec(&["test", "-e", ANSWER]).is_err(), "the answer is taken once");
}

#[test]
fn no_answer_is_used_twice_nor_that_of_another_start() {
    let network = Network::create();
    let (_etcd, url) = network.etcd();
    let host = Host::boot(&network, "h1", &[&endpoints(&url), "CRATE_BOOTSTRAP_EXPECT=1"]);
    host.systemctl(&["start", NODE]);
    host.is_with(&["h1"]);
    assert_eq!(host.first_masters().as_deref(), Some("h1"));
    assert!(host.try_exec(&["test", "-e", ANSWER]).is_err(), "it was taken");
    // A start of a node that runs asks, too, and leaves an answer that nobody takes.
    host.systemctl(&["start", NODE]);
    host.exec(&[
        "sh",
        "-c",
        &format!("echo CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=old >{ANSWER}"),
    ]);
    host.systemctl(&["restart", NODE]);
    host.is_with(&["h1"]);
    assert_eq!(host.starts(), 2);
    assert_ne!(host.first_masters().as_deref(), Some("old"));

    // Nor where the question of this start could not be asked.
    host.exec(&[
        "sh",
        "-c",
        &format!("echo CRATE_BOOTSTRAP_FLAGS=-Ccluster.initial_master_nodes=old >{ANSWER}"),
    ]);
    host.write_settings("1.env", &["CRATE_BOOTSTRAP_EXPECT=many"]);
    host.systemctl(&["restart", "--no-block", NODE]);
    eventually("it says that it was not started", UNIT_PATIENCE, || {
        match host.journal(NODE).matches(SENTENCE).count() {
            0 => Err(host.journal(NODE)),
            _ => Ok(()),
        }
    });
    assert_eq!(host.starts(), 2);
    host.write_settings("1.env", &[]);
    host.is_with(&["h1"]);
}

#[test]
fn unit_that_is_not_installed_starts_no_node_and_is_taken_up_when_it_is() {
    let network = Network::create();
    let (_etcd, url) = network.etcd();
    let host = Host::boot(&network, "h1", &[&endpoints(&url)]);
    let unit = "/usr/local/lib/systemd/system/crate-seeds@.service";
    host.exec(&["mv", unit, "/root/unit"]);
    host.systemctl(&["daemon-reload"]);
    host.systemctl(&["start", "--no-block", NODE]);
    eventually("it says so, more than once", UNIT_PATIENCE, || {
        match host.journal(NODE).matches(SENTENCE).count() {
            0 | 1 => Err(host.journal(NODE)),
            _ => Ok(()),
        }
    });
    assert_eq!(host.starts(), 0);
    host.exec(&["mv", "/root/unit", unit]);
    host.systemctl(&["daemon-reload"]);
    host.becomes(NODE, "ActiveState", "active");
}

#[test]
fn question_runs_in_the_sidekicks_account_and_not_as_root() {
    let forged = Forged::boot();
    forged.start(&format!("{GOOD}\nid -un >/var/lib/crate-discovery/who\ntouch /etc/evil /run/evil"));
    forged.is_started(1, "whoever asks");
    let host = &forged.host;
    assert_eq!(host.exec(&["cat", "/var/lib/crate-discovery/who"]), "crate-discovery");
    assert!(host.try_exec(&["ls", "/etc/evil"]).is_err() && host.try_exec(&["ls", "/run/evil"]).is_err());
    assert_eq!(host.property(SEEDS, "User"), "crate-discovery");
    // Nothing of ours is run by the node's unit, which is root.
    let commands =
        host.systemctl(&["show", NODE, "--property", "ExecStart,ExecStartPre,ExecStop,ExecStopPost"]);
    assert!(!commands.contains("bin/crate-discovery"), "{commands}");
}
