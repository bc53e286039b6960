//! The README says what the program and the Makefile say.
//!
//! `README_UPDATE=1 cargo test --test readme` rewrites the usage blocks instead of comparing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Stands before a fenced block and ends with the command line whose output the block holds.
const MARKER: &str = "<!-- usage: crate-discovery ";
const FENCE: &str = "```";

#[test]
fn usage_blocks_are_what_help_prints() {
    let written = readme();
    let actual = with_usage_blocks(&written);
    if std::env::var_os("README_UPDATE").is_some() {
        fs::write(path("README.md"), actual).expect("README.md can be written");
        return;
    }
    if let Some((at, (ours, theirs))) =
        written.lines().zip(actual.lines()).enumerate().find(|(_, (ours, theirs))| ours != theirs)
    {
        panic!(
            "README.md line {}: the usage block and --help differ\n  README: {ours}\n  --help: {theirs}\n\
             to refresh the blocks: README_UPDATE=1 cargo test --test readme",
            at + 1
        );
    }
    assert_eq!(written, actual, "to refresh the blocks: README_UPDATE=1 cargo test --test readme");
}

#[test]
fn every_verb_has_a_usage_block() {
    let written = readme();
    for verb in verbs() {
        let marker = format!("{MARKER}{verb} --help -->");
        assert!(written.lines().any(|line| line == marker), "README.md has no line \"{marker}\"");
    }
}

#[test]
fn make_targets_it_names_exist() {
    let makefile = fs::read_to_string(path("Makefile")).expect("Makefile can be read");
    let written = readme();
    let named = written
        .lines()
        .filter_map(|line| line.strip_prefix("make "))
        .chain(written.split("`make ").skip(1))
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase()).next());
    for target in named {
        assert!(
            makefile.lines().any(|line| line.starts_with(&format!("{target}:"))),
            "README.md names \"make {target}\", which the Makefile does not have"
        );
    }
}

/// The README with every usage block replaced by what the program prints now.
fn with_usage_blocks(written: &str) -> String {
    let mut fresh = String::new();
    let mut lines = written.lines();
    while let Some(line) = lines.next() {
        fresh.push_str(line);
        fresh.push('\n');
        let Some(arguments) = line.strip_prefix(MARKER).and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        let opening = lines.next().unwrap_or("");
        assert!(opening.starts_with(FENCE), "a fenced block follows \"{line}\", not \"{opening}\"");
        assert!(lines.any(|line| line == FENCE), "the block after \"{line}\" is closed");
        fresh.push_str(&format!("{opening}\n{}\n{FENCE}\n", help(arguments).trim_end()));
    }
    fresh
}

/// The verbs that `--help` lists.
fn verbs() -> Vec<String> {
    let verbs: Vec<String> = help("--help")
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|verb| verb != "help")
        .collect();
    assert!(!verbs.is_empty(), "--help lists the verbs under \"Commands:\"");
    verbs
}

/// What the program prints on stdout, free of the tester's settings and terminal width.
fn help(arguments: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_crate-discovery"))
        .args(arguments.split(' '))
        .env_clear()
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "\"crate-discovery {arguments}\" ended with {}", output.status);
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

fn readme() -> String {
    fs::read_to_string(path("README.md")).expect("README.md can be read")
}

/// A file of the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
