//! Keeps a file up to date: replaced as a whole, and only on change.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::PermissionsExt,
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

/// Makes `path` hold `content`: atomically, by a rename within its directory, and only when it
/// holds something else, so that a reader never sees a part and nobody is woken for nothing.
/// A new file gets mode 0644, a replaced one keeps its own. Symbolic links are followed.
///
/// Gives whether the file was written.
///
/// # Errors
/// [`UnwritableFile`], with `option` as the flag that named the file; the file is as it was.
pub fn replace(option: &'static str, path: &Path, content: &str) -> Result<bool, UnwritableFile> {
    try_replace(path, content).map_err(|error| UnwritableFile {
        option,
        path: path.to_owned(),
        reason: plain_io(&error),
    })
}

fn try_replace(path: &Path, content: &str) -> io::Result<bool> {
    let target = follow(path)?;
    let mode = match fs::metadata(&target) {
        Ok(old) if !old.is_file() => return Err(io::Error::other("it is no regular file")),
        Ok(old) => {
            // An unreadable old file is simply replaced.
            if fs::read(&target).is_ok_and(|old| old == content.as_bytes()) {
                return Ok(false);
            }
            old.permissions().mode() & 0o7777
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0o644,
        Err(error) => return Err(error),
    };
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(".crate-discovery-").tempfile_in(directory)?;
    file.write_all(content.as_bytes())?;
    // Not left to the umask, and not the 0600 of a temporary file: CrateDB runs as another user.
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(&target).map_err(|error| error.error)?;
    Ok(true)
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

    fn write(path: &Path, content: &str) -> bool {
        replace("--output", path, content).unwrap()
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
        let refused = replace("--output", dir.path(), "a\n").unwrap_err().to_string();
        assert!(refused.contains("no regular file"), "{refused}");
        let refused = replace("--output", &dir.path().join("no/such"), "a\n").unwrap_err().to_string();
        assert!(refused.starts_with("failed to write \"--output\" file"), "{refused}");
        assert!(refused.ends_with("no such file or directory"), "{refused}");
    }
}
