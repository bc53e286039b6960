//! What the official image's `docker-entrypoint.sh` does before CrateDB starts.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{fs::lchown, process::CommandExt},
    path::Path,
    process::Command,
};

use crate::log::fail;

/// User and group `crate` of the official image.
const CRATE: u32 = 1000;

/// Puts `crate` before arguments of which the first begins with `-`; what is then called `crate` runs as
/// the user of that name, and has `/data` as its own. Anything else is run as it is.
pub fn run(arguments: &[String]) -> ! {
    let mut arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    if arguments.first().is_some_and(|first| first.as_encoded_bytes().starts_with(b"-")) {
        arguments.insert(0, OsStr::new("crate"));
    }
    let Some((program, arguments)) = arguments.split_first() else {
        fail(1, "the entrypoint was given nothing to run");
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if *program == "crate" && rustix::process::geteuid().is_root() {
        own(Path::new("/data"));
        command.uid(CRATE).gid(CRATE);
    }
    fail(127, &format!("{}: {}", program.display(), command.exec()))
}

/// `chown -R`. A file that has gone meanwhile is none of ours.
fn own(path: &Path) {
    let _ = lchown(path, Some(CRATE), Some(CRATE));
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            own(&entry.path());
        }
    }
}
