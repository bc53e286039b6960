//! The cryptography of TLS: ring's, and signatures of P-521 keys besides, which ring does not know.
//!
//! `etcd --auto-tls` makes P-521 keys (`transport.SelfCert` in etcd's source), and etcdctl takes them.

use std::sync::Arc;

use p521::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier};
use ring::digest;
use tokio_rustls::rustls::{
    SignatureScheme,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as tls_ring},
    pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id},
};

/// ECDSA with a P-521 key and one of the hashes of SHA-2.
#[derive(Debug)]
struct P521 {
    hash: &'static digest::Algorithm,
    id: AlgorithmIdentifier,
}

static P521_SHA256: &dyn SignatureVerificationAlgorithm =
    &P521 { hash: &digest::SHA256, id: alg_id::ECDSA_SHA256 };
static P521_SHA384: &dyn SignatureVerificationAlgorithm =
    &P521 { hash: &digest::SHA384, id: alg_id::ECDSA_SHA384 };
static P521_SHA512: &dyn SignatureVerificationAlgorithm =
    &P521 { hash: &digest::SHA512, id: alg_id::ECDSA_SHA512 };

impl SignatureVerificationAlgorithm for P521 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        let hash = digest::digest(self.hash, message);
        key.verify_prehash(hash.as_ref(), &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.id
    }
}

/// What TLS to etcd is made with. Takes some 100 KiB that stay: not made where nothing is https.
pub(super) fn provider() -> Arc<CryptoProvider> {
    use std::sync::OnceLock;
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        let provider = tls_ring::default_provider();
        let signature_verification_algorithms = with_p521(provider.signature_verification_algorithms);
        Arc::new(CryptoProvider { signature_verification_algorithms, ..provider })
    }))
}

/// `known` and P-521. Made once for a process: what is in it is never freed.
fn with_p521(known: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    let all = known.all.iter().copied().chain([P521_SHA256, P521_SHA384, P521_SHA512]).collect::<Vec<_>>();
    // TLS 1.3 takes only the first algorithm of a scheme, TLS 1.2 each: there the scheme does not fix the curve.
    let mut mapping = known.mapping.to_vec();
    for (scheme, algorithms) in &mut mapping {
        let p521 = match scheme {
            SignatureScheme::ECDSA_NISTP256_SHA256 => P521_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384 => P521_SHA384,
            _ => continue,
        };
        *algorithms = algorithms.iter().copied().chain([p521]).collect::<Vec<_>>().leak();
    }
    mapping.push((SignatureScheme::ECDSA_NISTP521_SHA512, vec![P521_SHA512].leak()));
    WebPkiSupportedAlgorithms { all: all.leak(), mapping: mapping.leak() }
}
