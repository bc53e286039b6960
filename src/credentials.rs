//! Reads the files with credentials, and the password. They are read again each time, so that new ones need no restart.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::warn;

use crate::text::plain_io;

/// The longest file that is read, in bytes. The bundle of all public roots has 0.2 MiB.
const LONGEST: u64 = 1024 * 1024;

/// A user, and where the password is.
#[derive(Clone, Debug)]
pub struct Login {
    /// `--user`.
    pub user: String,
    /// The first source of a password that exists.
    pub password: Password,
    /// Whether it was logged that others may read the file. Clones share it.
    exposure_is_said: Arc<AtomicBool>,
}

/// Where the password comes from.
#[derive(Clone, Debug)]
pub enum Password {
    /// A file, which is read again at every login, and the flag or variable that names it.
    File(PathBuf, &'static str),
    /// The password itself, from the environment.
    Literal(Secret),
}

/// A text that is never shown in a log or an error.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read {option:?} file {path:?}: {reason}", path = path.display().to_string())]
pub struct UnusableFile {
    /// The flag or variable that names the file.
    pub option: &'static str,
    /// The path of the file.
    pub path: PathBuf,
    /// The reason.
    pub reason: String,
}

impl UnusableFile {
    /// Whether waiting cannot help, because something that is no regular file is at this place. It looks at the disk,
    /// and may block.
    pub fn is_lasting(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| !found.is_file())
    }
}

impl Login {
    /// A user, and where the password is. Nothing is read yet.
    pub fn new(user: String, password: Password) -> Self {
        Self { user, password, exposure_is_said: Arc::default() }
    }

    /// Reads the password. Warns once if everybody on this machine may read or change the file. Blocks.
    ///
    /// # Errors
    /// [`UnusableFile`] if the password file is missing, empty or not UTF-8.
    pub fn read_password(&self) -> Result<Secret, UnusableFile> {
        let (path, option) = match &self.password {
            Password::Literal(secret) => return Ok(secret.clone()),
            Password::File(path, option) => (path, *option),
        };
        let unusable = |reason: String| UnusableFile { option, path: path.clone(), reason };
        let bytes = read_file(path).map_err(|e| unusable(plain_io(&e)))?;
        let text = String::from_utf8(bytes).map_err(|_| unusable("it is not UTF-8".to_owned()))?;
        // One newline comes from the editor. A second one would be a part of the password.
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if password.is_empty() {
            return Err(unusable("it is empty".to_owned()));
        }
        if is_exposed(path) && !self.exposure_is_said.swap(true, Ordering::Relaxed) {
            let file = path.display().to_string();
            warn!(
                option,
                file, "every user of this machine may read or change this password file: chmod o= ends that"
            );
        }
        Ok(Secret(password.to_owned()))
    }
}

/// Whether the modes of the file and of all directories above it let everybody in. `false` if that cannot be found out.
fn is_exposed(path: &Path) -> bool {
    let grants =
        |path: &Path, bits| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & bits != 0);
    fs::canonicalize(path).is_ok_and(|path| {
        grants(&path, 0o006) && path.ancestors().skip(1).all(|directory| grants(directory, 0o001))
    })
}

/// Reads a regular file. A pipe or a device could block for ever, so it is refused, as is a file of more than 1 MiB.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let kind = fs::metadata(path)?;
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::other("it is too long: allowed is 1 MiB"));
    }
    Ok(bytes)
}
