//! A disk that hangs: a file system of its own, whose writes can be held up. Takes root and a loop
//! device.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::etcd::scratch;

/// A file system in a file; taken down when dropped.
pub struct Disk {
    dir: TempDir,
}

impl Disk {
    /// Makes and mounts one, large enough for an etcd.
    pub fn create() -> Self {
        let disk = Self { dir: scratch() };
        let image = disk.dir.path().join("image");
        std::fs::create_dir(disk.path()).unwrap();
        std::fs::File::create(&image).and_then(|file| file.set_len(512 << 20)).unwrap();
        run("mkfs.ext4", &["-q".as_ref(), &image]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &disk.path()]);
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Whoever writes to it waits until the value given is dropped; no signal ends such a wait.
    pub fn hang(&self) -> Hangs {
        run("fsfreeze", &["--freeze".as_ref(), &self.path()]);
        Hangs { path: self.path() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the etcd that has its data here may still be ending.
        run("umount", &["--lazy".as_ref(), &self.path()]);
    }
}

/// A disk that hangs for as long as this value lives.
pub struct Hangs {
    path: PathBuf,
}

impl Drop for Hangs {
    fn drop(&mut self) {
        run("fsfreeze", &["--unfreeze".as_ref(), &self.path]);
    }
}

fn run(program: &str, args: &[&Path]) {
    let done = Command::new(program).args(args).output();
    let done = done.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {args:?} failed, as root? {why}");
}
