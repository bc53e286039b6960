//! Keeps a file up to date, and writes it only on change: replaced as a whole, or rewritten in place.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::text::plain_io;

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write \"{option}\" file {path:?}: {reason}", path = path.display().to_string())]
pub struct UnwritableFile {
    /// The flag that names the file.
    pub option: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// How a file gets its new content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By a rename within its directory: a reader never sees a part.
    Replace,
    /// Into the file that is there, for a reader who has only that file: one that is mounted by itself into a container
    /// stays the old one for ever when another takes its name.
    ///
    /// The new content is one write, and a longer old one is first overwritten by a line of `#`, then cut off. A reader
    /// who reads just then can still see the beginning of one content and the end of another, and whoever counts on
    /// this has to come again, as CrateDB does every second for as long as it looks for a master.
    InPlace,
}

/// A file, and how it is written.
#[derive(Clone, Debug)]
pub struct Target {
    /// The flag that names the file.
    pub option: &'static str,
    /// The file. Symbolic links are followed.
    pub path: PathBuf,
    /// How its content changes.
    pub how: How,
}

impl Target {
    /// Makes the file hold `content`, unless it does already, so that nobody is woken for nothing.
    /// A new file gets mode 0644, an old one keeps its own.
    ///
    /// Gives whether the file was written.
    ///
    /// # Errors
    /// [`UnwritableFile`]; the file is as it was, unless it was written in place.
    pub fn write(&self, content: &str) -> Result<bool, UnwritableFile> {
        match self.how {
            How::Replace => try_replace(&self.path, content),
            How::InPlace => try_rewrite(&self.path, content),
        }
        .map_err(|error| self.unwritable(&error))
    }

    /// Makes the file, empty, unless it is there already, and looks whether it can be written later on.
    ///
    /// # Errors
    /// [`UnwritableFile`].
    pub fn create(&self) -> Result<(), UnwritableFile> {
        let create = || {
            if !self.path.exists() {
                try_replace(&self.path, "")?;
            }
            Ok(())
        };
        create().map_err(|error| self.unwritable(&error))?;
        self.check()
    }

    /// Looks whether the file can be written later on; changes nothing.
    ///
    /// # Errors
    /// [`UnwritableFile`].
    pub fn check(&self) -> Result<(), UnwritableFile> {
        let check = || {
            let target = follow(&self.path)?;
            let old = mode_of(&target)?;
            match self.how {
                How::InPlace if old.is_some() => fs::File::options().write(true).open(&target).map(drop),
                _ => temporary_beside(&target).map(drop),
            }
        };
        check().map_err(|error| self.unwritable(&error))
    }

    fn unwritable(&self, error: &io::Error) -> UnwritableFile {
        let mut reason = plain_io(error);
        // Nothing can take the name of a mount.
        if error.kind() == io::ErrorKind::ResourceBusy {
            reason += ": a file that is mounted by itself can only be rewritten in place";
        }
        UnwritableFile { option: self.option, path: self.path.clone(), reason }
    }
}

fn try_replace(path: &Path, content: &str) -> io::Result<bool> {
    let target = follow(path)?;
    let mode = mode_of(&target)?;
    // An unreadable old file is simply replaced.
    if mode.is_some() && fs::read(&target).is_ok_and(|old| old == content.as_bytes()) {
        return Ok(false);
    }
    let mut file = temporary_beside(&target)?;
    file.write_all(content.as_bytes())?;
    // Not left to the umask, and not the 0600 of a temporary file: CrateDB runs as another user.
    file.as_file().set_permissions(fs::Permissions::from_mode(mode.unwrap_or(0o644)))?;
    file.as_file().sync_all()?;
    file.persist(&target).map_err(|error| error.error)?;
    Ok(true)
}

fn try_rewrite(path: &Path, content: &str) -> io::Result<bool> {
    let target = follow(path)?;
    if mode_of(&target)?.is_none() {
        return try_replace(&target, content);
    }
    let file = fs::File::options().read(true).write(true).open(&target)?;
    let old = fs::read(&target)?;
    if old == content.as_bytes() {
        return Ok(false);
    }
    file.write_all_at(&covering(content, old.len()), 0)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()?;
    Ok(true)
}

/// `content`, and over the rest of an old one that was longer a comment: whoever reads before it is cut off finds no half
/// of a line.
fn covering(content: &str, old: usize) -> Vec<u8> {
    let mut bytes = content.as_bytes().to_vec();
    bytes.resize(bytes.len().max(old), b'#');
    bytes
}

/// The mode of a regular file, or none where there is no file.
fn mode_of(target: &Path) -> io::Result<Option<u32>> {
    match fs::metadata(target) {
        Ok(old) if !old.is_file() => Err(io::Error::other("it is no regular file")),
        Ok(old) => Ok(Some(old.permissions().mode() & 0o7777)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file of our own that can take the name of `target`; gone when dropped.
fn temporary_beside(target: &Path) -> io::Result<tempfile::NamedTempFile> {
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    tempfile::Builder::new().prefix(".crate-discovery-").tempfile_in(directory)
}

/// The file behind a symbolic link, which a rename would otherwise replace.
fn follow(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(target) => Ok(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            // A link to nothing yet: made where it points to.
            Ok(target) => Ok(path.parent().unwrap_or(Path::new(".")).join(target)),
            Err(_) => Ok(path.to_owned()),
        },
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn target(path: &Path, how: How) -> Target {
        Target { option: "--output", path: path.to_owned(), how }
    }

    fn write(path: &Path, content: &str) -> bool {
        target(path, How::Replace).write(content).unwrap()
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
            for refused in [target(dir.path(), how).write("a\n").map(drop), target(dir.path(), how).create()]
            {
                let refused = refused.unwrap_err().to_string();
                assert!(refused.contains("no regular file"), "{refused}");
            }
            let missing = target(&dir.path().join("no/such"), how);
            for refused in [missing.write("a\n").map(drop), missing.create(), missing.check()] {
                let refused = refused.unwrap_err().to_string();
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
            assert!(target.write(content).unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert!(!target.write(content).unwrap());
        }
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino());
    }

    #[test]
    fn what_covers_a_longer_content_is_a_comment() {
        assert_eq!(covering("a:1\n", 9), b"a:1\n#####");
        assert_eq!(covering("a:1\n", 5), b"a:1\n#");
        assert_eq!(covering("a:1\n", 3), b"a:1\n");
        assert_eq!(covering("", 4), b"####");
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
