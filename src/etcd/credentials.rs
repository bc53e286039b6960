//! TLS files and the password, read anew at every login so that rotation needs no restart.

use std::{
    fmt, fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use etcd_client::{Certificate, Identity, TlsOptions};
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use tracing::warn;

use crate::text::plain_io;

/// Far longer than the roots of any system.
const LONGEST: u64 = 1 << 20;

/// Where the TLS material is. Empty means: no TLS flag was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM certificates that the server's certificate must lead to; `None`: the system's roots.
    pub cacert: Option<PathBuf>,
    /// PEM certificate chain and private key of the client.
    pub identity: Option<(PathBuf, PathBuf)>,
}

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

impl TlsFiles {
    /// Whether any TLS flag was given.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// [`UnusableFile`] names the file that is missing, holds no PEM of its kind, or does not fit
    /// the others.
    pub fn read(&self) -> Result<TlsOptions, UnusableFile> {
        // The client library takes PEM text and reports neither which file nor what is wrong with
        // it, so the same bytes go through rustls first.
        let mut options = TlsOptions::new();
        let mut roots = RootCertStore::empty();
        match &self.cacert {
            None => options = options.with_enabled_roots(),
            Some(path) => {
                let file = PemFile::read("--cacert", path)?;
                for certificate in file.certificates()? {
                    roots
                        .add(certificate)
                        .map_err(|e| file.unusable(format!("it holds no valid certificate ({e})")))?;
                }
                options = options.ca_certificate(Certificate::from_pem(&file.pem));
            }
        }
        if let Some((cert, key)) = &self.identity {
            let (cert, key) = (PemFile::read("--cert", cert)?, PemFile::read("--key", key)?);
            let chain = cert.certificates()?;
            let private_key = PrivateKeyDer::from_pem_slice(&key.pem)
                .map_err(|_| key.unusable("it holds no PEM private key"))?;
            ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| cert.unusable(e.to_string()))?
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, private_key)
                .map_err(|error| match error {
                    rustls::Error::InconsistentKeys(_) => {
                        key.unusable("it is not the key of the \"--cert\" file")
                    }
                    rustls::Error::InvalidCertificate(why) => {
                        cert.unusable(format!("it holds no valid certificate ({why:?})"))
                    }
                    other => key.unusable(format!("it cannot be used: {other}")),
                })?;
            options = options.identity(Identity::from_pem(&cert.pem, &key.pem));
        }
        Ok(options)
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

/// The bytes of one PEM file, and how to complain about it.
struct PemFile<'a> {
    option: &'static str,
    path: &'a Path,
    pem: Vec<u8>,
}

impl<'a> PemFile<'a> {
    fn read(option: &'static str, path: &'a Path) -> Result<Self, UnusableFile> {
        let mut file = Self { option, path, pem: Vec::new() };
        file.pem = read_file(path).map_err(|e| file.unusable(plain_io(&e)))?;
        Ok(file)
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, UnusableFile> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.pem)
            .collect::<Result<_, _>>()
            .map_err(|e| self.unusable(format!("it is malformed: {e}")))?;
        if certificates.is_empty() {
            return Err(self.unusable("it holds no PEM certificate"));
        }
        Ok(certificates)
    }

    fn unusable(&self, reason: impl Into<String>) -> UnusableFile {
        UnusableFile { option: self.option, path: self.path.to_owned(), reason: reason.into() }
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

/// Reads a regular file: a pipe or a device could keep us from keeping the lease alive.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let kind = fs::metadata(path)?;
    if kind.is_file() || kind.is_dir() {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::other("it is longer than 1 MiB"));
        }
        Ok(bytes)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}
