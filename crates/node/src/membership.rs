//! Gives tokens out, redeems them, renews certificates.
//!
//! The authority and the tokens' hashes are keys of the system in the replicated store, so that any
//! host can serve one that joins, and whoever leads can renew. Before a new system has its first
//! quorum they are on the disk of the host that made it, which moves them as soon as it can:
//!
//! ```text
//!   on this host's disk ── the store takes both ──▶ in the store, the disk forgets them
//! ```

mod record;
pub mod routes;
mod upkeep;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::Expect;
use evenkeel_model::name::HostName;
use evenkeel_model::system::{NoHost, System};
use evenkeel_trust::authority::Authority;
use evenkeel_trust::folder::Folder;
use evenkeel_trust::identity::Subject;
use evenkeel_trust::join::{self, FORMAT, JoinAnswer, JoinRequest, Refusal};
use evenkeel_trust::renewal::{HOST_LIFE, Validity, now};
use evenkeel_trust::request::{CertificateRequest, PublicKey};
use evenkeel_trust::tls::Trust;
use evenkeel_trust::token::{Secret, Token};
use tokio::sync::{Mutex, watch};

use crate::api::Context;
use crate::client::Client;
use crate::protection::Protection;
use crate::store::Store;
use record::{Record, Records, Use};

/// The authority's key and certificate, as text.
const AUTHORITY: &str = "trust/authority";
/// What stands before the hash of a token's secret in its key.
const TOKENS: &str = "trust/token/";
/// Longest life of a token.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Tries to change a token that others change as well.
const TRIES_MAX: u32 = 5;

/// Reports why no token was given out.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The system file has no such host.
    #[error("{0} in the system file in force")]
    NoHost(#[from] NoHost),
    /// It would be good for too long, or not at all.
    #[error("a join token is good for 1 s to {} days", TOKEN_LIFE_MAX.as_secs() / 86_400)]
    Life,
    /// The system gives no randomness.
    #[error(transparent)]
    Random(#[from] evenkeel_trust::token::NoRandomness),
    /// It could not be kept.
    #[error("the join token was not kept: {0}")]
    Store(String),
}

/// Who belongs to the system, as this host can tell and change it. All clones are one.
#[derive(Debug, Clone)]
pub struct Membership {
    parts: Arc<Parts>,
}

/// What it works with.
#[derive(Debug)]
struct Parts {
    store: Store,
    /// The way to other hosts.
    client: Client,
    /// What this host proves itself with.
    trust: Trust,
    /// Where that is on disk.
    folder: Folder,
    /// The system in force.
    system: watch::Receiver<Arc<System>>,
    /// Its text on this host's disk.
    system_file: PathBuf,
    /// What stands in there until the system has a plan.
    system_text: Arc<str>,
    /// This host.
    host: HostName,
    /// Held while what is on this host's disk is read or changed.
    disk: Mutex<()>,
}

/// Who may certify now.
enum Seat {
    /// This host, by what is on its disk.
    Disk(Box<Authority>),
    /// Every host, by what is in the store.
    Store,
}

impl Membership {
    /// Begins to work, and to look after this host's own certificate. `None` where nothing is
    /// protected: nobody proves there who they are.
    #[must_use]
    pub fn begin(
        protection: &Protection,
        trust: Option<&Trust>,
        context: &Context,
        system_file: PathBuf,
        system_text: &Arc<str>,
    ) -> Option<Self> {
        let parts = Parts {
            store: context.store.clone(),
            client: context.client.clone(),
            trust: trust?.clone(),
            folder: protection.folder()?.clone(),
            system: context.system.clone(),
            system_file,
            system_text: Arc::clone(system_text),
            host: context.host.clone(),
            disk: Mutex::default(),
        };
        let membership = Self { parts: Arc::new(parts) };
        tokio::spawn(upkeep::run(membership.clone()));
        Some(membership)
    }

    fn system(&self) -> Arc<System> {
        Arc::clone(&self.parts.system.borrow())
    }

    fn seat(&self) -> Result<Seat, String> {
        let found = self.parts.folder.authority(&self.system().name);
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.map_or(Seat::Store, |authority| Seat::Disk(Box::new(authority))))
    }

    async fn stored_authority(&self) -> Result<Authority, String> {
        let stored = self.parts.store.get(AUTHORITY).await?;
        let (text, _) = stored.ok_or("the store holds no certificate authority")?;
        let text = String::from_utf8_lossy(&text);
        Authority::from_pem(&text, &self.system().name).map_err(|error| error.to_string())
    }

    /// Gives out a token with which `host` can join within `life`.
    ///
    /// # Errors
    /// There is no such host, or the token can't be kept.
    pub async fn give_token(&self, host: &str, life: Duration) -> Result<Token, TokenError> {
        let (parts, system) = (&self.parts, self.system());
        let place = system.find_host(host)?;
        if life < Duration::from_secs(1) || life > TOKEN_LIFE_MAX {
            return Err(TokenError::Life);
        }
        let secret = Secret::generate()?;
        let record = Record::new(&place.name, now().as_secs() + life.as_secs());
        self.keep(&secret.hash(), record).await.map_err(TokenError::Store)?;
        Ok(Token {
            authority: parts.trust.fingerprint(),
            secret,
            system: system.name.clone(),
            host: place.name.clone(),
            addresses: self.addresses(&place.name),
        })
    }

    /// Returns where a host that joins may ask: here first, which is known to work.
    fn addresses(&self, joining: &HostName) -> Vec<SocketAddr> {
        let (parts, system) = (&self.parts, self.system());
        let own = system.hosts.values().filter(|host| host.name == parts.host);
        // Until the store holds the authority, no other host can help.
        let stored = matches!(self.seat(), Ok(Seat::Store));
        let others = system.hosts.values().filter(|host| stored && host.name != parts.host);
        own.chain(others)
            .filter(|host| host.name != *joining)
            .map(|host| SocketAddr::new(host.address, system.ports.api))
            .collect()
    }

    async fn keep(&self, hash: &str, record: Record) -> Result<(), String> {
        let disk = self.parts.disk.lock().await;
        if let Seat::Disk(_) = self.seat()? {
            let mut records = self.read_disk()?;
            records.retain(|_, record| !record.is_past(now().as_secs()));
            records.insert(hash.to_owned(), record);
            return self.write_disk(&records);
        }
        drop(disk);
        self.forget_past().await;
        self.put(hash, &record, Expect::Absent).await.and_then(|kept| {
            if kept { Ok(()) } else { Err("the store holds one of that name".to_owned()) }
        })
    }

    async fn put(&self, hash: &str, record: &Record, expect: Expect) -> Result<bool, String> {
        let value = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        let answer = self.parts.store.put(&format!("{TOKENS}{hash}"), value, expect).await?;
        Ok(matches!(answer, Answer::Written { .. }))
    }

    /// Removes tokens from the store that ended long ago.
    async fn forget_past(&self) {
        let time = now().as_secs();
        let Ok(keys) = self.parts.store.list(TOKENS).await else { return };
        for (key, value) in keys {
            let past = serde_json::from_slice::<Record>(&value).is_ok_and(|it| it.is_past(time));
            if past && let Err(reason) = self.parts.store.delete(&key).await {
                tracing::debug!(reason, "an old join token was not forgotten");
            }
        }
    }

    fn read_disk(&self) -> Result<Records, String> {
        let path = self.parts.folder.tokens_file();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| format!("read `{}`: {error}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Records::new()),
            Err(error) => Err(format!("read `{}`: {error}", path.display())),
        }
    }

    fn write_disk(&self, records: &Records) -> Result<(), String> {
        let path = self.parts.folder.tokens_file();
        let text = serde_json::to_string(records).map_err(|error| error.to_string())?;
        self.parts.folder.write(&path, &text).map_err(|error| error.to_string())
    }

    /// Certifies a key for the host of a token.
    ///
    /// # Errors
    /// Why not.
    pub async fn redeem(&self, request: &JoinRequest) -> Result<JoinAnswer, Refusal> {
        if request.format != FORMAT {
            return Err(Refusal::Malformed);
        }
        let key = request.request.check().ok_or(Refusal::Malformed)?;
        let secret = Secret::from_text(&request.secret).ok_or(Refusal::Malformed)?;
        let (authority, host) = self.use_up(&secret.hash(), &key).await?;
        let certificates = certify(&authority, &host, &key).map_err(|reason| {
            tracing::warn!(reason, "a certificate was not made");
            Refusal::Unavailable
        })?;
        let kept = std::fs::read_to_string(&self.parts.system_file);
        let system_file = kept.unwrap_or_else(|_| self.parts.system_text.to_string());
        tracing::info!(%host, "a host has joined");
        Ok(JoinAnswer { certificates, system_file })
    }

    /// Uses a token up for `key`, and returns its host and who certifies it.
    async fn use_up(&self, hash: &str, key: &PublicKey) -> Result<(Authority, HostName), Refusal> {
        let unavailable = |reason: String| {
            tracing::info!(reason, "a join token can't be redeemed now");
            Refusal::Unavailable
        };
        let disk = self.parts.disk.lock().await;
        if let Seat::Disk(authority) = self.seat().map_err(unavailable)? {
            let mut records = self.read_disk().map_err(unavailable)?;
            let record = records.get(hash).ok_or(Refusal::Unknown)?;
            let host = self.known_host(record)?;
            if let Use::First(after) = record.redeem(&key.to_text(), now().as_secs())? {
                records.insert(hash.to_owned(), after);
                self.write_disk(&records).map_err(unavailable)?;
            }
            return Ok((*authority, host));
        }
        drop(disk);
        let authority = self.stored_authority().await.map_err(unavailable)?;
        for _ in 0..TRIES_MAX {
            let stored = self.parts.store.get(&format!("{TOKENS}{hash}")).await;
            let (value, revision) = stored.map_err(unavailable)?.ok_or(Refusal::Unknown)?;
            let record: Record =
                serde_json::from_slice(&value).map_err(|error| unavailable(error.to_string()))?;
            let host = self.known_host(&record)?;
            match record.redeem(&key.to_text(), now().as_secs())? {
                Use::Again => return Ok((authority, host)),
                Use::First(after) => {
                    let expect = Expect::Revision(revision);
                    if self.put(hash, &after, expect).await.map_err(unavailable)? {
                        return Ok((authority, host));
                    }
                }
            }
        }
        Err(Refusal::Unavailable)
    }

    fn known_host(&self, record: &Record) -> Result<HostName, Refusal> {
        let host = HostName::parse(&record.host).map_err(|_| Refusal::NoHost)?;
        let known = self.system().hosts.contains_key(&host);
        known.then_some(host).ok_or(Refusal::NoHost)
    }

    /// Certifies a new key of `host`, which has proved to be that host.
    ///
    /// # Errors
    /// In words, when the authority can't be had or the request is not good.
    pub async fn renew(
        &self,
        host: &HostName,
        request: &CertificateRequest,
    ) -> Result<String, String> {
        let key = request.check().ok_or("the request has no proof of its key")?;
        let seat = {
            let _disk = self.parts.disk.lock().await;
            self.seat()?
        };
        let authority = match seat {
            Seat::Disk(authority) => *authority,
            Seat::Store => self.stored_authority().await?,
        };
        certify(&authority, host, &key)
    }
}

fn certify(authority: &Authority, host: &HostName, key: &PublicKey) -> Result<String, String> {
    let validity = Validity::starting(now(), HOST_LIFE);
    let certificate = authority.issue(&Subject::Host(host.clone()), key, validity);
    let certificate = certificate.map_err(|error| error.to_string())?;
    Ok(join::certificates_to_text(&certificate, authority.certificate()))
}
