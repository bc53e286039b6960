//! Says what went wrong with a connection, so that an operator knows where to look. The messages of the libraries are
//! for programmers. We show none of them, except a few words of an error that we do not know.

use std::{error::Error as StdError, fmt, io};

use tokio_rustls::rustls::{self, AlertDescription, CertificateError};

use crate::text::{escape, plain, plain_io};

/// The connection ended without a reason.
pub(super) const CLOSED: &str = "connection closed";
/// The server does not accept our certificate, or wants one.
pub(super) const OUR_CERTIFICATE: &str = "etcd does not accept our certificate";

/// The algorithms that we can verify, for sentences.
const ALGORITHMS: &str = "RSA of 2048 to 8192 bits, ECDSA P-256, P-384 or P-521, or Ed25519, each with SHA-2";
/// The most names of a certificate that are shown.
const MOST_NAMES: usize = 5;
/// The most characters that are shown of an unknown text.
const REMAINDER: usize = 60;

/// A sentence of ours inside an error of the libraries.
#[derive(Debug)]
pub(super) struct Said(pub(super) String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Said {}

/// An RSA key is too short. The field is its size in bits.
#[derive(Debug)]
pub(super) struct WeakKey(pub(super) usize);

impl fmt::Display for WeakKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an RSA key of {} bits", self.0)
    }
}

impl StdError for WeakKey {}

/// Whether a reason says no more than that the connection is gone.
pub(super) fn is_end(reason: &str) -> bool {
    [CLOSED, "connection reset by peer", "broken pipe"].contains(&reason)
}

/// The reason at the bottom of a failed connection or request: our own sentence, an error of TLS or of the system, or a
/// few words of an unknown error.
pub(super) fn of_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(Said(sentence)) = cause.downcast_ref() {
            return sentence.clone();
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return of_tls(tls, &[]);
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            match io.get_ref() {
                // The error inside an error of I/O is not in its chain of sources.
                Some(inner) if inner.is::<Said>() || inner.is::<rustls::Error>() => {
                    cause = inner;
                    continue;
                }
                _ if io.raw_os_error().is_some() || io.source().is_none() => return of_io(io),
                _ => {}
            }
        }
        match cause.source() {
            Some(next) => cause = next,
            None => return of_unknown(&cause.to_string()),
        }
    }
}

/// The reason in an error of the system, or of TLS inside it.
pub(super) fn of_io(error: &io::Error) -> String {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return of_tls(tls, &[]);
    }
    if error.raw_os_error().is_some() {
        return plain_io(error);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected => CLOSED.to_owned(),
        _ => of_unknown(&error.to_string()),
    }
}

fn of_unknown(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    if ["closed", "canceled", "cancelled", "broken pipe"].iter().any(|end| lower.contains(end)) {
        return CLOSED.to_owned();
    }
    format!("the connection failed ({})", remainder(text))
}

/// The beginning of an unknown text, which is enough to search for it.
pub(super) fn remainder(text: &str) -> String {
    let shown: String = text.chars().take(REMAINDER).collect();
    plain(&escape(shown.as_bytes())) + if shown.len() < text.len() { "…" } else { "" }
}

/// The reason in an error of TLS. `skipped` are the roots of `--cacert` that cannot be used.
pub(super) fn of_tls(error: &rustls::Error, skipped: &[usize]) -> String {
    use rustls::Error;
    match error {
        Error::InvalidCertificate(wrong) => of_certificate(wrong, skipped),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::NoCertificatesPresented => "it shows no certificate".to_owned(),
        Error::PeerIncompatible(_) => {
            "it speaks TLS in another way than we: allowed is TLS 1.2 or 1.3 with ECDHE".to_owned()
        }
        Error::NoApplicationProtocol => of_alert(AlertDescription::NoApplicationProtocol),
        Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => "it breaks the rules of TLS".to_owned(),
        Error::InvalidMessage(_) | Error::PeerSentOversizedRecord | Error::DecryptError => {
            "what it says is no TLS, or was changed on its way".to_owned()
        }
        _ => "TLS failed".to_owned(),
    }
}

/// The reason in the alert with which the server ended TLS (RFC 8446, section 6.2).
fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::CertificateRequired
        | Alert::NoCertificate
        | Alert::DecryptError => OUR_CERTIFICATE.to_owned(),
        Alert::CertificateExpired => format!("{OUR_CERTIFICATE} (expired)"),
        Alert::CertificateRevoked => format!("{OUR_CERTIFICATE} (revoked)"),
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            format!("it and we have no way of TLS in common: of certificates, allowed is {ALGORITHMS}")
        }
        Alert::ProtocolVersion => "it speaks another version of TLS: allowed is 1.2 or 1.3".to_owned(),
        Alert::NoApplicationProtocol => "it speaks no HTTP/2 (ALPN): this is no etcd".to_owned(),
        Alert::UnrecognisedName => "it does not serve the name of this endpoint (SNI)".to_owned(),
        Alert::AccessDenied => "it denies us access (TLS)".to_owned(),
        Alert::CloseNotify | Alert::UserCanceled => CLOSED.to_owned(),
        other => format!("it ended TLS with alert {}", u8::from(other)),
    }
}

fn of_certificate(wrong: &CertificateError, skipped: &[usize]) -> String {
    use CertificateError as Wrong;
    let etcds = |what: &str| format!("etcd's certificate {what}");
    #[allow(deprecated)] // The library names it beside what replaces it.
    match wrong {
        Wrong::Expired | Wrong::ExpiredContext { .. } => etcds("has expired"),
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
            etcds("is not valid yet: check the clocks of both machines")
        }
        // The second error comes from a CA that was made again with the same name.
        Wrong::UnknownIssuer | Wrong::BadSignature => {
            let mut sentence = etcds(
                "is of a CA that we do not trust, or lacks the intermediate one that etcd has to send: check \"--cacert\"",
            );
            if let Some(first) = skipped.first() {
                sentence += &format!(", of which certificate {first} cannot be used");
                if skipped.len() > 1 {
                    sentence += &format!(", and {} more", skipped.len() - 1);
                }
            }
            sentence
        }
        Wrong::NotValidForNameContext { expected, presented } => {
            etcds(&of_names(&expected.to_str(), presented))
        }
        Wrong::NotValidForName => etcds("is not valid for the name of this endpoint"),
        Wrong::InvalidPurpose | Wrong::InvalidPurposeContext { .. } => {
            etcds("is not one for servers: its extended key usage has to hold serverAuth")
        }
        Wrong::UnsupportedSignatureAlgorithm
        | Wrong::UnsupportedSignatureAlgorithmContext { .. }
        | Wrong::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            etcds(&format!("is signed in a way that we do not know: allowed is {ALGORITHMS}"))
        }
        Wrong::UnhandledCriticalExtension => etcds("has a critical extension that we do not know"),
        Wrong::BadEncoding => etcds("is malformed"),
        Wrong::Other(other) => match other.0.downcast_ref::<WeakKey>() {
            Some(weak) => etcds(&format!("relies on {weak}: allowed is {ALGORITHMS}")),
            None => etcds(of_chain(&other.0.to_string())),
        },
        _ => etcds("is invalid"),
    }
}

/// The errors that webpki names and rustls does not. tests/faults/tls.rs has each of these certificates.
fn of_chain(name: &str) -> &'static str {
    match name {
        "CaUsedAsEndEntity" => {
            "is that of a CA (CA:TRUE), which \"openssl req -x509\" makes unless told otherwise: allowed is one with \
             CA:FALSE"
        }
        "EndEntityUsedAsCa" => "is signed by a certificate that is no CA (CA:FALSE)",
        "NameConstraintViolation" => "names a host that its CA may not vouch for (name constraints)",
        "PathLenConstraintViolated" => "has more CAs above it than one of them allows (path length)",
        "UnsupportedCertVersion" => "is one of X.509 version 1: allowed is version 3",
        _ => "is invalid",
    }
}

/// Why the name does not match. `presented` are names as the library shows them: `DnsName("a")`,
/// `IpAddress(127.0.0.1)`.
fn of_names(expected: &str, presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        escape(inner.trim_matches('"').as_bytes())
    };
    let mut names: Vec<String> = presented.iter().take(MOST_NAMES).map(bare).collect();
    let too_wide = names.iter().any(|name| name.starts_with("*.") && name.matches('.').count() == 1);
    if presented.len() > MOST_NAMES {
        names.push("…".to_owned());
    }
    let expected = escape(expected.as_bytes());
    if names.is_empty() {
        return format!(
            "is not valid for \"{expected}\": it has no name in its subjectAltName, and its common name does not count"
        );
    }
    let hint = if too_wide { " (a * counts only before two more labels)" } else { "" };
    format!("is not valid for \"{expected}\", only for {}{hint}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{InvalidMessage, OtherError, PeerIncompatible, pki_types::ServerName};

    use super::*;

    #[test]
    fn what_a_library_says_is_replaced_or_cut_short() {
        for end in [
            io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"),
            io::Error::new(io::ErrorKind::BrokenPipe, "stream closed because of a broken pipe"),
            io::Error::other("operation was canceled"),
        ] {
            assert_eq!(of_cause(&end), CLOSED);
        }
        assert_eq!(of_cause(&io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(of_cause(&io::Error::other(Said("ours".to_owned()))), "ours");
        let long = of_cause(&io::Error::other(format!("Frame {{ {}\u{1b} }}", "x".repeat(1000))));
        assert!(long.starts_with("the connection failed (") && long.len() < 100, "{long}");
        assert!(!of_cause(&io::Error::other("a\u{1b}[0m")).contains('\u{1b}'));
    }

    /// None of the texts of rustls is shown.
    #[test]
    fn each_error_of_tls_has_words_of_its_own() {
        let name = ServerName::try_from("a.example").unwrap();
        let names = CertificateError::NotValidForNameContext {
            expected: name.to_owned(),
            presented: vec!["DnsName(\"b.example\")".to_owned(), "IpAddress(10.0.0.1)".to_owned()],
        };
        let rows = [
            (names.into(), "is not valid for \"a.example\", only for b.example, 10.0.0.1"),
            (CertificateError::Other(OtherError(Arc::new(WeakKey(1024)))).into(), "an RSA key of 1024 bits"),
            (CertificateError::BadEncoding.into(), "malformed"),
            (CertificateError::ApplicationVerificationFailure.into(), "is invalid"),
            (rustls::Error::AlertReceived(AlertDescription::CertificateExpired), "(expired)"),
            (rustls::Error::AlertReceived(AlertDescription::Unknown(200)), "alert 200"),
            (rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), "TLS 1.2 or 1.3"),
            (rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), "no TLS"),
            (rustls::Error::General("of no use".to_owned()), "TLS failed"),
        ];
        for (error, words) in rows {
            let shown = of_tls(&error, &[]);
            assert!(shown.contains(words), "{words:?} is not in {shown:?}");
            assert!(!shown.contains(&error.to_string()), "{shown}");
        }
        let skipped = of_tls(&CertificateError::UnknownIssuer.into(), &[2, 5]);
        assert!(skipped.ends_with("of which certificate 2 cannot be used, and 1 more"), "{skipped}");
    }
}
