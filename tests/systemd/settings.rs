//! What an operator may set without touching a unit, and what systemd thinks of the units.

use std::time::Duration;

use crate::{
    IMAGE, NODE, SEEDS, SIDEKICK, endpoints,
    host::{Host, UNIT_PATIENCE},
    key,
    support::{engine::Network, eventually, key_of, observer::Observer, stays},
};

#[test]
fn environment_files_change_host_ports_and_checks_and_the_last_one_counts() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let observer = Observer::start(&etcd);
    let host = Host::boot(
        &network,
        "h1",
        &[&endpoints(&url), "CRATE_DISCOVERY_HOST=overridden", "CRATE_DISCOVERY_PSQL=5432"],
    );
    host.write_settings(
        "1.env",
        &[
            "CRATE_DISCOVERY_HOST=db7",
            "CRATE_DISCOVERY_HTTP=80",
            "CRATE_DISCOVERY_CHECK=tcp://127.0.0.1:4300",
        ],
    );
    // Without the second check a node that does not answer is announced.
    host.steer("hang");
    host.systemctl(&["start", NODE]);
    let put = observer.next_put(&key_of("db7"), 0, UNIT_PATIENCE);
    assert_eq!(put.value, r#"{"http":80,"transport":4300,"psql":5432}"#);
    assert_eq!(etcd.announced(), [key_of("db7")]);
}

#[test]
fn password_comes_from_a_file_or_from_a_credential() {
    let network = Network::create();
    let (mut etcd, url) = network.etcd();
    etcd.enable_auth(&[(
        "h1",
        "secret",
        &[&["readwrite", &key()], &["--prefix=true", "read", "/services/crate/"]],
    )]);
    let login = [endpoints(&url), "ETCDCTL_USER=h1".to_owned()];
    let host = Host::boot(&network, "h1", &login.each_ref().map(String::as_str));
    host.write_settings("password", &["secret"]);
    host.write_settings("1.env", &["CRATE_DISCOVERY_PASSWORD_FILE=/etc/crate-discovery/password"]);
    host.systemctl(&["start", NODE]);
    let announced = || {
        eventually("the key is there", UNIT_PATIENCE, || {
            etcd.key(&key()).ok_or_else(|| format!("{}\n{}", host.journal(SIDEKICK), host.journal(NODE)))
        })
    };
    announced();
    host.systemctl(&["stop", NODE]);
    assert_eq!(etcd.key(&key()), None);

    // In a container what systemd mounts for a unit has to be let through.
    host.exec(&["mount", "--make-rshared", "/"]);
    host.exec(&["rm", "/etc/crate-discovery/1.env", "/etc/crate-discovery/password"]);
    host.write("/etc/credstore/etcd-password", "secret\n");
    for unit in ["crate-discovery@", "crate-seeds@"] {
        let drop_in = format!("/etc/systemd/system/{unit}.service.d/credential.conf");
        host.write(&drop_in, "[Service]\nLoadCredential=etcd-password\n");
    }
    host.systemctl(&["daemon-reload"]);
    host.systemctl(&["start", NODE]);
    announced();
    let environment = host.systemctl(&["show", "--property", "Environment", SIDEKICK]);
    assert!(!environment.contains("secret"), "{environment}");
}

#[test]
fn rejected_setting_fails_the_unit_once_and_in_words() {
    let network = Network::create();
    let (etcd, url) = network.etcd();
    let host = Host::boot(&network, "h1", &[&endpoints(&url), "CRATE_DISCOVERY_TTL=1s"]);
    host.systemctl(&["start", NODE]);
    host.becomes(SIDEKICK, "ActiveState", "failed");
    // Longer than a restart waits.
    stays("the sidekick is not started again", Duration::from_secs(4), &"0".to_owned(), || {
        host.property(SIDEKICK, "NRestarts")
    });
    assert_eq!(host.property(SIDEKICK, "ExecMainStatus"), "2");
    let errors = host.exec(&["journalctl", "--no-pager", "-o", "cat", "-p", "err", "-t", "crate-discovery"]);
    assert!(errors.starts_with(r#"error: invalid value "1s" for "--ttl""#), "{errors}");
    assert_eq!(host.property(NODE, "ActiveState"), "active", "the node is not to blame");

    host.write_settings("crate-discovery.env", &[&endpoints(&url)]);
    host.systemctl(&["start", SIDEKICK]);
    eventually("the key is there", UNIT_PATIENCE, || etcd.key(&key()).ok_or_else(|| "no key".to_owned()));
}

#[test]
fn journal_has_priorities_and_one_time_a_line() {
    let network = Network::create();
    let (_etcd, url) = network.etcd();
    // One endpoint that refuses, one that answers.
    let host = Host::boot(&network, "h1", &[&format!("{},http://127.0.0.1:1", endpoints(&url))]);
    host.systemctl(&["start", NODE]);
    let lines = |args: &[&str]| {
        let all = [
            "journalctl",
            "--no-pager",
            "-o",
            "cat",
            "-t",
            "crate-discovery",
            "_SYSTEMD_UNIT=crate-discovery@1.service",
        ];
        host.exec(&[&all, args].concat()).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("the sidekick says that it is announced", UNIT_PATIENCE, || {
        let said = lines(&["-p", "info"]);
        if said.iter().any(|line| line.starts_with(" INFO announced ")) {
            Ok(())
        } else {
            Err(format!("{said:#?}"))
        }
    });
    assert!(lines(&["-p", "info"])[0].starts_with(" INFO starting "), "{:?}", lines(&[]));
    let warnings = lines(&["-p", "warning"]);
    assert!(warnings.iter().all(|line| line.starts_with(" WARN ")), "{warnings:#?}");
}

/// Of each unit: how much of the machine it could do, in tenths, as `systemd-analyze security` counts. What runs docker
/// can do everything.
const EXPOSURE: [(&str, u32); 4] = [(SIDEKICK, 11), (SEEDS, 15), (NODE, 96), (IMAGE, 96)];

#[test]
fn systemd_has_nothing_to_say_about_the_units_and_trusts_the_sandboxes() {
    let network = Network::create();
    let host = Host::boot(&network, "h1", &[]);
    let units = [NODE, SIDEKICK, SEEDS, IMAGE].join(" ");
    let verify = host.exec(&["sh", "-c", &format!("systemd-analyze verify {units} 2>&1")]);
    assert_eq!(verify, "");
    for (unit, most) in EXPOSURE {
        let threshold = format!("--threshold={most}");
        let judged = host.try_exec(&["systemd-analyze", "--no-pager", "security", &threshold, unit]);
        assert!(judged.is_ok(), "{judged:?}");
        println!("{}", judged.unwrap().lines().last().unwrap_or_default());
    }
    let sysctl = host.exec(&["systemd-analyze", "cat-config", "sysctl.d/60-crate.conf"]);
    assert!(sysctl.contains("vm.max_map_count = 262144"), "{sysctl}");
}
