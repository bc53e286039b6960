//! The layout of `src/`, read from the source itself: which room may enter which, and where a name leads to.
//!
//! A *room* is a top-level module. What is under `#[cfg(test)]` does not count: a test may borrow from any room.

mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use source::{Module, Source};

/// Read once for all tests.
static SOURCE: LazyLock<Source> = LazyLock::new(Source::read);

/// What knows no I/O. A module below one of these is as pure as its parent.
const PURE: [&str; 16] = [
    "announcement",
    "announcer::state",
    "backoff",
    "bootstrap::epoch",
    "bootstrap::note",
    "bootstrap::rules",
    "bootstrap::settling",
    "bootstrap::stored",
    "feeds::srv::answer",
    "feeds::srv::name",
    "feeds::srv::records",
    "host",
    "lease",
    "node::cratedb",
    "render",
    "snapshot",
];
/// What a pure room may name all the same: types without I/O that stand beside something that has some.
const PURE_ENOUGH: [&str; 5] =
    ["bootstrap::machine::BootId", "bootstrap::machine::MachineId", "node::Identity", "node::Told", "text"];
/// What reads, writes, waits for somebody else, or starts something.
const IO: [&str; 16] = [
    "etcd_client",
    "hyper_util",
    "nix",
    "rustix",
    "std::env",
    "std::fs",
    "std::os",
    "std::process",
    "std::thread",
    "tokio::fs",
    "tokio::io",
    "tokio::net",
    "tokio::process",
    "tokio::signal",
    "tokio::spawn",
    "tokio::task",
];
/// Of these each has one room that uses it, so that another one can take its place there.
const ONE_USER: [(&str, &str); 7] = [
    ("clap", "cli"),
    ("etcd_client", "etcd"),
    ("simple_dns", "feeds"),
    ("httparse", "node"),
    ("signal_hook", "process"),
    ("tokio::signal", "process"),
    ("tracing_subscriber::fmt", "process"),
];

/// Whether `path` is `of`, or something inside it.
fn is_in(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_in_any(path: &str, of: &[&str]) -> bool {
    of.iter().any(|of| is_in(path, of))
}

#[test]
fn pure_rooms_import_neither_etcd_nor_io() {
    let source = &*SOURCE;
    for pure in PURE {
        let found = source.modules.iter().any(|module| module.path == pure);
        assert!(found, "the pure room {pure:?} is gone: take it off the list, or give it its new name");
    }
    let mut wrong = Vec::new();
    for Module { path, imports, .. } in source.modules.iter().filter(|module| is_in_any(&module.path, &PURE))
    {
        for import in imports {
            let own = import.strip_prefix("crate::");
            let is_pure = match own {
                Some(own) => is_in_any(own, &PURE) || is_in_any(own, &PURE_ENOUGH),
                None => {
                    !is_in_any(import, &IO)
                        && !import.starts_with("std::net::Tcp")
                        && !import.starts_with("std::net::Udp")
                }
            };
            if !is_pure {
                wrong.push(format!("{path} is a pure room, and imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn etcd_client_clap_and_signals_have_one_user_each() {
    let source = &*SOURCE;
    for (library, room) in ONE_USER {
        let users: BTreeSet<&str> = source
            .modules
            .iter()
            .filter(|module| module.imports.iter().any(|import| is_in(import, library)))
            .map(Module::room)
            .collect();
        assert_eq!(users, BTreeSet::from([room]), "{library} is used by {room} alone");
    }
}

#[test]
fn rooms_form_no_circle() {
    let mut left = rooms(&SOURCE);
    // Who imports nobody, and whom nobody imports, is in no circle. They are taken away until there are none.
    let ends = |left: &BTreeMap<String, BTreeSet<String>>| {
        let is_end =
            |room: &String| left[room].is_empty() || !left.values().any(|imports| imports.contains(room));
        left.keys().find(|room| is_end(room)).cloned()
    };
    while let Some(room) = ends(&left) {
        left.remove(&room);
        left.values_mut().for_each(|imports| _ = imports.remove(&room));
    }
    let circle: Vec<String> =
        left.iter().map(|(room, imports)| format!("{room} imports {imports:?}")).collect();
    assert!(circle.is_empty(), "rooms import each other in a circle:\n{}", circle.join("\n"));
}

#[test]
fn map_in_lib_rs_equals_the_tree() {
    let source = &*SOURCE;
    let map = &source.map;
    let told: BTreeSet<&String> = map.keys().collect();
    let rooms = rooms(source);
    let there: BTreeSet<&String> = rooms.keys().collect();
    assert_eq!(told, there, "the map of src/lib.rs names the rooms that there are");
    for (room, imports) in &rooms {
        assert_eq!(&map[room], imports, "the map of src/lib.rs tells what {room} imports");
    }
}

#[test]
fn no_two_files_answer_to_one_name() {
    let source = &*SOURCE;
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Module { path, .. } in &source.modules {
        let name = path.rsplit("::").next().unwrap_or(path);
        by_name.entry(name).or_default().push(path);
    }
    for (name, paths) in by_name {
        let is_verb_over_room =
            paths.len() == 2 && paths.contains(&name) && paths.contains(&&*format!("verbs::{name}"));
        assert!(
            paths.len() == 1 || is_verb_over_room,
            "{name:?} is the name of more than one file: {paths:?}"
        );
    }
}

#[test]
fn each_verb_has_options_and_a_run_of_the_same_shape() {
    let source = &*SOURCE;
    let verbs: Vec<&Module> = source
        .modules
        .iter()
        .filter(|module| module.path.strip_prefix("verbs::").is_some_and(|verb| !verb.contains("::")))
        .filter(|module| module.is_public)
        .collect();
    assert!(verbs.len() >= 5, "there are five verbs at least");
    for verb in verbs {
        assert!(verb.types.contains("Options"), "{} has no Options", verb.path);
        let run = verb.functions.get("run").unwrap_or_else(|| panic!("{} has no run", verb.path));
        assert_eq!(run, &["access", "options", "signal"], "{}::run takes what every verb takes", verb.path);
    }
}

/// Each room, and which others it imports.
fn rooms(source: &Source) -> BTreeMap<String, BTreeSet<String>> {
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for module in &source.modules {
        let own = module.imports.iter().filter_map(|import| import.strip_prefix("crate::"));
        let others = own.filter_map(|import| import.split("::").next()).filter(|room| *room != module.room());
        rooms.entry(module.room().to_owned()).or_default().extend(others.map(str::to_owned));
    }
    rooms
}
