//! A request for a certificate: a public key, and a proof that whoever sends it has the private one.
//!
//! It names nobody. Whom the certificate is for follows from a token, or from the certificate at
//! the other end of the connection.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{PublicKeyData as _, SigningKey as _};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::Cause;
use crate::credentials::Key;

/// Bytes of an uncompressed point on the curve P-256.
const POINT: usize = 65;
/// Begins what is signed, so that the signature is good for nothing else.
const CONTEXT: &[u8] = b"evenkeel certificate request 1\0";

/// A public key: a point on the curve P-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey([u8; POINT]);

impl PublicKey {
    /// Returns the public part of a key.
    #[must_use]
    pub fn of(key: &Key) -> Self {
        let mut point = [0; POINT];
        let bytes = key.0.der_bytes();
        // A key of this curve, and no other is ever made or read, has a point of this length.
        for (to, from) in point.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self(point)
    }

    pub(crate) const fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the key as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0)
    }
}

/// A request as it crosses the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateRequest {
    public_key: String,
    proof: String,
}

impl CertificateRequest {
    /// Asks for a certificate for `key`.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn new(key: &Key) -> Result<Self, Cause> {
        let public = PublicKey::of(key);
        let proof = key.0.sign(&signed(&public))?;
        Ok(Self { public_key: public.to_text(), proof: STANDARD.encode(proof) })
    }

    /// Returns the key, `None` without a proof of it.
    #[must_use]
    pub fn check(&self) -> Option<PublicKey> {
        let point = STANDARD.decode(&self.public_key).ok()?;
        let public = PublicKey(point.try_into().ok()?);
        let proof = STANDARD.decode(&self.proof).ok()?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public.bytes());
        key.verify(&signed(&public), &proof).ok()?;
        Some(public)
    }
}

fn signed(key: &PublicKey) -> Vec<u8> {
    [CONTEXT, key.bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_asked_for_by_its_owner() {
        let (own, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        let request = CertificateRequest::new(&own).unwrap();
        assert_eq!(request.check(), Some(PublicKey::of(&own)));
        let stolen =
            CertificateRequest { public_key: PublicKey::of(&other).to_text(), ..request.clone() };
        assert_eq!(stolen.check(), None);
        let garbled = CertificateRequest { proof: "AAAA".to_owned(), ..request };
        assert_eq!(garbled.check(), None);
    }
}
