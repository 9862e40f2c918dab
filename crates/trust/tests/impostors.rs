//! Whoever shows what is not theirs.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::name::{HostName, SystemName};
use evenkeel_trust::authority::Authority;
use evenkeel_trust::credentials::{Credentials, CredentialsError, Key};
use evenkeel_trust::identity::Subject;
use evenkeel_trust::join;
use evenkeel_trust::renewal::{HOST_LIFE, Validity};
use evenkeel_trust::request::PublicKey;
use evenkeel_trust::tls::{Members, Scope, Trust};
use evenkeel_trust::token::{Secret, Token};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn system() -> SystemName {
    SystemName::parse("shop").unwrap()
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn authority() -> Authority {
    Authority::create(&system(), UnixTime::now()).unwrap()
}

fn trust(credentials: Credentials) -> Trust {
    let members: Members = ["a1", "b1"].map(|name| (host(name), LOOPBACK)).into();
    Trust::new(&system(), credentials, members, Scope::Everywhere).unwrap()
}

fn honest(authority: &Authority, name: &str) -> Trust {
    trust(authority.equip(&Subject::Host(host(name)), UnixTime::now(), HOST_LIFE).unwrap())
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(connecting, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Shows the certificate of `name`, which anybody can have seen, and signs with another key.
fn stolen(authority: &Authority, name: &str) -> Arc<SingleCertAndKey> {
    let subject = Subject::Host(host(name));
    let credentials = authority.equip(&subject, UnixTime::now(), HOST_LIFE).unwrap();
    let other = Key::generate().unwrap().to_pem();
    let key = PrivateKeyDer::from_pem_slice(other.as_bytes()).unwrap();
    let key = provider().key_provider.load_private_key(key).unwrap();
    let chain = vec![credentials.certificate.clone(), credentials.authority.clone()];
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

fn impostor_server(shown: Arc<SingleCertAndKey>) -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(shown);
    TlsAcceptor::from(Arc::new(config))
}

fn impostor_client(shown: Arc<SingleCertAndKey>) -> TlsConnector {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAnybody))
        .with_client_cert_resolver(shown);
    TlsConnector::from(Arc::new(config))
}

#[derive(Debug)]
struct TakesAnybody;

impl ServerCertVerifier for TakesAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[track_caller]
fn check_refused<T>(outcome: io::Result<T>) {
    let refused = outcome.map(drop).unwrap_err().to_string();
    assert!(refused.contains("BadSignature"), "{refused}");
}

#[tokio::test]
async fn a_certificate_is_worth_nothing_without_its_key() {
    let authority = authority();
    let server = impostor_server(stolen(&authority, "b1"));
    let (outgoing, incoming) = pair().await;
    let a1 = honest(&authority, "a1");
    let wanted = host("b1");
    let (refused, _) = tokio::join!(a1.connect(outgoing, &wanted), server.accept(incoming));
    check_refused(refused);

    let token = Token {
        authority: authority.fingerprint(),
        secret: Secret::generate().unwrap(),
        system: system(),
        host: host("c1"),
        addresses: Vec::new(),
    };
    let (outgoing, incoming) = pair().await;
    let (refused, _) = tokio::join!(join::connect(outgoing, &token), server.accept(incoming));
    assert!(refused.is_err(), "a joining host would tell its secret to whoever answers");

    let client = impostor_client(stolen(&authority, "a1"));
    let b1 = honest(&authority, "b1");
    let (outgoing, incoming) = pair().await;
    let name = ServerName::try_from("b1.shop.evenkeel").unwrap();
    let calling = async {
        // The connecting side of TLS 1.3 hears of a refusal with the first byte.
        let mut stream = client.connect(name, outgoing).await?;
        stream.read_u8().await
    };
    let (refused, called) = tokio::join!(b1.accept(incoming), calling);
    check_refused(refused);
    called.unwrap_err();
}

/// Makes a key and its certificate, which holds for a day from `begin` on.
fn aged(authority: &Authority, name: &str, begin: UnixTime) -> (Key, CertificateDer<'static>) {
    let key = Key::generate().unwrap();
    let end = UnixTime::since_unix_epoch(Duration::from_secs(begin.as_secs()) + DAY);
    let subject = Subject::Host(host(name));
    let validity = Validity { begin, end };
    let certificate = authority.issue(&subject, &PublicKey::of(&key), validity).unwrap();
    (key, certificate)
}

#[tokio::test]
async fn a_foreign_certificate_is_no_better_for_its_times() {
    let (own, other) = (authority(), authority());
    let now = Duration::from_secs(UnixTime::now().as_secs());
    for begin in [now - DAY * 2, now - DAY / 2, now + DAY * 2] {
        let begin = UnixTime::since_unix_epoch(begin);
        let (key, certificate) = aged(&other, "b1", begin);
        let posing = Credentials::new(&key, certificate.clone(), own.certificate().clone());
        let refused = posing.check(&system());
        assert!(matches!(refused, Err(CredentialsError::Foreign(_))), "{refused:?}");

        let foreign = trust(Credentials::new(&key, certificate, other.certificate().clone()));
        let (outgoing, incoming) = pair().await;
        let (a1, wanted) = (honest(&own, "a1"), host("b1"));
        let (refused, _) = tokio::join!(a1.connect(outgoing, &wanted), foreign.accept(incoming));
        assert!(refused.is_err(), "as a server");
    }
}
