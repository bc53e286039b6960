//! What the code and the pages point at is there: rows of the fault table, tests, pages, headings, files.
//!
//! The contract is docs/design.md. Nothing in this repository may cite a page that is outside of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

/// The fault table and the tests that show its rows are here.
const CONTRACT: &str = "docs/design.md";
/// How the heads of its tables begin: the faults, and which test shows which row.
const FAULTS: &str = "| # |";
const SHOWN_BY: &str = "| row | shown by";
/// Where rows, pages and headings are cited.
const CITING: [&str; 14] = [
    "src",
    "tests",
    "benches",
    "fuzz/fuzz_targets",
    "docs",
    "docker",
    "systemd",
    ".ci",
    "Makefile",
    "Cargo.toml",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
];
/// Notes that are beside this repository, and pages without their directory: nobody who reads the code can follow these.
const OUTSIDE: [&str; 7] =
    ["cratedb-facts", "etcd-facts", "rust-facts", "fleet-facts", "forming-protocol", "style.md", "../shared"];
/// How the paths begin that are looked for.
const PLACES: [&str; 3] = ["src/", "tests/", "benches/"];
/// What the contract is called. It counts only beside [`CONTRACT`], or in that page itself.
const NAMES: [&str; 3] = ["the contract", "the design", "design, section"];

#[test]
fn every_row_has_a_test_that_exists() {
    let rows: Vec<u32> = rows_of(FAULTS).into_keys().collect();
    assert!(!rows.is_empty(), "{CONTRACT} has a fault table that begins with {FAULTS:?}");
    let expected: Vec<u32> = (1..=rows.len()).map(|row| u32::try_from(row).unwrap()).collect();
    assert_eq!(rows, expected, "the rows are numbered from 1 on, without a gap");

    let shown_by = rows_of(SHOWN_BY);
    assert_eq!(
        shown_by.keys().copied().collect::<Vec<_>>(),
        rows,
        "each row has a line that names its tests"
    );
    for (row, line) in shown_by {
        let tests: Vec<&str> =
            line.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
        assert!(!tests.is_empty(), "row {row} names no test");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let text = fs::read_to_string(path("tests").join(file))
                .unwrap_or_else(|e| panic!("row {row}: tests/{file}: {e}"));
            assert!(has_test(&text, name), "row {row}: tests/{file} has no test {name}");
        }
    }
}

#[test]
fn every_row_that_is_cited_exists() {
    let rows = rows_of(FAULTS);
    let mut cited = 0;
    let missing: Vec<String> = citing_lines()
        .iter()
        .flat_map(|line| rows_cited(&line.text).into_iter().map(move |row| (line, row)))
        .inspect(|_| cited += 1)
        .filter(|(_, row)| !rows.contains_key(row))
        .map(|(line, row)| format!("{line}\n  {CONTRACT} has no row {row}"))
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(cited > 50, "only {cited} rows are cited: the search for them is broken");
}

#[test]
fn nothing_cites_a_contract_outside_the_repo() {
    let all = citing_lines();
    let near = |at: usize| {
        // A sentence may begin in the line before, and go on in the next one.
        let of_file = all[at.saturating_sub(1)..].iter().take(3).filter(|line| line.file == all[at].file);
        of_file.map(|line| line.text.as_str()).collect::<Vec<_>>().join(" ")
    };
    let mut wrong = Vec::new();
    for (at, line) in all.iter().enumerate() {
        let lower = line.text.to_lowercase();
        let numbered =
            |word: &str| lower.split(word).skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if let Some(name) = OUTSIDE.iter().find(|name| lower.contains(*name)) {
            wrong.push(format!("{line}\n  cites {name:?}, which is not in this repository"));
        }
        if numbered("issue ") || numbered("point ") {
            wrong.push(format!("{line}\n  cites an issue or a point by its number"));
        }
        if (numbered("section ") || numbered("sections ")) && !near(at).contains("RFC") {
            wrong.push(format!(
                "{line}\n  cites a section by its number, and of no RFC: name page and heading"
            ));
        }
        if NAMES.iter().any(|name| lower.contains(name))
            && line.file != CONTRACT
            && !near(at).contains(CONTRACT)
        {
            wrong.push(format!("{line}\n  names the contract, and does not say {CONTRACT}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_and_heading_that_is_cited_exists() {
    let mut cited = 0;
    let mut wrong = Vec::new();
    // A page links to its neighbours; what is looked at here is what the code cites.
    for line in citing_lines().iter().filter(|line| !line.file.ends_with(".md")) {
        for rest in line.text.split("docs/").skip(1) {
            let Some((name, rest)) = rest.split_once(".md") else { continue };
            if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                continue;
            }
            cited += 1;
            let page = format!("docs/{name}.md");
            let Ok(text) = fs::read_to_string(path(&page)) else {
                wrong.push(format!("{line}\n  cites {page}, which is not there"));
                continue;
            };
            let heading = rest.trim_start_matches('`').strip_prefix(", \"");
            let Some((heading, _)) = heading.and_then(|rest| rest.split_once('"')) else { continue };
            let mut headings = text.lines().filter(|line| line.starts_with('#'));
            if !headings.any(|line| line.trim_start_matches('#').trim() == heading) {
                wrong.push(format!("{line}\n  {page} has no heading {heading:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cited > 5, "only {cited} pages are cited: the search for them is broken");
}

#[test]
fn every_path_of_the_source_that_is_cited_exists() {
    let mut cited = 0;
    let missing: Vec<String> = citing_lines()
        .iter()
        .flat_map(|line| paths_cited(&line.text).into_iter().map(move |cited| (line, cited)))
        .inspect(|_| cited += 1)
        .filter(|(_, cited)| !path(cited).exists())
        .map(|(line, cited)| format!("{line}\n  names {cited}, which is not there"))
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(cited > 50, "only {cited} paths are cited: the search for them is broken");
}

/// The paths from the root of the repository that a line cites, among what moves most often.
fn paths_cited(line: &str) -> Vec<&str> {
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let words = line.split(|c: char| !is_of_path(c)).map(|word| word.trim_end_matches('.'));
    words.filter(|word| PLACES.iter().any(|place| word.starts_with(place))).collect()
}

#[test]
fn paths_are_read_as_they_are_written() {
    assert_eq!(
        paths_cited("`src/host.rs`, or src/etcd/: see tests/docs.rs."),
        ["src/host.rs", "src/etcd/", "tests/docs.rs"]
    );
    assert_eq!(
        paths_cited("`tests/support/mod.rs::SLACK` (tests/*/main.rs)"),
        ["tests/support/mod.rs", "tests/"]
    );
    assert_eq!(paths_cited("../tests/support/mod.rs and /work/src/host.rs"), Vec::<&str>::new());
}

/// The numbered lines of the table in [`CONTRACT`] whose head begins with `head`.
fn rows_of(head: &str) -> BTreeMap<u32, String> {
    let text = fs::read_to_string(path(CONTRACT)).expect("the contract can be read");
    let table =
        text.lines().skip_while(|line| !line.starts_with(head)).take_while(|line| line.starts_with('|'));
    let mut rows = BTreeMap::new();
    for line in table {
        let number = line.trim_start_matches('|').split('|').next().unwrap_or_default();
        if let Ok(number) = number.trim().parse() {
            assert_eq!(rows.insert(number, line.to_owned()), None, "row {number} is there twice");
        }
    }
    rows
}

/// Whether `text` has a test function of this name.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let is_named = line.strip_prefix("async ").unwrap_or(line).starts_with(&format!("fn {name}("));
        let before =
            lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        is_named
            && before.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

/// The rows that a line cites: "row 7", "rows 1 to 6, 10, 12 and 16".
fn rows_cited(line: &str) -> Vec<u32> {
    let lower = line.to_lowercase();
    let mut cited = Vec::new();
    for (at, _) in lower.match_indices("row") {
        if lower[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &lower[at + "row".len()..];
        let (mut rest, is_list) = match rest.strip_prefix("s ") {
            Some(rest) => (rest, true),
            None => (rest.strip_prefix(' ').unwrap_or_default(), false),
        };
        let mut from = None;
        loop {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let Ok(row) = rest[..digits].parse::<u32>() else { break };
            cited.extend(from.map_or(row, |from| from + 1)..=row);
            rest = &rest[digits..];
            from = rest.starts_with(" to ").then_some(row);
            let next = [" to ", ", and ", " and ", ", "].into_iter().find_map(|link| rest.strip_prefix(link));
            match next {
                Some(next) if is_list => rest = next,
                _ => break,
            }
        }
    }
    cited
}

#[test]
fn rows_are_read_as_they_are_written() {
    assert_eq!(rows_cited("//! One fault: rows 1 to 4, 10, 12 and 17."), [1, 2, 3, 4, 10, 12, 17]);
    assert_eq!(rows_cited("/// Row 9, the leader: 3 of them"), [9]);
    assert_eq!(rows_cited("\"row 7: each of 3\" and row 99"), [7, 99]);
    assert_eq!(rows_cited("rows 22 and 25: 16 MB"), [22, 25]);
    assert_eq!(rows_cited("three rows, arrow 4, row[0], rows of 5"), Vec::<u32>::new());
}

/// One line of a file.
struct Line {
    file: String,
    number: usize,
    text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.number, self.text.trim())
    }
}

/// Every line of every file that may cite something, but for this file, which holds examples of what is wrong.
fn citing_lines() -> Vec<Line> {
    let mut files = Vec::new();
    CITING.iter().for_each(|place| files_of(&path(place), &mut files));
    files.sort();
    let root = path("");
    let mut lines = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        // Bytes that are no text cite nothing.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if name != file!() {
            lines.extend(text.lines().enumerate().map(|(at, text)| Line {
                file: name.clone(),
                number: at + 1,
                text: text.to_owned(),
            }));
        }
    }
    assert!(lines.len() > 10_000, "only {} lines were found to look at", lines.len());
    lines
}

fn files_of(place: &Path, files: &mut Vec<PathBuf>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).expect("the directory can be read") {
            files_of(&entry.expect("the entry can be read").path(), files);
        }
    } else if place.exists() {
        files.push(place.to_owned());
    }
}

/// A file of the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
