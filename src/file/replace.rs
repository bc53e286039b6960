//! Replaces a file as a whole: a new one, complete and on the disk, takes its name.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, CWD, Gid, Mode, OFlags, Stat, Uid, XattrFlags, fchmod, fchown, fremovexattr, fsetxattr,
        fstat, fsync, lgetxattr, linkat, openat, renameat, unlinkat,
    },
    io::Errno,
};

use super::{
    Trouble,
    place::{Mark, Place},
};
use crate::text::plain_io;

/// A new file's mode: CrateDB runs as another user. Not left to the umask.
const NEW: Mode = Mode::from_raw_mode(0o644);
/// Where a file's access control list is kept, besides its mode (acl(5)).
const ACL: &str = "system.posix_acl_access";
/// No access control list is longer (XATTR_SIZE_MAX).
const LONGEST_ACL: usize = 64 << 10;

/// What became of it.
pub(super) enum Replaced {
    Yes,
    /// Only a file that others may use differently could take its place: why.
    NotWithItsOwner(String),
}

/// Makes a new file with `content` take the place. It gets owner, group, mode and access control list of the old one, or
/// else does not take its place. Whatever fails or ends us before the last step, the old file is as it was; afterwards
/// not even a power cut brings the old one back.
pub(super) fn replace(place: &Place, content: &str) -> Result<Replaced, Trouble> {
    look_for_marks(place)?;
    let mut new = match fill(Temporary::create(&place.directory)?, place, content)? {
        Ok(new) => new,
        Err(reason) => return Ok(Replaced::NotWithItsOwner(reason)),
    };
    if new.take_name().is_err() {
        // Without /proc, say, a file that has no name cannot get one.
        new = match fill(Temporary::create_named(&place.directory)?, place, content)? {
            Ok(new) => new,
            Err(reason) => return Ok(Replaced::NotWithItsOwner(reason)),
        };
    }
    new.rename_to(place)?;
    sync(&place.directory)?;
    Ok(Replaced::Yes)
}

/// Looks whether a file could take the place; leaves nothing behind.
pub(super) fn check(place: &Place) -> Result<(), Trouble> {
    look_for_marks(place)?;
    Temporary::create(&place.directory)?;
    Ok(())
}

/// Marks are looked for before anything is tried: what was made in a directory that only grows could not be taken away
/// again.
fn look_for_marks(place: &Place) -> Result<(), Trouble> {
    let directory = match place.marks() {
        (Some(Mark::Immutable), _) => "its directory is immutable (chattr +i)",
        (Some(Mark::AppendOnly), _) => "nothing in its directory can be replaced (chattr +a)",
        (None, Some(mark)) => return Err(mark.of_file()),
        (None, None) => return Ok(()),
    };
    let remedy = if place.old.is_some() { ": the file can only be rewritten in place" } else { "" };
    Err(Trouble::Now(format!("{directory}{remedy}")))
}

/// Gives the file, or why it may not take the place.
fn fill<'a>(
    mut new: Temporary<'a>,
    place: &Place,
    content: &str,
) -> Result<Result<Temporary<'a>, String>, Trouble> {
    match &place.old {
        // What the directory grants to named users and groups stays.
        None => fchmod(&new.file, NEW)?,
        Some(old) => match inherit(&new.file, place, old) {
            Ok(()) => {}
            // Invalid is an owner who is not known in our user namespace.
            Err(error @ (Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP)) => {
                let why = plain_io(&error.into());
                return Ok(Err(format!(
                    "owner, group and access list of the file cannot be given to a new one: {why}"
                )));
            }
            Err(error) => return Err(error.into()),
        },
    }
    new.file.write_all(content.as_bytes())?;
    new.file.sync_all()?;
    Ok(Ok(new))
}

/// Gives `new` everything that decides who may use the old file.
fn inherit(new: &File, place: &Place, old: &Stat) -> Result<(), Errno> {
    let now = fstat(new)?;
    let owner = (now.st_uid != old.st_uid).then(|| Uid::from_raw(old.st_uid));
    let group = (now.st_gid != old.st_gid).then(|| Gid::from_raw(old.st_gid));
    if owner.is_some() || group.is_some() {
        fchown(new, owner, group)?;
    }
    let mut list = vec![0; LONGEST_ACL];
    match lgetxattr(place.path(), ACL, &mut list[..]) {
        Ok(length) => fsetxattr(new, ACL, &list[..length], XattrFlags::empty())?,
        // None. What the directory would have granted to a new file is not the old file's.
        Err(_) => match fremovexattr(new, ACL) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        },
    }
    // Last: a change of owner or list changes bits of the mode.
    fchmod(new, Mode::from_raw_mode(old.st_mode))
}

/// Puts on the disk which name is which file.
fn sync(directory: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(directory, ".", flags, Mode::empty()).and_then(fsync) {
        // It may not be read, or cannot be asked for this.
        Ok(()) | Err(Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A file of our own that is to take a name; gone when dropped.
struct Temporary<'a> {
    directory: &'a OwnedFd,
    file: File,
    name: Option<OsString>,
}

impl<'a> Temporary<'a> {
    /// Without a name where that can be had: then nothing is left of it, even if we are killed.
    fn create(directory: &'a OwnedFd) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(directory, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Self { directory, file: file.into(), name: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::create_named(directory),
            Err(error) => Err(error.into()),
        }
    }

    fn create_named(directory: &'a OwnedFd) -> io::Result<Self> {
        let name = new_name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(directory, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { directory, file: file.into(), name: Some(name) })
    }

    /// A link cannot replace a name, so it gets one of its own first.
    fn take_name(&mut self) -> io::Result<()> {
        if self.name.is_none() {
            let name = new_name();
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, path, self.directory, &name, AtFlags::SYMLINK_FOLLOW)?;
            self.name = Some(name);
        }
        Ok(())
    }

    fn rename_to(mut self, place: &Place) -> Result<(), Trouble> {
        let Some(name) = &self.name else { return Err(Errno::NOENT.into()) };
        match renameat(self.directory, name, &place.directory, &place.name) {
            Ok(()) => {
                self.name = None;
                Ok(())
            }
            // Nothing can take the name of a mount.
            Err(Errno::BUSY) => Err(Trouble::Now(
                "a file that is mounted by itself can only be rewritten in place".to_owned(),
            )),
            // A directory took the place just now.
            Err(Errno::ISDIR) => Err(Trouble::no_file()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // There is nothing to be done about it.
            let _ = unlinkat(self.directory, name, AtFlags::empty());
        }
    }
}

fn new_name() -> OsString {
    format!(".crate-discovery-{:016x}", fastrand::u64(..)).into()
}
