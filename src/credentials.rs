//! Files that let us in, and the password: read anew each time, so that rotation needs no restart.

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

/// Longest file that is read, in bytes; the bundle of all public roots has 0.2 MiB.
const LONGEST: u64 = 1024 * 1024;

/// The user and where the password is.
#[derive(Clone, Debug)]
pub struct Login {
    /// `--user`.
    pub user: String,
    /// The first source of a password that there is.
    pub password: Password,
    /// That others may read the file was said; of clones, too.
    exposure_is_said: Arc<AtomicBool>,
}

/// Where the password comes from.
#[derive(Clone, Debug)]
pub enum Password {
    /// A file, read anew at every login, and the name of what named it.
    File(PathBuf, &'static str),
    /// From the environment.
    Literal(Secret),
}

/// A text that never shows in a log or an error.
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
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl UnusableFile {
    /// Whether no waiting can mend it: something else than a file has the place. Looks at the disk, and may block.
    pub fn is_lasting(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| !found.is_file())
    }
}

impl Login {
    /// A user and where its password is; nothing is read yet.
    pub fn new(user: String, password: Password) -> Self {
        Self { user, password, exposure_is_said: Arc::default() }
    }

    /// Reads the password. A file that everybody on this machine may read or change is warned about, once.
    ///
    /// # Errors
    /// [`UnusableFile`] when the password file is missing, empty or not UTF-8.
    pub fn read_password(&self) -> Result<Secret, UnusableFile> {
        let (path, option) = match &self.password {
            Password::Literal(secret) => return Ok(secret.clone()),
            Password::File(path, option) => (path, *option),
        };
        let unusable = |reason: String| UnusableFile { option, path: path.clone(), reason };
        let bytes = read_file(path).map_err(|e| unusable(plain_io(&e)))?;
        let text = String::from_utf8(bytes).map_err(|_| unusable("it is not UTF-8".to_owned()))?;
        // One newline is the editor's, a second one would be the password's.
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

/// Whether the mode of the file and of all directories above it let everybody in. Where that cannot be found out, not.
fn is_exposed(path: &Path) -> bool {
    let grants =
        |path: &Path, bits| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & bits != 0);
    fs::canonicalize(path).is_ok_and(|path| {
        grants(&path, 0o006) && path.ancestors().skip(1).all(|directory| grants(directory, 0o001))
    })
}

/// Reads a regular file: a pipe or a device could keep us from keeping the lease alive. One that is longer than any file
/// of its kind is refused.
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
