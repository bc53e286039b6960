//! What ends a start that others could notice: CrateDB's bootstrap checks (`BootstrapChecks`).
//!
//! On loopback alone they are warnings. Where this runs no limit can be raised, so the test's docker
//! client says in variables what the engine was asked for, and that is judged, not what was had:
//!
//! | variable | holds |
//! | --- | --- |
//! | `STAND_IN_ULIMITS` | each `--ulimit`, with blanks between them; a limit that is not among them is Linux's own |
//! | `STAND_IN_MAX_MAP_COUNT` | `vm.max_map_count` as the host was told to set it |
//!
//! Without such a variable the real limit is judged.

use rustix::process::{Resource, getrlimit};

use crate::log::say;

/// `ExitCodes.CONFIG`.
pub const EXIT_CODE: i32 = 78;

/// How many files Linux lets a process open that nobody gave a limit. Java raises its soft limit to the
/// hard one, so the hard one counts; a kernel begins with 4096 there.
const FILES_BY_DEFAULT: u64 = 4096;

const FILES_NEEDED: u64 = 65_536;
const THREADS_NEEDED: u64 = 4096;
const MAPS_NEEDED: u64 = 262_144;

/// Why the process may not go on; nothing where all is well, or where only loopback is used.
pub fn complaint(reachable: bool) -> Option<String> {
    let asked = std::env::var("STAND_IN_ULIMITS").ok();
    let limit = |name: &str, resource, by_default| match &asked {
        Some(asked) => asked_for(asked, name).unwrap_or(by_default),
        None => getrlimit(resource).maximum.unwrap_or(u64::MAX),
    };
    let found = [
        heap(std::env::var("CRATE_HEAP_SIZE").ok()),
        too_low(
            "max file descriptors for crate process",
            limit("nofile", Resource::Nofile, FILES_BY_DEFAULT),
            FILES_NEEDED,
        ),
        too_low(
            "max number of threads for user [crate]",
            limit("nproc", Resource::Nproc, u64::MAX),
            THREADS_NEEDED,
        ),
        too_low("max virtual memory areas vm.max_map_count", map_count(), MAPS_NEEDED),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    if found.is_empty() {
        return None;
    }
    let count = found.len();
    let all = format!("[{count}] bootstrap checks failed: {}", found.join("; "));
    if reachable {
        return Some(all);
    }
    say(&format!("WARN: {all}"));
    None
}

/// Xms and Xmx are the same only where `CRATE_HEAP_SIZE` sets both; `bin/crate` takes an empty one for
/// none.
fn heap(size: Option<String>) -> Option<String> {
    match size {
        Some(size) if !size.is_empty() => None,
        _ => Some(
            "initial heap size [268435456] not equal to maximum heap size [6320816128]; this can cause resize \
             pauses"
                .to_owned(),
        ),
    }
}

fn too_low(what: &str, is: u64, needed: u64) -> Option<String> {
    (is < needed).then(|| format!("{what} [{is}] is too low, increase to at least [{needed}]"))
}

/// The hard limit in the last `name=soft:hard` or `name=both` among `asked`; -1 is no limit.
fn asked_for(asked: &str, name: &str) -> Option<u64> {
    let of = |limit: &str| {
        let value = limit.strip_prefix(name)?.strip_prefix('=')?;
        let hard = value.rsplit(':').next().unwrap_or(value);
        Some(if hard == "-1" { u64::MAX } else { hard.parse().ok()? })
    };
    asked.split_whitespace().filter_map(of).next_back()
}

fn map_count() -> u64 {
    let told = std::env::var("STAND_IN_MAX_MAP_COUNT").ok();
    let count = told.or_else(|| std::fs::read_to_string("/proc/sys/vm/max_map_count").ok());
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
