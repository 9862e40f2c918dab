//! What somebody with a token and a host of the system say to each other.

use std::io;
use std::sync::Arc;

use evenkeel_model::name::SystemName;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, ClientConfig, Error};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::credentials::{Credentials, Key};
use crate::identity::Subject;
use crate::request::CertificateRequest;
use crate::stream::Stream;
use crate::tls::within;
use crate::token::Token;
use crate::verify::{ServerOfFingerprint, fingerprint, provider};
use crate::{Cause, pem};

/// Version of these messages.
pub const FORMAT: u32 = 1;

/// Where tokens are redeemed, on the API's port.
pub const JOIN_PATH: &str = "/join";

/// Asks for a certificate with a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Must be [`FORMAT`].
    pub format: u32,
    /// The token's secret.
    pub secret: String,
    /// The key.
    pub request: CertificateRequest,
}

/// Answers a [`JoinRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The host's certificate and the authority's, as text.
    pub certificates: String,
    /// The system file in force.
    pub system_file: String,
}

/// Why a token is not redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// No such token was ever given, or it was forgotten long after its end.
    Unknown,
    /// Another key was certified with it.
    Used,
    /// Its time is over.
    Expired,
    /// The host is no longer in the system file.
    NoHost,
    /// The request can't be understood.
    Malformed,
    /// It can't be redeemed now, most likely for want of a quorum. The token stays good.
    Unavailable,
}

/// Reports why no trusted connection came about.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// What answers is not of the token's system.
    #[error("what answers is not certified by the authority that the token names, of system `{0}`")]
    OtherSystem(SystemName),
    /// The connection broke, or what answers does not speak TLS.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// TLS can't be spoken at all.
    #[error("TLS can't be spoken")]
    Tls(#[source] Cause),
}

/// Makes sure that the other end is a host of the token's system. This side proves nothing yet.
///
/// # Errors
/// It is not.
pub async fn connect(stream: TcpStream, token: &Token) -> Result<Stream, PinError> {
    let verifier = ServerOfFingerprint { fingerprint: token.authority };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| PinError::Tls(error.into()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let name = Subject::Host(token.host.clone()).name(&token.system);
    let name = name.try_into().map_err(|error| PinError::Tls(Box::new(error)))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match within(connecting).await {
        Ok(stream) => Ok(Stream::Protected(Box::new(stream.into()))),
        Err(error) if is_unknown_issuer(&error) => Err(PinError::OtherSystem(token.system.clone())),
        Err(error) => Err(PinError::Broken(error)),
    }
}

fn is_unknown_issuer(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(inner, Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)))
}

/// Writes the certificates of an answer.
#[must_use]
pub fn certificates_to_text(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
) -> String {
    [certificate, authority].map(pem::certificate).concat()
}

/// Joins the certificates of an answer with the key that was asked for. `None` when they are not
/// what the token promised.
#[must_use]
pub fn accept_answer(key: &Key, token: &Token, certificates: &str) -> Option<Credentials> {
    let credentials = read_certificates(key, certificates)?;
    let subject = credentials.check(&token.system).ok()?;
    let wanted = subject == Subject::Host(token.host.clone())
        && fingerprint(&credentials.authority) == token.authority;
    wanted.then_some(credentials)
}

/// Joins the certificates of an answer with the key that was asked for.
#[must_use]
pub fn read_certificates(key: &Key, certificates: &str) -> Option<Credentials> {
    let certificates = pem::read_certificates(certificates)?;
    let [certificate, authority] = <[_; 2]>::try_from(certificates).ok()?;
    Some(Credentials::new(key, certificate, authority))
}
