//! Decides which certificates are taken.
//!
//! A certificate must be the authority's, whatever the clock says. Its own times are read kindly:
//! one that begins in the future is taken, because a clock that is behind is far more common than
//! any danger in it; one that has ended is taken for [`GRACE`] more, with a warning, because its
//! end must never be what takes a running system down. Removing a host from the system file, not
//! the end of its certificate, is what shuts it out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use crate::Cause;
use crate::renewal::{GRACE, since_epoch};

/// Returns the cryptography that is used everywhere.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Returns what tells one certificate from every other.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
    bytes
}

/// Judges by `verify` as of now, or as of the certificate's own beginning or end when that is near
/// enough.
fn judge_kindly<T>(
    now: UnixTime,
    verify: impl Fn(UnixTime) -> Result<T, Error>,
) -> Result<T, Error> {
    let refused = match verify(now) {
        Ok(taken) => return Ok(taken),
        Err(refused) => refused,
    };
    let Error::InvalidCertificate(why) = &refused else { return Err(refused) };
    #[expect(clippy::wildcard_enum_match_arm, reason = "CertificateError is not exhaustive")]
    match why {
        CertificateError::NotValidYetContext { not_before, .. } => {
            tracing::debug!("a certificate begins in the future: a clock is wrong");
            verify(*not_before)
        }
        CertificateError::ExpiredContext { not_after, .. }
            if since_epoch(now) <= since_epoch(*not_after) + GRACE =>
        {
            warn_of_end(now, *not_after);
            verify(*not_after)
        }
        _ => Err(refused),
    }
}

/// Warns that a certificate has ended, once an hour: hosts connect many times a second.
fn warn_of_end(now: UnixTime, end: UnixTime) {
    static WARNED_IN: AtomicU64 = AtomicU64::new(0);
    let hour = now.as_secs() / (60 * 60);
    if WARNED_IN.swap(hour, Ordering::Relaxed) != hour {
        let days = now.as_secs().saturating_sub(end.as_secs()) / (24 * 60 * 60);
        tracing::warn!(days, "a certificate has ended, or a clock is wrong; it is taken for now");
    }
}

fn roots(authority: &CertificateDer<'_>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    Ok(Arc::new(roots))
}

fn client_verifier(authority: &CertificateDer<'_>) -> Result<Arc<dyn ClientCertVerifier>, Cause> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider());
    Ok(builder.build()?)
}

/// Checks that `authority` made `certificate`, at whatever time.
pub(crate) fn check_chain(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
) -> Result<(), Error> {
    let check = |time| check_chain_at(certificate, authority, time);
    match check(UnixTime::now()) {
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => check(not_before),
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            check(not_after)
        }
        other => other,
    }
}

/// Checks that `authority` made `certificate`, and that it holds at `time`.
pub(crate) fn check_chain_at(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
    time: UnixTime,
) -> Result<(), Error> {
    let verifier = client_verifier(authority).map_err(|error| Error::General(error.to_string()))?;
    verifier.verify_client_cert(certificate, &[], time).map(drop)
}

/// How a signature of a handshake is checked, by either side: TLS 1.3 alone is spoken.
macro_rules! checks_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = provider().signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, &algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Whether the connecting side must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// It must.
    Certificate,
    /// It may have none yet: what it may ask then is for the caller to know.
    Nothing,
}

/// Takes clients with a certificate of the authority.
#[derive(Debug)]
pub(crate) struct ClientOfSystem {
    inner: Arc<dyn ClientCertVerifier>,
    demand: Demand,
}

impl ClientOfSystem {
    pub(crate) fn new(authority: &CertificateDer<'_>, demand: Demand) -> Result<Arc<Self>, Cause> {
        Ok(Arc::new(Self { inner: client_verifier(authority)?, demand }))
    }
}

impl ClientCertVerifier for ClientOfSystem {
    fn client_auth_mandatory(&self) -> bool {
        self.demand == Demand::Certificate
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        judge_kindly(now, |time| self.inner.verify_client_cert(end_entity, intermediates, time))
    }

    checks_signatures!();
}

/// Takes the server that is looked for, with a certificate of the authority.
#[derive(Debug)]
pub(crate) struct ServerOfSystem(Arc<WebPkiServerVerifier>);

impl ServerOfSystem {
    pub(crate) fn new(authority: &CertificateDer<'_>) -> Result<Arc<Self>, Cause> {
        let builder = WebPkiServerVerifier::builder_with_provider(roots(authority)?, provider());
        Ok(Arc::new(Self(builder.build()?)))
    }
}

impl ServerCertVerifier for ServerOfSystem {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        judge_kindly(now, |time| {
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, time)
        })
    }

    checks_signatures!();
}

/// Takes any host of the one system whose authority has this fingerprint: all that somebody knows
/// who holds a token.
#[derive(Debug)]
pub(crate) struct ServerOfFingerprint {
    pub(crate) fingerprint: [u8; 32],
}

impl ServerCertVerifier for ServerOfFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates.iter().find(|other| fingerprint(other) == self.fingerprint);
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = authority.ok_or(unknown)?;
        // Hosts' certificates are good for both sides of a connection.
        judge_kindly(now, |time| check_chain_at(end_entity, authority, time))?;
        Ok(ServerCertVerified::assertion())
    }

    checks_signatures!();
}
