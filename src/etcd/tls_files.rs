//! The TLS files. They are read again for every connection, so that new files need no restart.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::{self, sign::CertifiedKey};

use super::{
    crypto,
    pem::{PemFile, Roots},
    tls::Tls,
};
use crate::credentials::UnusableFile;

/// The paths of the TLS files. All are `None` if no TLS flag was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// A PEM file with the roots to which the certificate of the server must lead. `None` means the roots of the
    /// system.
    pub cacert: Option<PathBuf>,
    /// The PEM files of the client: its certificate chain, and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Whether any TLS flag was given.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }

    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// [`UnusableFile`], which names the file that is missing, holds no PEM of its kind, or does not fit the others.
    pub(super) fn read(&self) -> Result<Tls, UnusableFile> {
        let (option, path, roots) = match &self.cacert {
            Some(path) => ("--cacert", path.clone(), PemFile::read("--cacert", path)?.roots()?),
            None => ("system's roots", PathBuf::from("/etc/ssl/certs"), Roots::of_the_system()),
        };
        let identity = match &self.identity {
            Some((cert, key)) => Some(identity(cert, key)?),
            None => None,
        };
        Tls::new(roots, identity).ok_or_else(|| {
            let reason = "there is none to trust: set \"--cacert\"".to_owned();
            UnusableFile { option, path, reason }
        })
    }
}

/// Our certificate and its key, from these two files.
fn identity(cert: &Path, key: &Path) -> Result<CertifiedKey, UnusableFile> {
    let (cert, key) = (PemFile::read("--cert", cert)?, PemFile::read("--key", key)?);
    let (chain, private_key) = (cert.certificates()?, key.private_key()?);
    // The OID of secp521r1 (RFC 5480, section 2.1.1.1).
    let is_p521 = private_key.secret_der().windows(7).any(|part| part == b"\x06\x05\x2b\x81\x04\x00\x23");
    CertifiedKey::from_der(chain, private_key, &crypto::provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => key.unusable("it is not the key of the \"--cert\" file"),
        rustls::Error::InvalidCertificate(_) => cert.unusable("it holds no valid certificate"),
        _ => key.unusable(format!(
            "{}: allowed is RSA of 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519",
            if is_p521 {
                "it is a P-521 key, which we cannot sign with"
            } else {
                "we cannot sign with its key"
            },
        )),
    })
}
