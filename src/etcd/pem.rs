//! Reads PEM files as they occur in practice: with text around the blocks, a byte order mark, or line ends of other
//! systems.
//!
//! It accepts what etcdctl accepts (`tlsutil.NewCertPool` in etcd's source, which takes a block of any label), and
//! refuses what etcdctl refuses, but says why: a block that holds no certificate means a damaged file. There is one
//! exception: a root that our TLS library cannot use is left out, if there are good ones beside it. An old root in the
//! bundle of a company must not be a reason to fail.

use std::path::Path;

use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error, PemObject},
    },
};

use crate::{
    credentials::{UnusableFile, read_file},
    text::plain_io,
};

/// Other labels for certificates: one that OpenSSL writes, with its own trust settings after the certificate, and a
/// very old one.
const OTHER_LABELS: [&str; 2] = ["TRUSTED CERTIFICATE", "X509 CERTIFICATE"];

/// The text of one PEM file, with the names that an error about it needs.
pub(super) struct PemFile<'a> {
    option: &'static str,
    path: &'a Path,
    text: String,
}

/// The roots of a file.
pub(super) struct Roots {
    pub store: RootCertStore,
    /// The smallest RSA key among them, in bits.
    pub smallest_rsa: Option<usize>,
    /// The certificates that cannot be used as a root, as their numbers in the file. The first one is 1.
    pub skipped: Vec<usize>,
}

impl Roots {
    /// The roots that the system trusts; empty if the system has none. Those that cannot be used are left out without a
    /// word.
    pub(super) fn of_the_system() -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self { store, smallest_rsa: None, skipped: Vec::new() }
    }
}

impl<'a> PemFile<'a> {
    /// Reads the file that `option` names. Blocks.
    ///
    /// # Errors
    /// [`UnusableFile`] if it cannot be read, is too long, or is DER.
    pub(super) fn read(option: &'static str, path: &'a Path) -> Result<Self, UnusableFile> {
        let mut file = Self { option, path, text: String::new() };
        let bytes = read_file(path).map_err(|e| file.unusable(plain_io(&e)))?;
        if bytes.starts_with(&[0x30, 0x82]) {
            return Err(
                file.unusable("it is DER: allowed is PEM, which \"openssl x509 -inform der\" makes of it")
            );
        }
        // The text between the blocks may have any encoding. It is not looked at.
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        for label in OTHER_LABELS {
            text = text.replace(&format!(" {label}-----"), " CERTIFICATE-----");
        }
        file.text = text.trim_start_matches('\u{feff}').to_owned();
        Ok(file)
    }

    /// All certificates of the file, at least one.
    ///
    /// # Errors
    /// [`UnusableFile`], which says which block is malformed.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, UnusableFile> {
        let mut certificates = Vec::new();
        for (block, read) in CertificateDer::pem_slice_iter(self.text.as_bytes()).enumerate() {
            let certificate = read.map_err(|error| {
                let why = match error {
                    Error::MissingSectionEnd { .. } => "has no end",
                    Error::IllegalSectionStart { .. } => "has no proper first line",
                    _ => "is no base64",
                };
                self.unusable(format!("certificate {} of it {why}", block + 1))
            })?;
            certificates.push(without_trailer(certificate));
        }
        if certificates.is_empty() {
            return Err(self.unusable("it holds no PEM certificate"));
        }
        Ok(certificates)
    }

    /// All certificates of the file, as roots to trust.
    ///
    /// # Errors
    /// [`UnusableFile`] if a block is no certificate, or if none can be a root.
    pub(super) fn roots(&self) -> Result<Roots, UnusableFile> {
        let mut roots = Roots { store: RootCertStore::empty(), smallest_rsa: None, skipped: Vec::new() };
        for (place, certificate) in self.certificates()?.into_iter().enumerate() {
            if !has_shape_of_one(&certificate) {
                return Err(self.unusable(format!("certificate {} of it is malformed", place + 1)));
            }
            if roots.store.add(certificate).is_err() {
                roots.skipped.push(place + 1);
            }
        }
        if roots.store.is_empty() {
            return Err(self.unusable("none of its certificates can be a root"));
        }
        let keys = roots.store.roots.iter().map(|root| root.subject_public_key_info.as_ref());
        roots.smallest_rsa = keys.filter_map(rsa_bits).min();
        Ok(roots)
    }

    /// The private key.
    ///
    /// # Errors
    /// [`UnusableFile`] if there is none, or if it is encrypted.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, UnusableFile> {
        PrivateKeyDer::from_pem_slice(self.text.as_bytes()).map_err(|_| {
            let is_encrypted = self.text.contains("ENCRYPTED");
            self.unusable(if is_encrypted {
                "its key is encrypted: allowed is one without a password"
            } else {
                "it holds no PEM private key"
            })
        })
    }

    pub(super) fn unusable(&self, reason: impl Into<String>) -> UnusableFile {
        UnusableFile { option: self.option, path: self.path.to_owned(), reason: reason.into() }
    }
}

/// Cuts off what follows the certificate. In a `BEGIN TRUSTED CERTIFICATE` those are trust settings.
fn without_trailer(certificate: CertificateDer<'static>) -> CertificateDer<'static> {
    match value(&certificate) {
        Some((_, _, rest)) if !rest.is_empty() => {
            let length = certificate.len() - rest.len();
            certificate[..length].to_vec().into()
        }
        _ => certificate,
    }
}

/// Whether it is a sequence of the signed part, the algorithm, and the signature (RFC 5280, section 4.1).
fn has_shape_of_one(certificate: &[u8]) -> bool {
    let Some((0x30, content, [])) = value(certificate) else { return false };
    let mut rest = content;
    for wanted in [0x30, 0x30, 0x03] {
        match value(rest) {
            Some((tag, _, after)) if tag == wanted => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

/// The size in bits of the RSA key in a SubjectPublicKeyInfo (RFC 3279, section 2.3.1), or in the content of one, which
/// is what a trust anchor holds. `None` for other keys.
pub(super) fn rsa_bits(key_info: &[u8]) -> Option<usize> {
    const RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    let (_, algorithm, rest) = value(key_info)?;
    let (algorithm, rest) = match value(rest) {
        Some(_) => (algorithm, rest),
        // A whole SubjectPublicKeyInfo has one more sequence around it.
        None => {
            let (_, inner, rest) = value(algorithm)?;
            (inner, rest)
        }
    };
    let (_, id, _) = value(algorithm)?;
    if id != RSA {
        return None;
    }
    let (_, bits, _) = value(rest)?;
    let (_, key, _) = value(bits.get(1..)?)?;
    let (_, modulus, _) = value(key)?;
    let digits = modulus.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &modulus[first..]);
    Some(digits.len() * 8 - digits.first().map_or(0, |byte| byte.leading_zeros() as usize))
}

/// Splits off one DER value: its tag, its content, and what follows it.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // 0x80 means a length that is not known. DER does not allow it.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn root() -> String {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    /// A certificate whose version does not exist.
    fn odd() -> String {
        let good = CertificateDer::from_pem_slice(root().as_bytes()).unwrap();
        let mut der = good.to_vec();
        let version = der.windows(5).position(|part| part == [0xa0, 3, 2, 1, 2]).unwrap();
        der[version + 4] = 9;
        let text = BASE64_STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    fn roots(bundle: &str) -> Result<Roots, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bundle).unwrap();
        let file = PemFile::read("--cacert", file.path()).unwrap();
        file.roots().map_err(|unusable| unusable.reason)
    }

    #[test]
    fn root_that_cannot_be_used_is_left_out_beside_a_good_one() {
        let bundle = roots(&format!("{}{}{}", root(), odd(), root())).unwrap();
        assert_eq!((bundle.store.len(), bundle.skipped), (2, vec![2]));
        assert_eq!(roots(&odd()).err().unwrap(), "none of its certificates can be a root");
    }

    #[test]
    fn block_that_is_no_certificate_is_named() {
        let good = root();
        let wrong = |block: &str| roots(&format!("{good}{block}")).err().unwrap();
        let block = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        assert_eq!(wrong(&block("bm90")), "certificate 2 of it is malformed");
        assert_eq!(wrong(&block("!")), "certificate 2 of it is no base64");
        assert_eq!(wrong("-----BEGIN CERTIFICATE-----\nbm90\n"), "certificate 2 of it has no end");
        assert_eq!(roots("").err().unwrap(), "it holds no PEM certificate");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_of_keys_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = rsa_bits(&bytes);
            let _ = has_shape_of_one(&bytes);
            let _ = without_trailer(bytes.into());
        }
    }
}
