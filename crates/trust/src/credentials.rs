//! What one side of a connection proves itself with: a key, its certificate, and the authority.

use std::fmt;
use std::time::Duration;

use evenkeel_model::name::SystemName;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::{CertificateError, Error};

use crate::identity::Subject;
use crate::renewal::Validity;
use crate::{Cause, pem, verify};

/// A private key. Its text never appears in a log.
pub struct Key(pub(crate) KeyPair);

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(…)")
    }
}

/// Reports why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system gave no randomness.
    #[error("can't make a key")]
    Generate(#[source] Cause),
    /// The text is not a key.
    #[error("this is not a private key as Evenkeel writes them")]
    Parse,
}

impl Key {
    /// Makes a new key.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        key.map(Self).map_err(|error| KeyError::Generate(error.into()))
    }

    /// Reads a key of [`Self::to_pem`].
    ///
    /// # Errors
    /// It is none.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = pem::read_key(text).ok_or(KeyError::Parse)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
        key.map(Self).map_err(|_| KeyError::Parse)
    }

    /// Writes the key as text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::key(&self.der())
    }

    pub(crate) fn der(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der())
    }
}

/// A key with its certificate and the authority that made it.
#[derive(Debug)]
pub struct Credentials {
    pub(crate) key: PrivatePkcs8KeyDer<'static>,
    /// Speaks for somebody.
    pub certificate: CertificateDer<'static>,
    /// Made the certificate.
    pub authority: CertificateDer<'static>,
}

/// Reports why credentials can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// There are not a key and two certificates.
    #[error("it does not hold a key, a certificate and the authority's")]
    Incomplete,
    /// The authority did not make the certificate.
    #[error("the certificate is not of the authority beside it")]
    Foreign(#[source] Cause),
    /// The certificate speaks for nobody of this system.
    #[error("the certificate is for nobody of system `{0}`")]
    Nobody(SystemName),
    /// The key is not the certificate's.
    #[error("the key does not fit the certificate")]
    Key(#[source] Cause),
}

impl Credentials {
    /// Joins a key with the certificate that was made for it.
    #[must_use]
    pub fn new(
        key: &Key,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Self {
        Self { key: key.der(), certificate, authority }
    }

    /// Reads what [`Self::to_pem`] has written.
    ///
    /// # Errors
    /// Something is missing or damaged.
    pub fn from_pem(text: &str) -> Result<Self, CredentialsError> {
        let key = pem::read_key(text).ok_or(CredentialsError::Incomplete)?;
        let certificates = pem::read_certificates(text).unwrap_or_default();
        let [certificate, authority] =
            <[_; 2]>::try_from(certificates).map_err(|_| CredentialsError::Incomplete)?;
        Ok(Self { key, certificate, authority })
    }

    /// Writes all as one text, so that no file ever holds a key without its certificate.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let certificates = [&self.certificate, &self.authority].map(pem::certificate);
        pem::key(&self.key) + &certificates.concat()
    }

    /// Checks that the parts belong together, and returns whom they speak for.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self, system: &SystemName) -> Result<Subject, CredentialsError> {
        verify::check_chain(&self.certificate, &self.authority)
            .map_err(|error| CredentialsError::Foreign(error.into()))?;
        Subject::of(&self.certificate, system)
            .ok_or_else(|| CredentialsError::Nobody(system.clone()))
    }

    /// Returns when the certificate holds.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        validity(&self.certificate, &self.authority)
    }
}

/// Reads when a certificate holds: the verifier tells by which end a time is off.
fn validity(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> Option<Validity> {
    let at = |seconds| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        verify::check_chain_at(certificate, authority, time)
    };
    let begin = match at(0) {
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => not_before,
        Ok(()) | Err(_) => return None,
    };
    // The last second of the year 9999, which is the last that a certificate can name.
    let end = match at(253_402_300_799) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            not_after
        }
        Ok(()) | Err(_) => return None,
    };
    Some(Validity { begin, end })
}
