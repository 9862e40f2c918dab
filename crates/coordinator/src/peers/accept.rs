//! The accepting side of links.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_consensus::settings::MemberId;
use evenkeel_model::name::HostName;
use evenkeel_trust::stream::Stream;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use super::hello::{self, Channel};
use super::{Identity, Incoming, frame, socket};

/// Most connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// Most different refusals that are logged.
const REFUSALS_MAX: usize = 64;
/// What says that a snapshot has arrived.
pub(super) const BULK_RECEIVED: u8 = 1;

/// What all connections share.
struct Accepted {
    identity: Identity,
    members: BTreeSet<MemberId>,
    inbox: mpsc::Sender<Incoming>,
    /// The newest connection of each voter: an older one may be dead without knowing it.
    newest: Mutex<BTreeMap<(u64, Channel), AbortHandle>>,
    refusals: Mutex<BTreeSet<String>>,
}

/// Accepts connections until the task is ended.
pub(super) async fn run(
    listener: TcpListener,
    identity: Identity,
    members: BTreeSet<MemberId>,
    inbox: mpsc::Sender<Incoming>,
) {
    let accepted = Arc::new(Accepted {
        identity,
        members,
        inbox,
        newest: Mutex::default(),
        refusals: Mutex::default(),
    });
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most often: the next try comes a little later.
                tracing::warn!(%error, "cannot accept a voter's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let accepted = Arc::clone(&accepted);
        connections.spawn(async move {
            if let Err(error) = accepted.serve(stream).await {
                tracing::debug!(%error, "a voter's connection ended");
            }
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Accepted {
    async fn serve(self: Arc<Self>, stream: TcpStream) -> io::Result<()> {
        socket::prepare(&stream)?;
        let from = stream.peer_addr()?.ip();
        let (mut stream, caller) = match self.protect(stream).await {
            Ok(protected) => protected,
            Err(error) => {
                self.log_refusal(format!("{from}: {error}"));
                return Err(error);
            }
        };
        let is_known = |member| self.members.contains(&MemberId(member));
        let welcome = hello::welcome(&mut stream, &self.identity, caller.as_ref(), is_known);
        let (hello, channel) = match welcome.await? {
            Ok(accepted) => accepted,
            Err(refusal) => {
                self.log_refusal(refusal);
                return Ok(());
            }
        };
        let receiving = tokio::spawn(Arc::clone(&self).receive(stream, channel));
        let older = self
            .newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((hello.member, channel), receiving.abort_handle());
        if let Some(older) = older {
            older.abort();
        }
        let ending = AbortOnDrop(receiving.abort_handle());
        let ended = receiving.await.unwrap_or(Ok(()));
        drop(ending);
        ended
    }

    /// Has the other side prove which host it is, where that can be in doubt.
    async fn protect(&self, stream: TcpStream) -> io::Result<(Stream, Option<HostName>)> {
        match &self.identity.trust {
            Some(trust) if trust.protects(stream.local_addr()?.ip()) => {
                let (stream, host) = trust.accept(stream).await?;
                Ok((stream, Some(host)))
            }
            Some(_) | None => Ok((Stream::Plain(stream), None)),
        }
    }

    async fn receive(self: Arc<Self>, mut stream: Stream, channel: Channel) -> io::Result<()> {
        if channel == Channel::Bulk {
            let message = frame::read(&mut stream, frame::BULK_MAX).await?;
            drop(self.inbox.send(Incoming::Message(message)).await);
            stream.write_all(&[BULK_RECEIVED]).await?;
            return stream.flush().await;
        }
        let mut reader = BufReader::with_capacity(16 << 10, stream);
        loop {
            let message = frame::read(&mut reader, frame::MESSAGE_MAX).await?;
            if self.inbox.send(Incoming::Message(message)).await.is_err() {
                return Ok(());
            }
        }
    }

    fn log_refusal(&self, refusal: String) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() < REFUSALS_MAX && refusals.insert(refusal.clone()) {
            tracing::warn!(refusal, "refused a voter's connection; said once");
        }
    }
}

/// Ends a task with the one that waits for it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
