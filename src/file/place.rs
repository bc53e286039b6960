//! The place of a file: its directory, which is kept open, and its name in it.
//!
//! The path is walked step by step, and each step starts in the directory of the one before. So every symbolic link is
//! checked before it is followed, and nobody can replace a directory or a link between the check and the use.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStringExt, fs::MetadataExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags, fstat, openat, readlinkat,
        statx,
    },
    io::Errno,
    process::geteuid,
};

use super::Trouble;
use crate::text::escape;

/// The most symbolic links that are followed, as many as in the kernel (path_resolution(7)).
const MOST_LINKS: usize = 40;
/// The owner that is shown for every user who is unknown in our user namespace, for example in a unit with
/// `PrivateUsers=`. Two files with this owner may belong to two users (/proc/sys/kernel/overflowuid).
const UNKNOWN_OWNER: u32 = 65534;
/// The largest file that is read, in bytes. 100,000 hosts with the longest names fit.
const LONGEST: u64 = 32 << 20;

/// A regular file, or the place for one.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory. It is opened with `O_PATH`, so it cannot be read itself.
    pub(super) directory: OwnedFd,
    /// The name of the file in the directory.
    pub(super) name: OsString,
    /// The metadata of the existing file. `None` if there is no file.
    pub(super) old: Option<Stat>,
    /// Whether everybody may write to the directory, as to /tmp.
    is_shared: bool,
}

/// An attribute of chattr(1), which stops even root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Immutable,
    AppendOnly,
}

impl Mark {
    /// The reason for a file with this attribute.
    pub(super) fn of_file(self) -> Trouble {
        Trouble::Now(match self {
            Self::Immutable => "it is immutable (chattr +i)".to_owned(),
            Self::AppendOnly => "it can only be appended to (chattr +a)".to_owned(),
        })
    }
}

/// One step of a path.
enum Step {
    Root,
    Up,
    Into(OsString),
}

impl Place {
    /// Finds the place that `path` leads to. Symbolic links are followed, even the last one, and even if its target
    /// does not exist yet. But a link that another user put into a directory where everybody may write is not followed.
    /// The kernel has that rule with fs.protected_symlinks, which not every system sets. For the same reason, a file of
    /// another user in such a directory is refused.
    pub(super) fn find(path: &Path) -> Result<Self, Trouble> {
        let mut ahead: Vec<Step> = Vec::new();
        prepend(&mut ahead, path);
        let mut directory = enter(CWD, ".")?;
        let mut links = 0;
        while let Some(step) = ahead.pop() {
            let name = match step {
                Step::Root => {
                    directory = enter(CWD, "/")?;
                    continue;
                }
                Step::Up => {
                    directory = enter(&directory, "..")?;
                    continue;
                }
                Step::Into(name) => name,
            };
            let is_last = ahead.is_empty();
            let around = fstat(&directory)?;
            let is_shared = is_shared(&around);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let there = match openat(&directory, &name, flags, Mode::empty()) {
                Err(Errno::NOENT) if is_last => {
                    return Ok(Self { directory, name, old: None, is_shared });
                }
                there => there?,
            };
            let found = fstat(&there)?;
            let is_strangers = is_shared && !is_trusted(&found, &around);
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Symlink if is_strangers => {
                    return Err(Trouble::Now(format!(
                        "the link \"{}\" on the way was made by another user in a directory where everybody may \
                         write: it is not followed",
                        escape(name.as_encoded_bytes())
                    )));
                }
                FileType::Symlink => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = readlinkat(&there, "", Vec::new())?;
                    prepend(&mut ahead, &PathBuf::from(OsString::from_vec(target.into_bytes())));
                }
                FileType::RegularFile if is_last && is_strangers => {
                    return Err(Trouble::Now(
                        "another user made it in a directory where everybody may write: it is not touched"
                            .to_owned(),
                    ));
                }
                FileType::RegularFile if is_last => {
                    return Ok(Self { directory, name, old: Some(found), is_shared });
                }
                // The directory is opened again, because only that mounts a file system that is mounted on demand.
                _ if !is_last => directory = enter(&directory, &name)?,
                _ => return Err(Trouble::no_file()),
            }
        }
        // The path ended in `/` or `..`.
        Err(Trouble::no_file())
    }

    /// Opens the file, to read it and, if `writable`, to write to it.
    pub(super) fn open(&self, writable: bool) -> Result<File, Trouble> {
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.directory, &self.name, flags, Mode::empty())?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(Trouble::no_file());
        }
        // If hard links are not protected, any user can give a file of ours a second name in such a directory.
        if writable && self.is_shared && meta.nlink() > 1 {
            return Err(Trouble::Now(
                "it has another name elsewhere, which another user may have given it: it is not touched"
                    .to_owned(),
            ));
        }
        Ok(file)
    }

    /// Whether the file exists and has this `content`. `false` if it cannot be read.
    pub(super) fn holds(&self, content: &str) -> bool {
        let is_as_long = self.old.is_some_and(|old| u64::try_from(old.st_size) == Ok(content.len() as u64));
        is_as_long && self.open(false).and_then(|file| read(&file)).is_ok_and(|old| old == content.as_bytes())
    }

    /// A path to the file for system calls that take no directory. It needs /proc.
    pub(super) fn path(&self) -> PathBuf {
        directory_path(&self.directory).join(&self.name)
    }

    /// The attributes of chattr(1) of the directory and of the file.
    pub(super) fn marks(&self) -> (Option<Mark>, Option<Mark>) {
        let of = |name: &OsStr, flags| {
            let marks = statx(&self.directory, name, flags, StatxFlags::empty()).ok()?.stx_attributes;
            if marks.contains(StatxAttributes::IMMUTABLE) {
                Some(Mark::Immutable)
            } else {
                marks.contains(StatxAttributes::APPEND).then_some(Mark::AppendOnly)
            }
        };
        (of(OsStr::new(""), AtFlags::EMPTY_PATH), of(&self.name, AtFlags::SYMLINK_NOFOLLOW))
    }
}

/// The content of a file.
pub(super) fn read(file: &File) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(Trouble::Now(format!(
            "it is longer than {} MiB, so it is no file of ours",
            LONGEST >> 20
        )));
    }
    Ok(bytes)
}

fn directory_path(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// Puts the steps of `path` before those in `ahead`. The next step is the last one in the list.
fn prepend(ahead: &mut Vec<Step>, path: &Path) {
    ahead.extend(path.components().rev().filter_map(|component| match component {
        Component::RootDir | Component::Prefix(_) => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::CurDir => None,
        Component::Normal(name) => Some(Step::Into(name.to_owned())),
    }));
}

fn enter(from: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(from, name, flags, Mode::empty())?)
}

fn is_shared(directory: &Stat) -> bool {
    let mode = Mode::from_raw_mode(directory.st_mode);
    mode.contains(Mode::SVTX | Mode::WOTH)
}

/// Whether `found` belongs to us, or to the owner of the directory.
fn is_trusted(found: &Stat, directory: &Stat) -> bool {
    found.st_uid == geteuid().as_raw() || (found.st_uid == directory.st_uid && found.st_uid != UNKNOWN_OWNER)
}
