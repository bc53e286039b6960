//! Replaces a file as a whole: a new file, complete and on the disk, gets its name.

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

/// The mode of a new file: CrateDB runs as another user, and must read it. The umask does not change it.
const NEW: Mode = Mode::from_raw_mode(0o644);
/// The attribute with the access control list of a file, which it has beside its mode (acl(5)).
const ACL: &str = "system.posix_acl_access";
/// The largest access control list in bytes (XATTR_SIZE_MAX).
const LONGEST_ACL: usize = 64 << 10;

/// The result of a replacement.
pub(super) enum Replaced {
    Yes,
    /// It was not replaced, because the new file would have other permissions than the old one. The text says why.
    NotWithItsOwner(String),
}

/// Replaces the file by a new one with `content`. The new file gets the owner, group, mode and access control list of
/// the old one; if it cannot get them, it does not replace it. If anything fails or ends the process before the last
/// step, the old file is as it was. After the last step, not even a power cut brings the old file back.
pub(super) fn replace(place: &Place, content: &str) -> Result<Replaced, Trouble> {
    look_for_marks(place)?;
    let mut new = match fill(Temporary::create(&place.directory)?, place, content)? {
        Ok(new) => new,
        Err(reason) => return Ok(Replaced::NotWithItsOwner(reason)),
    };
    if new.take_name().is_err() {
        // A file without a name cannot get one if, for example, there is no /proc.
        new = match fill(Temporary::create_named(&place.directory)?, place, content)? {
            Ok(new) => new,
            Err(reason) => return Ok(Replaced::NotWithItsOwner(reason)),
        };
    }
    new.rename_to(place)?;
    sync(&place.directory)?;
    Ok(Replaced::Yes)
}

/// Checks whether a new file could be put there. It leaves nothing behind.
pub(super) fn check(place: &Place) -> Result<(), Trouble> {
    look_for_marks(place)?;
    Temporary::create(&place.directory)?;
    Ok(())
}

/// Checks the attributes of chattr(1) before anything is tried: a file that was created in an append-only directory
/// could not be deleted again.
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

/// Returns the new file with its content, or why it may not replace the old one.
fn fill<'a>(
    mut new: Temporary<'a>,
    place: &Place,
    content: &str,
) -> Result<Result<Temporary<'a>, String>, Trouble> {
    match &place.old {
        // A new file keeps what the directory grants to named users and groups.
        None => fchmod(&new.file, NEW)?,
        Some(old) => match inherit(&new.file, place, old) {
            Ok(()) => {}
            // INVAL means an owner who is unknown in our user namespace.
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

/// Gives `new` the owner, group, mode and access control list of the old file.
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
        // The old file has no list, so the new one must not keep a list that it got from the directory.
        Err(_) => match fremovexattr(new, ACL) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        },
    }
    // The mode is set last, because changes of the owner and of the list change bits of the mode.
    fchmod(new, Mode::from_raw_mode(old.st_mode))
}

/// Writes the directory to the disk.
fn sync(directory: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(directory, ".", flags, Mode::empty()).and_then(fsync) {
        // Some directories may not be read, and some file systems do not support this.
        Ok(()) | Err(Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A new file that has not replaced anything yet. Dropping it deletes it.
struct Temporary<'a> {
    directory: &'a OwnedFd,
    file: File,
    name: Option<OsString>,
}

impl<'a> Temporary<'a> {
    /// Creates a file without a name, if the file system can do that. Then nothing is left of it, even if the process
    /// is killed.
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

    /// Gives the file a name of its own. A link cannot replace an existing name, but a rename can.
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
            // A mount point cannot be renamed over.
            Err(Errno::BUSY) => Err(Trouble::Now(
                "a file that is mounted by itself can only be rewritten in place".to_owned(),
            )),
            // A directory was put there just now.
            Err(Errno::ISDIR) => Err(Trouble::no_file()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // If this fails, nothing more can be done.
            let _ = unlinkat(self.directory, name, AtFlags::empty());
        }
    }
}

fn new_name() -> OsString {
    format!(".crate-discovery-{:016x}", fastrand::u64(..)).into()
}
