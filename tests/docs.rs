//! The pages say what the program and the Makefile say, and their links lead somewhere.
//!
//! `DOCS_UPDATE=1 cargo test --test docs` rewrites the usage blocks instead of comparing them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The page that holds the usage blocks.
const REFERENCE: &str = "docs/reference.md";
/// The page that tells an operator what each log line means.
const NIGHT: &str = "docs/at-night.md";
/// Stands before a fenced block and ends with the command line whose output the block holds.
const MARKER: &str = "<!-- usage: crate-discovery ";
const FENCE: &str = "```";
const HOW_TO_REFRESH: &str = "to refresh the blocks: DOCS_UPDATE=1 cargo test --test docs";
/// The most bytes that README may have, so that a newcomer reads it in five minutes.
const LARGEST_README: usize = 8 * 1024;
/// Lines that an operator is told of and that other programs write.
const OF_OTHERS: [&str; 1] = ["Error: No such container"];

#[test]
fn usage_blocks_are_what_help_prints() {
    let written = text(REFERENCE);
    let actual = with_usage_blocks(&written);
    if std::env::var_os("DOCS_UPDATE").is_some() {
        fs::write(path(REFERENCE), actual).expect("the reference can be written");
        return;
    }
    if let Some((at, (ours, theirs))) =
        written.lines().zip(actual.lines()).enumerate().find(|(_, (ours, theirs))| ours != theirs)
    {
        panic!(
            "{REFERENCE} line {}: the usage block and --help differ\n  page:   {ours}\n  --help: {theirs}\n\
             {HOW_TO_REFRESH}",
            at + 1
        );
    }
    assert_eq!(written, actual, "{HOW_TO_REFRESH}");
}

#[test]
fn every_verb_has_a_usage_block() {
    let written = text(REFERENCE);
    for verb in verbs() {
        let marker = format!("{MARKER}{verb} --help -->");
        assert!(written.lines().any(|line| line == marker), "{REFERENCE} has no line \"{marker}\"");
    }
}

#[test]
fn make_targets_they_name_exist() {
    let makefile = text("Makefile");
    for page in pages() {
        let written = text(&page);
        let commands = fenced(&written).filter_map(|line| line.trim_start().strip_prefix("make "));
        let named = commands.chain(written.split("`make ").skip(1));
        for target in
            named.filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '-').next())
        {
            assert!(
                makefile.lines().any(|line| line.starts_with(&format!("{target}:"))),
                "{page} names \"make {target}\", which the Makefile does not have"
            );
        }
    }
}

#[test]
fn readme_is_short() {
    let size = text("README.md").len();
    assert!(
        size <= LARGEST_README,
        "README.md has {size} bytes, {LARGEST_README} are allowed: move details to docs/"
    );
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut broken = Vec::new();
    for page in pages() {
        let written = text(&page);
        for link in links(&written).filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, to)| (file, Some(to)));
            let target = match file {
                "" => path(&page),
                file => path(&page).parent().expect("a page is in a directory").join(file),
            };
            if !target.exists() {
                broken.push(format!("{page}: \"{link}\": there is no such file"));
            } else if let Some(heading) = heading
                && !anchors(&fs::read_to_string(&target).unwrap_or_default()).contains(heading)
            {
                broken.push(format!("{page}: \"{link}\": there is no such heading"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn anchors_are_those_of_github() {
    let anchors =
        anchors("# A page\n## What happens, if: `--x`\n```\n# no heading\n```\n## Twice\n### Twice\n");
    let expected = ["a-page", "what-happens-if---x", "twice", "twice-1"];
    assert_eq!(anchors, expected.map(str::to_owned).into());
}

#[test]
fn lines_that_an_operator_is_told_of_are_lines_that_are_logged() {
    let night = text(NIGHT);
    let sources = sources();
    let mut told = 0;
    for row in night.lines().filter_map(|line| line.strip_prefix("| ")) {
        let first = row.split(" | ").next().unwrap_or_default();
        for line in first.split('`').skip(1).step_by(2).filter(|line| !OF_OTHERS.contains(line)) {
            told += 1;
            let said = line.trim_start_matches("feeds: ").trim_start_matches("error: ");
            for part in said.split('\u{2026}').map(str::trim) {
                assert!(sources.contains(part), "{NIGHT}: nothing logs \"{part}\" of \"{line}\"");
            }
        }
    }
    assert!(told > 30, "only {told} lines were found in the tables");
}

/// Everything that logs: the program and the units, of instance 1. A text that goes on in the next line of a source is
/// one line here.
fn sources() -> String {
    let mut sources = String::new();
    let mut todo = vec![path("src"), path("systemd")];
    while let Some(at) = todo.pop() {
        if at.is_dir() {
            todo.extend(
                fs::read_dir(&at).expect("it can be read").map(|entry| entry.expect("an entry").path()),
            );
        } else {
            sources.push_str(&fs::read_to_string(&at).expect("a source is text"));
        }
    }
    let mut lines = sources.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |whole, next| whole + next.trim_start()).replace("%i", "1")
}

/// The pages, as paths in the repository: those beside README, and those in docs/.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = ["", "docs/"].into_iter().flat_map(pages_in).collect();
    pages.sort();
    for needed in ["README.md", REFERENCE] {
        assert!(pages.iter().any(|page| page == needed), "{needed} is among {pages:?}");
    }
    pages
}

fn pages_in(directory: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(path(directory)).expect("the directory can be read");
    entries
        .filter_map(|entry| entry.expect("an entry can be read").file_name().into_string().ok())
        .filter(|name| name.ends_with(".md"))
        .map(move |name| format!("{directory}{name}"))
}

/// The lines within fenced blocks.
fn fenced(page: &str) -> impl Iterator<Item = &str> {
    by_fence(page).filter_map(|(line, is_fenced)| is_fenced.then_some(line))
}

/// The lines outside of fenced blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    by_fence(page).filter_map(|(line, is_fenced)| (!is_fenced).then_some(line))
}

/// Each line but the fences, and whether it is between two of them.
fn by_fence(page: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut is_fenced = false;
    page.lines().filter_map(move |line| {
        if line.trim_start().starts_with(FENCE) {
            is_fenced = !is_fenced;
            return None;
        }
        Some((line, is_fenced))
    })
}

/// Where the links of a page lead: `[text](target)` and `[name]: target`.
fn links(page: &str) -> impl Iterator<Item = &str> {
    prose(page).flat_map(|line| {
        let defined = line.strip_prefix('[').and_then(|rest| Some(rest.split_once("]: ")?.1));
        let inline = line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        inline.chain(defined)
    })
}

/// The anchors that GitHub gives to the headings of a page.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(page).filter(|line| line.starts_with('#')) {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(again).find(|free| !anchors.contains(free));
        anchors.extend(free);
    }
    anchors
}

/// The page with every usage block replaced by what the program prints now.
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

/// The text of a file of the repository.
fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name} can be read: {error}"))
}

/// A file of the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
