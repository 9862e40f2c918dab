//! The authority of a system: makes the certificates of its hosts.

use std::time::Duration;

use evenkeel_model::name::SystemName;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
    SignatureAlgorithm,
};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::credentials::{Credentials, Key, KeyError};
use crate::identity::Subject;
use crate::renewal::{AUTHORITY_LIFE, Validity};
use crate::request::PublicKey;
use crate::{Cause, pem, verify};

/// Bytes of a serial number (RFC 5280 §4.1.2.2 allows 20).
const SERIAL: usize = 16;

/// The key and the certificate that every host of a system trusts.
#[derive(Debug)]
pub struct Authority {
    system: SystemName,
    key: Key,
    certificate: CertificateDer<'static>,
}

/// Reports why an authority can't be made or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The text does not hold a key and a certificate.
    #[error("this is not an authority's key and certificate")]
    Parse,
    /// The system gave no randomness.
    #[error("the system gives no random numbers")]
    Random,
    /// A certificate can't be made.
    #[error("can't make a certificate")]
    Sign(#[source] Cause),
}

impl Authority {
    /// Makes the authority of a new system.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn create(system: &SystemName, now: UnixTime) -> Result<Self, AuthorityError> {
        let key = Key::generate()?;
        let mut params = template(system, &key);
        set_validity(&mut params, Validity::starting(now, AUTHORITY_LIFE));
        params.serial_number = Some(serial()?);
        let certificate = params.self_signed(&key.0).map_err(sign)?.der().clone();
        Ok(Self { system: system.clone(), key, certificate })
    }

    /// Reads what [`Self::to_pem`] has written.
    ///
    /// # Errors
    /// Something is missing or damaged.
    pub fn from_pem(text: &str, system: &SystemName) -> Result<Self, AuthorityError> {
        let key = Key::from_pem(text)?;
        let certificates = pem::read_certificates(text).unwrap_or_default();
        let [certificate] = <[_; 1]>::try_from(certificates).map_err(|_| AuthorityError::Parse)?;
        Ok(Self { system: system.clone(), key, certificate })
    }

    /// Writes key and certificate as one text. Whoever has it can speak for every host.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.key.to_pem() + &pem::certificate(&self.certificate)
    }

    /// Returns the certificate that every host trusts.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Makes a certificate. Whether `subject` may have one is for the caller to know.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn issue(
        &self,
        subject: &Subject,
        key: &PublicKey,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let name = subject.name(&self.system);
        let mut params = CertificateParams::new(vec![name.clone()]).map_err(sign)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, validity);
        let issuer = Issuer::new(template(&self.system, &self.key), &self.key.0);
        let certificate = params.signed_by(key, &issuer).map_err(sign)?;
        Ok(certificate.der().clone())
    }

    /// Makes a key and its certificate in one step.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn equip(
        &self,
        subject: &Subject,
        now: UnixTime,
        life: Duration,
    ) -> Result<Credentials, AuthorityError> {
        let key = Key::generate()?;
        let validity = Validity::starting(now, life);
        let certificate = self.issue(subject, &PublicKey::of(&key), validity)?;
        Ok(Credentials::new(&key, certificate, self.certificate.clone()))
    }

    /// Returns what tells this authority from every other one.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        verify::fingerprint(&self.certificate)
    }
}

/// Returns what is the same in the authority's certificate each time that one is made: its name
/// stands in every certificate that it issues. It is another one for each key, so that a certificate
/// of another authority is told as that, and not as one with a wrong signature.
fn template(system: &SystemName, key: &Key) -> CertificateParams {
    let hash = digest(&SHA256, PublicKey::of(key).bytes());
    let mark: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("evenkeel system {system} {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let at =
        |time: UnixTime| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_secs());
    params.not_before = at(validity.begin);
    params.not_after = at(validity.end);
}

fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = vec![0; SERIAL];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    // A serial number is positive, and its encoding has no leading zero.
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(SerialNumber::from(bytes))
}

fn sign(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Sign(error.into())
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
