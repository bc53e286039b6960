//! Keeps a file up to date, and writes it only if its content changes. The file is replaced as a whole, or rewritten in
//! place.

mod place;
mod replace;
mod rewrite;

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use tracing::warn;

use self::{place::Place, replace::Replaced};
use crate::text::plain_io;

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write \"{option}\" file {path:?}: {reason}", path = path.display().to_string())]
pub struct UnwritableFile {
    /// The flag that names the file, for messages.
    pub option: &'static str,
    /// The path of the file.
    pub path: PathBuf,
    /// The reason.
    pub reason: String,
    /// Whether waiting cannot help, because something that is no regular file is at this place.
    pub is_lasting: bool,
}

/// Why a file cannot be written.
#[derive(Debug)]
enum Trouble {
    /// It cannot be written now. The text is a sentence without its subject.
    Now(String),
    /// It cannot be written until somebody moves what is at its place.
    Lasting(String),
}

impl Trouble {
    fn no_file() -> Self {
        Self::Lasting("it is no regular file".to_owned())
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Now(plain_io(&error))
    }
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// The result of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The file had this content already.
    Unchanged,
    /// A new file has replaced it.
    Replaced,
    /// The same file has the new content.
    Rewritten {
        /// Why it was not replaced, if it should have been.
        instead: Option<String>,
    },
}

impl Written {
    /// Warns if a file was rewritten although it should have been replaced.
    pub fn warn_if_rewritten_instead(&self, path: &Path) {
        if let Self::Rewritten { instead: Some(reason) } = self {
            warn!(
                file = %path.display(),
                reason,
                "the file is rewritten in place instead of being replaced: who reads it just then may see a part"
            );
        }
    }
}

/// How a file gets its new content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By a rename within its directory. A reader never sees a part of the content.
    Replace,
    /// By writing into the existing file. That is for a reader who has only that file: a file that is mounted by itself
    /// into a container stays the old one for ever, even if another file gets its name.
    ///
    /// Room for the new content is reserved before the old content is touched, and a write that fails is undone. The
    /// new content is one write. If the old content was longer, its rest is first overwritten by a line of `#`, and
    /// then cut off. A reader at that moment, or after a power cut, can still see the beginning of one content and the
    /// end of the other, and has to read again later. CrateDB does that every second as long as it looks for a master.
    InPlace,
}

/// A file, and how it is written.
#[derive(Clone, Debug)]
pub struct Target {
    /// The flag that names the file, for messages.
    pub option: &'static str,
    /// The path of the file. Symbolic links are followed, except a link that another user put into a directory where
    /// everybody may write.
    pub path: PathBuf,
    /// How it gets new content.
    pub how: How,
}

impl Target {
    /// Gives the file this `content`. If it has it already, nothing is written, so that no watcher of the file is
    /// woken. A new file gets mode 0644. A file that is replaced passes its owner, group, mode and access control list
    /// on to the new one. If that is not allowed, it is rewritten in place, and [`Written`] tells it.
    ///
    /// Blocks as long as the disk does.
    ///
    /// # Errors
    /// [`UnwritableFile`]; the file is as it was.
    pub fn write(&self, content: &str) -> Result<Written, UnwritableFile> {
        self.try_write(content).map_err(|trouble| self.unwritable(trouble))
    }

    fn try_write(&self, content: &str) -> Result<Written, Trouble> {
        let place = Place::find(&self.path)?;
        if place.holds(content) {
            return Ok(Written::Unchanged);
        }
        let rewritten = |changed, instead| {
            if changed { Written::Rewritten { instead } } else { Written::Unchanged }
        };
        if self.how == How::InPlace && place.old.is_some() {
            return Ok(rewritten(rewrite::rewrite(&place, content)?, None));
        }
        match replace::replace(&place, content)? {
            Replaced::Yes => Ok(Written::Replaced),
            Replaced::NotWithItsOwner(reason) => match rewrite::rewrite(&place, content) {
                Ok(changed) => Ok(rewritten(changed, Some(reason))),
                Err(Trouble::Lasting(why)) => Err(Trouble::Lasting(why)),
                Err(Trouble::Now(why)) => {
                    Err(Trouble::Now(format!("{reason}; nor can it be rewritten in place: {why}")))
                }
            },
        }
    }

    /// Creates the file, empty, if there is none. If there is one, it checks whether it can be written later. Blocks as
    /// [`Target::write`].
    ///
    /// # Errors
    /// [`UnwritableFile`].
    pub fn create(&self) -> Result<Written, UnwritableFile> {
        let create = || match Place::find(&self.path)? {
            place if place.old.is_none() => self.try_write(""),
            place => self.try_check(&place),
        };
        create().map_err(|trouble| self.unwritable(trouble))
    }

    /// Checks whether the file can be written later. It changes nothing. Blocks as [`Target::write`].
    ///
    /// # Errors
    /// [`UnwritableFile`].
    pub fn check(&self) -> Result<Written, UnwritableFile> {
        Place::find(&self.path)
            .and_then(|place| self.try_check(&place))
            .map_err(|trouble| self.unwritable(trouble))
    }

    fn try_check(&self, place: &Place) -> Result<Written, Trouble> {
        match self.how {
            How::InPlace if place.old.is_some() => rewrite::check(place)?,
            _ => replace::check(place)?,
        }
        Ok(Written::Unchanged)
    }

    fn unwritable(&self, trouble: Trouble) -> UnwritableFile {
        let (reason, is_lasting) = match trouble {
            Trouble::Now(reason) => (reason, false),
            Trouble::Lasting(reason) => (reason, true),
        };
        UnwritableFile { option: self.option, path: self.path.clone(), reason, is_lasting }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    use super::*;

    fn target(path: &Path, how: How) -> Target {
        Target { option: "--output", path: path.to_owned(), how }
    }

    fn write(path: &Path, content: &str) -> bool {
        match target(path, How::Replace).write(content).unwrap() {
            Written::Unchanged => false,
            Written::Replaced => true,
            written @ Written::Rewritten { .. } => panic!("{written:?}"),
        }
    }

    #[test]
    fn a_file_is_written_on_change_only_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        assert!(write(&path, "a\n"));
        let first = fs::metadata(&path).unwrap();
        assert_eq!(first.permissions().mode() & 0o777, 0o644);
        assert!(!write(&path, "a\n"));
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(write(&path, "b\n"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        symlink("target", &link).unwrap();
        assert!(write(&link, "a\n"));
        assert!(write(&link, "b\n"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(target).unwrap(), "b\n");
    }

    #[test]
    fn what_cannot_be_replaced_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for how in [How::Replace, How::InPlace] {
            for refused in
                [target(dir.path(), how).write("a\n").map(drop), target(dir.path(), how).create().map(drop)]
            {
                let refused = refused.unwrap_err();
                assert!(refused.is_lasting);
                let refused = refused.to_string();
                assert!(refused.contains("no regular file"), "{refused}");
            }
            let missing = target(&dir.path().join("no/such"), how);
            for refused in
                [missing.write("a\n").map(drop), missing.create().map(drop), missing.check().map(drop)]
            {
                let refused = refused.unwrap_err();
                assert!(!refused.is_lasting);
                let refused = refused.to_string();
                assert!(refused.starts_with("failed to write \"--output\" file"), "{refused}");
                assert!(refused.ends_with("no such file or directory"), "{refused}");
            }
        }
    }

    #[test]
    fn a_file_that_is_rewritten_in_place_stays_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let target = target(&path, How::InPlace);
        target.create().unwrap();
        let first = fs::metadata(&path).unwrap();
        assert_eq!((first.len(), first.permissions().mode() & 0o777), (0, 0o644));
        for content in ["a:1\nb:1\n", "a:1\nb:1\nc:1\n", "c:1\n", ""] {
            assert_eq!(target.write(content).unwrap(), Written::Rewritten { instead: None });
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(target.write(content).unwrap(), Written::Unchanged);
        }
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino());
    }

    #[test]
    fn a_file_that_is_there_is_not_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "a:1\n").unwrap();
        for how in [How::Replace, How::InPlace] {
            target(&path, how).create().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "a:1\n");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
