//! `make install` and `make uninstall`, into a directory of their own.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
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
            (format!("{units}/crate-seeds@.service").into(), 0o644),
            (format!("{sysusers}/crate-discovery.conf").into(), 0o644),
            (format!("{sysctl}/60-crate.conf").into(), 0o644),
        ];
        expected.sort();
        assert_eq!(files(root.path()), expected, "{prefix}");

        let binary = format!("{prefix}/bin/crate-discovery");
        for unit in ["crate-seeds@.service", "crate-discovery@.service"] {
            let text = fs::read_to_string(root.path().join(units).join(unit)).unwrap();
            let called: Vec<_> = text
                .lines()
                .filter(|line| !line.starts_with('#') && line.contains("/bin/crate-discovery"))
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
fn install_puts_the_binary_there_by_rename_so_that_nobody_meets_half_of_it() {
    let root = scratch();
    assert_eq!(make("install", root.path(), &[]).code, 0);
    let binary = root.path().join("usr/local/bin/crate-discovery");
    let whole = fs::metadata(&binary).unwrap().len();
    let is_over = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.insert(fs::metadata(&binary).map(|file| file.len()).ok());
            }
            seen
        });
        for _ in 0..5 {
            assert_eq!(make("install", root.path(), &[]).code, 0);
        }
        is_over.store(true, Ordering::Relaxed);
        looking.join().unwrap()
    });
    assert_eq!(seen, [Some(whole)].into());
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
    let (node, sidekick) = (read("crate@.service"), read("crate-discovery@.service"));
    let (seeds, image) = (read("crate-seeds@.service"), read("crate-image@.service"));
    for other in [&sidekick, &seeds, &image] {
        assert_eq!(line(&node, "EnvironmentFile=-/etc/"), line(other, "EnvironmentFile=-/etc/"));
    }
    assert_eq!(line(&node, "Environment=CRATE_IMAGE="), line(&image, "Environment=CRATE_IMAGE="));
    for (name, one, other) in [
        ("CRATE_DISCOVERY_HOST", &seeds, &sidekick),
        ("CRATE_DISCOVERY_SEED_FILE", &seeds, &sidekick),
        ("CRATE_NODE_NAME", &seeds, &node),
        ("CRATE_DATA", &seeds, &node),
    ] {
        let start = format!("Environment={name}=");
        assert_eq!(line(one, &start).len(), 1, "{name}");
        assert_eq!(line(one, &start), line(other, &start));
    }
    // What a sandbox is worth is the same in both units of the sidekick's account, but for /proc.
    let sandbox = |unit: &str| {
        let (_, settings) = unit.split_once("CapabilityBoundingSet=").unwrap();
        let lines = settings.lines().filter(|line| line.contains('=') && !line.starts_with('#'));
        lines
            .filter(|line| !line.starts_with("ProcSubset=") && *line != "MachineOf=crate@%i.service")
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(sandbox(&sidekick), sandbox(&seeds));
    // Helper units lie on each host: fleet would lose those that are only pulled in.
    for (unit, is_fleets) in [(&node, true), (&sidekick, true), (&seeds, false), (&image, false)] {
        assert_eq!(unit.contains("[X-Fleet]"), is_fleets);
    }

    // The example documents each variable that a unit sets or passes on, with the unit's own default.
    let example = read("crate-discovery.env.example");
    let set = [&node, &sidekick, &seeds, &image].map(|unit| line(unit, "Environment=")).concat();
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
            default.is_empty()
                || default == "%H"
                || example.contains(&format!("Default: {}", default.replace("%S", "/var/lib"))),
            "{assignment}"
        );
    }
    for passed in node.split("|| echo ").skip(1) {
        let name = passed.split([';', ' ']).next().unwrap();
        assert!(example.contains(&format!("\n#{name}=")), "{name} is not in the example");
    }
}

#[test]
fn butane_file_has_each_unit() {
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let (butane, makefile) = (read("systemd/crate.bu"), read("Makefile"));
    let units = makefile.lines().find_map(|line| line.strip_prefix("UNITS := ")).unwrap();
    for unit in units.split(' ') {
        assert!(butane.contains(&format!("- name: {unit}\n")), "{unit}");
        assert!(butane.contains(&format!("contents_local: usr/local/lib/systemd/system/{unit} ")), "{unit}");
    }
}

#[test]
fn tests_with_a_real_cratedb_say_where_its_image_cannot_be_had() {
    // No registry has this name.
    let image = "localhost:1/no-such-image:none";
    let sentence =
        format!("the image {image} of CrateDB cannot be had here: this docker engine does not have it");
    let root = scratch();
    let finished = make("test-cratedb", root.path(), &[&format!("CRATE_IMAGE={image}")]);
    assert_ne!(finished.code, 0);
    let last = finished.stderr.lines().find(|line| line.starts_with("error: "));
    assert!(last.is_some_and(|line| line.contains(&sentence)), "{}", finished.stderr);
}
