//! A disk that hangs, is full, or may not be written to: a file system of its own. Takes root and, but for a small one in
//! memory, a loop device.

use std::{
    io::Write,
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

/// A file system for a few short files; taken down when dropped.
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// 64 KiB of memory. It knows fallocate(2).
    pub fn in_memory() -> Self {
        let disk = Self { dir: scratch() };
        std::fs::create_dir(disk.path()).unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "-o", "size=64k,mode=755", "none", disk.path().to_str().unwrap()].map(Path::new),
        );
        disk
    }

    /// 64 KiB of ext2, which does not know fallocate(2).
    pub fn without_reservation() -> Self {
        let disk = Self { dir: scratch() };
        std::fs::create_dir(disk.path()).unwrap();
        let image = disk.dir.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(64 << 10)).unwrap();
        run(
            "mkfs.ext2",
            &[
                "-q".as_ref(),
                "-b".as_ref(),
                "1024".as_ref(),
                "-m".as_ref(),
                "0".as_ref(),
                "-N".as_ref(),
                "16".as_ref(),
                &image,
            ],
        );
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &disk.path()]);
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Nobody may write to it.
    pub fn forbid(&self) {
        run("mount", &["-o".as_ref(), "remount,ro".as_ref(), &self.path()]);
    }

    /// Everybody may write to it again.
    pub fn allow(&self) {
        run("mount", &["-o".as_ref(), "remount,rw".as_ref(), &self.path()]);
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut rest = std::fs::File::create(self.path().join("rest")).unwrap();
        while rest.write_all(&[b'x'; 256]).is_ok() {}
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn free(&self) {
        std::fs::remove_file(self.path().join("rest")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: who keeps a file here may still be ending. Where it could not even be mounted, that was said.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

fn run(program: &str, args: &[&Path]) {
    let done = Command::new(program).args(args).output();
    let done = done.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {args:?} failed, as root? {why}");
}
