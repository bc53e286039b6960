//! What is rejected, and how: one table. Each row is an exit code and one sentence that names the
//! flag or file, the value (unless it is secret) and the remedy; nothing is written, nobody panics.

mod environment;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
};

use support::{
    PREFIX,
    daemon::run,
    etcd::{Etcd, arg, scratch},
    key_of,
};
use table::Row;

/// What no output may repeat.
const SECRET: &str = "hunter2";

/// Runs one row; what is wrong with it.
fn complaints(row: Row) -> Vec<String> {
    let dir = scratch();
    let output = dir.path().join("output");
    let mut command = row.command;
    let has = |wanted: &str| command.get_args().any(|arg| arg == wanted);
    let writes = has("hosts") && !has("--allow-stale") && !has("--output");
    if writes {
        command.args(["--output", arg(&output)]);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let shown = format!("{command:?}").replace(&format!("PATH={path:?} "), "");
    let finished = run(command);
    let stderr = &finished.stderr;
    let mut wrong = Vec::new();
    let mut hold = |good: bool, complaint: String| {
        if !good {
            wrong.push(complaint)
        }
    };
    hold(finished.code == row.code, format!("exit code {}, not {}", finished.code, row.code));
    for part in &row.says {
        hold(stderr.contains(part.as_str()), format!("no {part:?}"));
    }
    let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
    hold(errors == 1, format!("{errors} lines begin with `error: `"));
    hold(!repeats_itself(stderr), "it says something twice".to_owned());
    hold(finished.stdout.is_empty(), format!("stdout: {:?}", finished.stdout));
    hold(!stderr.contains("panicked"), "it panicked".to_owned());
    hold(!stderr.contains(SECRET), "it repeats the secret".to_owned());
    hold(!stderr.contains(|c: char| c.is_control() && c != '\n'), "control characters".to_owned());
    hold(
        !["Error {", "Status {", "Os {", "Some("].iter().any(|dump| stderr.contains(dump)),
        "a debug dump".to_owned(),
    );
    hold(fs::read_dir(dir.path()).unwrap().count() == 0, "something was written".to_owned());
    if wrong.is_empty() {
        Vec::new()
    } else {
        vec![format!("{shown}\n  {}\n  stderr: {stderr}", wrong.join("; "))]
    }
}

/// Whether a part of the cause chain stands in it twice.
fn repeats_itself(stderr: &str) -> bool {
    let parts: Vec<&str> = stderr.split(": ").map(str::trim).filter(|part| part.len() > 12).collect();
    parts.iter().enumerate().any(|(i, part)| parts[..i].contains(part))
}

#[test]
fn every_bad_input_is_one_sentence_and_the_right_code() {
    let dir = scratch();
    let (open, tls, mut closed) = (Etcd::start(), Etcd::start_with_tls(&[]), Etcd::start());
    let all = format!("{PREFIX}/");
    closed.enable_auth(&[
        ("reader", "right", &[&["--prefix=true", "read", &all]]),
        ("narrow", "right", &[&["readwrite", &key_of("h1")]]),
    ]);
    // It accepts, because the kernel does, and never answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent_port = silent.local_addr().unwrap().port();

    let mut rows = table::values();
    rows.extend(table::flags());
    rows.extend(table::bootstrap_flags());
    rows.extend(table::variables());
    rows.extend(table::files(&dir));
    rows.extend(table::default_hosts());
    rows.extend(table::endpoints(&dir, &open, &tls, &closed, silent_port));
    let count = rows.len();
    assert!(count >= 45, "{count} rows");
    let wrong: Vec<String> = rows.into_iter().flat_map(complaints).collect();
    assert!(wrong.is_empty(), "{} of {count} rows:\n\n{}", wrong.len(), wrong.join("\n"));
}
