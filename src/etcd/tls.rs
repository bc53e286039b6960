//! TLS with a member of etcd: how its certificate is checked, which certificate we show, and the handshake.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme,
        client::{
            ResolvesClientCert, WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        pki_types::{CertificateDer, ServerName, UnixTime},
        server::ParsedCertificate,
        sign::CertifiedKey,
    },
};

use super::{
    crypto,
    overheard::{Heard, Overheard},
    pem::{Roots, rsa_bits},
    words::{self, WeakKey},
};
use crate::host::Host;

/// The shortest RSA key that ring verifies with, in bits.
const SHORTEST_RSA: usize = 2048;

/// The TLS settings for one connection.
pub struct Tls {
    config: Arc<ClientConfig>,
    client: Arc<ClientCertificate>,
    skipped_roots: Vec<usize>,
}

impl Tls {
    /// Trusts `roots`, and shows `identity` to a server that asks for it. `None` if there is no root at all.
    pub(super) fn new(roots: Roots, identity: Option<CertifiedKey>) -> Option<Self> {
        let Roots { store, smallest_rsa, skipped } = roots;
        let provider = crypto::provider();
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
            .build()
            .ok()?;
        let client = Arc::new(ClientCertificate { key: identity.map(Arc::new), is_asked: false.into() });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { inner, smallest_rsa }))
            .with_client_cert_resolver(Arc::clone(&client) as Arc<dyn ResolvesClientCert>);
        config.alpn_protocols.push(b"h2".to_vec());
        Some(Self { config: Arc::new(config), client, skipped_roots: skipped })
    }

    /// Whether we have a certificate to show.
    pub(super) fn shows_certificate(&self) -> bool {
        self.client.key.is_some()
    }

    /// Whether the server has asked for our certificate.
    pub(super) fn is_asked(&self) -> bool {
        self.client.is_asked.load(Ordering::Relaxed)
    }

    /// Does the TLS handshake with `host` over `stream`. If the server does not say which protocol it speaks (for
    /// example a TLS terminator without ALPN), we assume HTTP/2, as etcdctl does.
    ///
    /// # Errors
    /// A sentence that says what failed. The caller limits the time. Safe to drop.
    pub(super) async fn handshake(
        &self,
        host: &Host,
        stream: TcpStream,
    ) -> Result<TlsStream<Overheard<TcpStream>>, String> {
        // A dot at the end of a name is for the resolver only. Certificates do not have it.
        let name = host.as_str().strip_suffix('.').unwrap_or(host.as_str());
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| "its name can stand in no certificate".to_owned())?;
        let heard = Heard::default();
        let stream = Overheard::new(stream, heard.clone());
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await.map_err(|error| {
            let said = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match said {
                Some(rustls::Error::InvalidMessage(_)) | None => {
                    heard.instead_of_tls().unwrap_or_else(|| words::of_io(&error))
                }
                Some(error) => words::of_tls(error, &self.skipped_roots),
            }
        })
    }
}

/// Our certificate, and whether the server asked for it.
#[derive(Debug)]
struct ClientCertificate {
    key: Option<Arc<CertifiedKey>>,
    is_asked: AtomicBool,
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.is_asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

/// The verifier of the library. It decides, and this type only explains more: for an RSA key that is too short, the
/// library says no more than that the signature is bad.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    /// The smallest RSA key among the roots, in bits.
    smallest_rsa: Option<usize>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let bits = |certificate: &CertificateDer<'_>| {
            rsa_bits(ParsedCertificate::try_from(certificate).ok()?.subject_public_key_info().as_ref())
        };
        let weak = |bits: Option<usize>| {
            bits.filter(|bits| *bits < SHORTEST_RSA)
                .map(|bits| CertificateError::Other(OtherError(Arc::new(WeakKey(bits)))).into())
        };
        let verified = self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            Ok(verified) => weak(bits(certificate)).map_or(Ok(verified), Err),
            Err(error @ rustls::Error::InvalidCertificate(CertificateError::BadSignature)) => {
                let signers = intermediates.iter().filter_map(bits).chain(self.smallest_rsa).min();
                Err(weak(signers).unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
