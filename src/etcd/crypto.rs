//! The cryptography of TLS: that of ring, and in addition signatures of P-521 keys, which ring does not verify.
//!
//! `etcd --auto-tls` makes P-521 keys (`transport.SelfCert` in etcd's source), and etcdctl accepts them.

use std::sync::{Arc, OnceLock};

use p521::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier};
use ring::digest;
use tokio_rustls::rustls::{
    SignatureScheme,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as tls_ring},
    pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id},
};

/// ECDSA with a P-521 key and one of the SHA-2 hashes.
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

/// The cryptography for TLS to etcd. It takes some 100 KiB, which are never freed, so it is not made while no endpoint
/// is https.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        let provider = tls_ring::default_provider();
        let signature_verification_algorithms = with_p521(provider.signature_verification_algorithms);
        Arc::new(CryptoProvider { signature_verification_algorithms, ..provider })
    }))
}

/// The algorithms in `known`, and P-521. It is called once in a process, because it never frees its memory.
fn with_p521(known: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    let all = known.all.iter().copied().chain([P521_SHA256, P521_SHA384, P521_SHA512]).collect::<Vec<_>>();
    // TLS 1.3 uses only the first algorithm of a scheme. TLS 1.2 uses each of them: there the scheme does not fix the
    // curve, and a server in Go with a P-521 key signs with the first scheme that we name.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl ecparam -name secp521r1 -genkey` and `openssl dgst -sha256 -sign`, and the same with sha384 and
    /// sha512.
    const KEY: &str = "04018070c813f3d6d88c08b7571d45f2ad5ae1d27800ce31867c1ac976b49abfce7e18e840bdefa84ac3e560e69ff35f\
         6e9a76e70df5f5dbe4f2544fa36712208ec09801326b8dc36202dde6f40fc1ae4e4147dd8f8303694435c936c67c34a2\
         a2d45fd38fa7203998cbe7db67fe49a8a1927cccc64204bee75a46c7d49e464f9f139878a6";
    fn signatures() -> [(&'static dyn SignatureVerificationAlgorithm, &'static str); 3] {
        [
            (
                P521_SHA256,
                "308187024201fad69cc984e5a44961f166518860f4219f65aed7cc04f30ac63104e46ba7be1cc0147dcd248021bfd85c\
         1727c414dbb5b41eead4da8bf9cdce5ae504e11e45927a024111f76d84013e508a7586a0e49f8ea575a718d078fd04f0\
         174987d35d8913c1e8f6ecd1939bdf445c5b69e375cf3f8dfac930e1f223aeba63b23ae1aa059c75cdd6",
            ),
            (
                P521_SHA384,
                "308188024201861baf098156e9efc90eb5271b30f687c09b3998f62cd2dbf897f08290f583e5569871c7150069563b50\
         39b2b51b45564159bb8ea87a95915b574a616449df8a2c0242010e23701b46c2de1c329e09a3bfdcbd7283d274a10358\
         d8b03a7a540b10dd9cdbd089d15d9c4687fd41528f62ce10f568e2357f6ba59f1e56e6fac1eb0dcc574902",
            ),
            (
                P521_SHA512,
                "308188024201095afd3450b1b9f7496fb6a55f011f3bd0051b265642220138c444321dea86384e7ee11734899a015842\
         5a55493bbb656bda7ad2d15861eed0a7e21c26528beedc024201038b54a9a984ce1d184ee6aed6647bbac6802ae706df\
         be3a8a06c9cec09a0981adaf1744d62c3c87556d9dcc0007cfba1c2d4ceb2f86e7fb10d45905ba8b533e63",
            ),
        ]
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn signatures_of_openssl_are_good_and_changed_ones_are_not() {
        for (algorithm, signature) in signatures() {
            let (key, signature) = (bytes(KEY), bytes(signature));
            assert!(algorithm.verify_signature(&key, b"a message", &signature).is_ok(), "{algorithm:?}");
            assert!(algorithm.verify_signature(&key, b"a massage", &signature).is_err());
            for at in (0..signature.len()).step_by(17) {
                let mut changed = signature.clone();
                changed[at] ^= 1;
                assert!(algorithm.verify_signature(&key, b"a message", &changed).is_err(), "byte {at}");
            }
            assert!(algorithm.verify_signature(&key[1..], b"a message", &signature).is_err());
            assert!(algorithm.verify_signature(&key, b"a message", &[]).is_err());
        }
    }

    #[test]
    fn rings_own_algorithms_stay_first() {
        let (ours, rings) = (provider(), tls_ring::default_provider());
        let (ours, rings) = (ours.signature_verification_algorithms, rings.signature_verification_algorithms);
        assert_eq!(ours.all.len(), rings.all.len() + 3);
        let schemes = ours.supported_schemes();
        assert_eq!(
            schemes.split_last(),
            Some((&SignatureScheme::ECDSA_NISTP521_SHA512, &*rings.supported_schemes()))
        );
        for (scheme, algorithms) in ours.mapping {
            let has_p521 = algorithms.iter().any(|one| one.public_key_alg_id() == alg_id::ECDSA_P521);
            assert_eq!(
                has_p521,
                format!("{scheme:?}").starts_with("ECDSA_"),
                "{scheme:?}: TLS 1.2 does not fix the curve"
            );
        }
        for ((_, ours), (_, rings)) in ours.mapping.iter().zip(rings.mapping) {
            assert_eq!(ours[0].public_key_alg_id(), rings[0].public_key_alg_id());
        }
    }
}
