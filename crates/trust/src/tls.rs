//! TLS 1.3 between the hosts of a system. Both sides show a certificate of the system's authority;
//! the connecting one speaks only with the host that it wants, the other only with hosts that are
//! in the system file.
//!
//! The own certificate can be replaced at any time: connections that are open stay, new ones begin
//! with the new one. No session is ever resumed, so each connection proves anew who is there.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use evenkeel_model::name::{HostName, SystemName};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Cause;
use crate::credentials::{Credentials, CredentialsError};
use crate::identity::{Subject, server_name};
use crate::renewal::Validity;
use crate::stream::Stream;
use crate::verify::{ClientOfSystem, Demand, ServerOfSystem, fingerprint, provider};

/// Time for a handshake with a host near by: a handful of packets and a few milliseconds of work.
const HANDSHAKE_MAX: Duration = Duration::from_secs(2);

/// The hosts of the system, and where they are.
pub type Members = BTreeMap<HostName, IpAddr>;

/// Which connections are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that leave this machine: all but those on loopback addresses.
    Network,
    /// All.
    Everywhere,
}

/// Who is at the other end of an accepted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A host of the system.
    Host(HostName),
    /// Somebody who may use the API.
    Operator(HostName),
    /// Somebody without a certificate, who may want to join.
    Stranger,
    /// A program on this machine, over a plain connection.
    Local,
}

/// Reports why TLS can't be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Key, certificate and authority do not belong together.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The crypto library refuses them.
    #[error("the certificates can't be used")]
    Tls(#[source] Cause),
    /// The authority is another than before.
    #[error("the new certificate is of another authority")]
    OtherAuthority,
}

/// What a host proves itself with and what it takes as proof. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Trust(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    system: SystemName,
    authority: CertificateDer<'static>,
    own: Arc<Own>,
    validity: RwLock<Option<Validity>>,
    members: RwLock<Members>,
    scope: Scope,
    connector: TlsConnectorDebug,
    for_members: Acceptor,
    for_anyone: Acceptor,
}

/// Shows its key and certificate to the other side.
#[derive(Debug)]
struct Own(RwLock<Arc<CertifiedKey>>);

impl Own {
    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The library's connector, which can't be shown.
#[derive(Clone)]
struct TlsConnectorDebug(TlsConnector);

impl std::fmt::Debug for TlsConnectorDebug {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TlsConnector")
    }
}

/// The library's acceptor, which can't be shown.
#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TlsAcceptor")
    }
}

impl Trust {
    /// Takes what a host proves itself with, and the hosts that it speaks with.
    ///
    /// # Errors
    /// The credentials can't be used.
    pub fn new(
        system: &SystemName,
        credentials: Credentials,
        members: Members,
        scope: Scope,
    ) -> Result<Self, TrustError> {
        credentials.check(system)?;
        let validity = credentials.validity();
        let authority = credentials.authority.clone();
        let own = Arc::new(Own(RwLock::new(certified(credentials)?)));
        let acceptor = |demand| {
            let config = server_config(&authority, &own, demand).map_err(TrustError::Tls)?;
            Ok::<_, TrustError>(Acceptor(TlsAcceptor::from(Arc::new(config))))
        };
        let client = client_config(&authority, &own).map_err(TrustError::Tls)?;
        Ok(Self(Arc::new(Inner {
            system: system.clone(),
            for_members: acceptor(Demand::Certificate)?,
            for_anyone: acceptor(Demand::Nothing)?,
            connector: TlsConnectorDebug(TlsConnector::from(Arc::new(client))),
            authority,
            own,
            validity: RwLock::new(validity),
            members: RwLock::new(members),
            scope,
        })))
    }

    /// Replaces key and certificate for connections to come.
    ///
    /// # Errors
    /// The new ones can't be used; the old ones stay.
    pub fn replace(&self, credentials: Credentials) -> Result<(), TrustError> {
        credentials.check(&self.0.system)?;
        if credentials.authority != self.0.authority {
            return Err(TrustError::OtherAuthority);
        }
        let validity = credentials.validity();
        let certified = certified(credentials)?;
        *self.0.own.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        *self.0.validity.write().unwrap_or_else(PoisonError::into_inner) = validity;
        Ok(())
    }

    /// Replaces the hosts that are spoken with. Connections that are open stay.
    pub fn set_members(&self, members: Members) {
        *self.0.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// Returns when the own certificate holds.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        *self.0.validity.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what tells the system's authority from every other one.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.0.authority)
    }

    /// Returns whether connections from and to `address`, one of a host, are protected.
    #[must_use]
    pub fn protects(&self, address: IpAddr) -> bool {
        self.0.scope == Scope::Everywhere || !address.is_loopback()
    }

    fn is_member(&self, host: &HostName) -> bool {
        self.0.members.read().unwrap_or_else(PoisonError::into_inner).contains_key(host)
    }

    /// Returns whether a host of the system has this address. Proves nothing.
    #[must_use]
    pub fn is_member_at(&self, address: IpAddr) -> bool {
        self.member_at(address).is_some()
    }

    fn member_at(&self, address: IpAddr) -> Option<HostName> {
        let members = self.0.members.read().unwrap_or_else(PoisonError::into_inner);
        let found = members.iter().find(|(_, member)| **member == address);
        found.map(|(host, _)| host.clone())
    }

    /// Proves on a connection who this is, and that `host` is at its other end.
    ///
    /// # Errors
    /// It is not, or it did not answer in time.
    pub async fn connect(&self, stream: TcpStream, host: &HostName) -> io::Result<Stream> {
        let name = server_name(host, &self.0.system)
            .ok_or_else(|| io::Error::other(format!("the name of host `{host}` is too long")))?;
        let stream = within(self.0.connector.0.connect(name, stream)).await?;
        Ok(Stream::Protected(Box::new(stream.into())))
    }

    /// Like [`Self::connect`], for the host that is at the connection's address.
    ///
    /// # Errors
    /// No host of the system is, or another one.
    pub async fn connect_to_member(&self, stream: TcpStream) -> io::Result<Stream> {
        let address = stream.peer_addr()?.ip();
        let host = self.member_at(address).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no host of system `{}` has address {address}", self.0.system),
            )
        })?;
        self.connect(stream, &host).await
    }

    /// Proves on an accepted connection who this is, and returns which host is at its other end.
    ///
    /// # Errors
    /// None of the system's is, or it did not answer in time.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, HostName)> {
        match self.take(&self.0.for_members, stream).await? {
            (stream, Caller::Host(host)) => Ok((stream, host)),
            (_, caller @ (Caller::Operator(_) | Caller::Stranger | Caller::Local)) => {
                Err(refused(format!("{caller:?} is no host")))
            }
        }
    }

    /// Like [`Self::accept`], for whoever may be there.
    ///
    /// # Errors
    /// Somebody with a certificate that is not good here, or it did not answer in time.
    pub async fn accept_anyone(&self, stream: TcpStream) -> io::Result<(Stream, Caller)> {
        self.take(&self.0.for_anyone, stream).await
    }

    async fn take(&self, acceptor: &Acceptor, stream: TcpStream) -> io::Result<(Stream, Caller)> {
        let stream = within(acceptor.0.accept(stream)).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let caller = match shown {
            None => Caller::Stranger,
            Some(certificate) => match Subject::of(certificate, &self.0.system) {
                Some(Subject::Host(host)) if self.is_member(&host) => Caller::Host(host),
                Some(Subject::Operator(name)) => Caller::Operator(name),
                Some(other @ Subject::Host(_)) => {
                    return Err(refused(format!("{other} is not in the system file")));
                }
                None => return Err(refused("the certificate is for nobody here".to_owned())),
            },
        };
        Ok((Stream::Protected(Box::new(stream.into())), caller))
    }
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

pub(crate) async fn within<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(HANDSHAKE_MAX, handshake).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "no proof of identity within 2 s"))
    })
}

fn certified(credentials: Credentials) -> Result<Arc<CertifiedKey>, TrustError> {
    let Credentials { key, certificate, authority } = credentials;
    // Whoever joins knows the authority's fingerprint only, and needs the whole certificate.
    let chain = vec![certificate, authority];
    let certified = CertifiedKey::from_der(chain, PrivateKeyDer::Pkcs8(key), &provider())
        .map_err(|error| CredentialsError::Key(error.into()))?;
    Ok(Arc::new(certified))
}

fn server_config(
    authority: &CertificateDer<'_>,
    own: &Arc<Own>,
    demand: Demand,
) -> Result<ServerConfig, Cause> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(ClientOfSystem::new(authority, demand)?)
        .with_cert_resolver(Arc::clone(own) as Arc<dyn ResolvesServerCert>);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(authority: &CertificateDer<'_>, own: &Arc<Own>) -> Result<ClientConfig, Cause> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(ServerOfSystem::new(authority)?)
        .with_client_cert_resolver(Arc::clone(own) as Arc<dyn ResolvesClientCert>);
    config.resumption = Resumption::disabled();
    Ok(config)
}
