//! TLS with a member of etcd: what is checked, what we show, and the handshake.

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

/// How TLS is spoken to one member.
pub struct Tls {
    config: Arc<ClientConfig>,
    client: Arc<ClientCertificate>,
    skipped_roots: Vec<usize>,
}

impl Tls {
    /// Trusts `roots`, and shows `identity` to who asks for it. None where no root is given at all.
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

    /// Whether the other side has asked for our certificate.
    pub(super) fn is_asked(&self) -> bool {
        self.client.is_asked.load(Ordering::Relaxed)
    }

    /// Makes a connection to `host` a TLS one. A member that does not say which protocol it speaks (a TLS terminator
    /// without ALPN) is taken to speak HTTP/2, as etcdctl does.
    ///
    /// # Errors
    /// A sentence. The caller bounds the time. Safe to drop.
    pub(super) async fn handshake(
        &self,
        host: &Host,
        stream: TcpStream,
    ) -> Result<TlsStream<Overheard<TcpStream>>, String> {
        // The dot that ends an absolute name is the resolver's; certificates have none.
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

/// Our certificate, and whether anybody wants to see it.
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

/// The library's verifier, whose every judgement stands. It only says more: the library says of an RSA key that is too
/// short no more than that its signature is bad.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    /// Of the roots, in bits.
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
