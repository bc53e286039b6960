//! `make install` and `make uninstall`, into a directory of their own.

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use support::{
    daemon::{Finished, run},
    etcd::scratch,
};

fn make(target: &str, destination: &Path, more: &[&str]) -> Finished {
    let mut command = Command::new("make");
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["--silent", target])
        .arg(format!("DESTDIR={}", destination.display()))
        .arg(concat!("BINARY=", env!("CARGO_BIN_EXE_crate-discovery")))
        .args(more);
    run(command)
}

/// Every file under `root`, with its mode.
fn files(root: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                found.push((path.strip_prefix(root).unwrap().to_owned(), mode));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn install_puts_everything_where_systemd_looks_and_uninstall_takes_it_away() {
    for (prefix, units, sysusers, sysctl) in [
        ("/usr/local", "usr/local/lib/systemd/system", "usr/local/lib/sysusers.d", "usr/local/lib/sysctl.d"),
        ("/usr", "usr/lib/systemd/system", "usr/lib/sysusers.d", "usr/lib/sysctl.d"),
        // systemd reads nothing under /opt.
        ("/opt", "etc/systemd/system", "etc/sysusers.d", "etc/sysctl.d"),
    ] {
        let root = scratch();
        let installed = make("install", root.path(), &[&format!("PREFIX={prefix}")]);
        assert_eq!(installed.code, 0, "{}", installed.stderr);
        let under = prefix.trim_start_matches('/');
        let mut expected = vec![
            (format!("{under}/bin/crate-discovery").into(), 0o755),
            (format!("{under}/share/doc/crate-discovery/crate-discovery.env.example").into(), 0o644),
            (format!("{units}/crate@.service").into(), 0o644),
            (format!("{units}/crate-discovery@.service").into(), 0o644),
            (format!("{units}/crate-image@.service").into(), 0o644),
            (format!("{sysusers}/crate-discovery.conf").into(), 0o644),
            (format!("{sysctl}/60-crate.conf").into(), 0o644),
        ];
        expected.sort();
        assert_eq!(files(root.path()), expected, "{prefix}");

        let binary = format!("{prefix}/bin/crate-discovery");
        for unit in ["crate@.service", "crate-discovery@.service"] {
            let text = fs::read_to_string(root.path().join(units).join(unit)).unwrap();
            let called: Vec<_> = text
                .lines()
                .filter(|line| line.starts_with("Exec") && line.contains("/bin/crate-discovery"))
                .collect();
            assert!(
                !called.is_empty() && called.iter().all(|line| line.contains(&binary)),
                "{unit}: {called:?}"
            );
        }
        assert_eq!(make("uninstall", root.path(), &[&format!("PREFIX={prefix}")]).code, 0);
        assert_eq!(files(root.path()), [], "{prefix}");
    }
}

#[test]
fn install_of_what_is_not_built_says_what_to_do() {
    let root = scratch();
    let finished = make("install", root.path(), &["BINARY=/nowhere/crate-discovery"]);
    assert_ne!(finished.code, 0);
    assert!(
        finished.stderr.starts_with("error: /nowhere/crate-discovery is not there: run make build first\n"),
        "{}",
        finished.stderr
    );
    assert_eq!(files(root.path()), []);
}

#[test]
fn units_agree_on_what_they_share() {
    let read = |name: &str| {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)).unwrap()
    };
    let line = |text: &str, start: &str| {
        text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect::<Vec<_>>()
    };
    let (node, sidekick, image) =
        (read("crate@.service"), read("crate-discovery@.service"), read("crate-image@.service"));
    for other in [&sidekick, &image] {
        assert_eq!(line(&node, "EnvironmentFile=-/etc/"), line(other, "EnvironmentFile=-/etc/"));
    }
    assert_eq!(line(&node, "Environment=CRATE_IMAGE="), line(&image, "Environment=CRATE_IMAGE="));
    assert_eq!(
        line(&node, "Environment=CRATE_DISCOVERY_HOST="),
        line(&sidekick, "Environment=CRATE_DISCOVERY_HOST=")
    );

    // The example documents each variable that a unit sets or passes on, with the unit's own default.
    let example = read("crate-discovery.env.example");
    let set = [&node, &sidekick, &image].map(|unit| line(unit, "Environment=")).concat();
    let set = set
        .iter()
        .flat_map(|line| line["Environment=".len()..].split(' ').map(str::to_owned).collect::<Vec<_>>());
    // These two are the program's to set.
    let is_made = |assignment: &String| {
        ["CRATE_SEED_FLAGS", "CRATE_BOOTSTRAP_FLAGS"].iter().any(|name| assignment.starts_with(name))
    };
    for assignment in set.filter(|assignment| !is_made(assignment)) {
        let (name, default) = assignment.split_once('=').unwrap();
        assert!(example.contains(&format!("{name}=")), "{name} is not in the example");
        assert!(
            default.is_empty() || default == "%H" || example.contains(&format!("Default: {default}")),
            "{assignment}"
        );
    }
    for passed in node.lines().filter_map(|line| line.trim().strip_prefix("--env ")) {
        let name = passed.trim_end_matches([' ', '\\']);
        assert!(example.contains(&format!("{name}=")), "{name} is not in the example");
    }
}
