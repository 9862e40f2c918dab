//! The connecting side of a link: a bounded queue and the task that empties it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_trust::stream::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::accept::BULK_RECEIVED;
use super::hello::{self, Channel};
use super::{Identity, Incoming, frame, socket};
use crate::options::Voter;

/// Time to connect before another try.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause between two tries: doubled from the first to the second, with jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Most that one write takes, in bytes.
const WRITE_MAX: usize = 256 << 10;
/// Time for a whole snapshot.
const BULK_TIMEOUT: Duration = Duration::from_secs(300);

/// A link to one other voter.
#[derive(Debug, Clone)]
pub(super) struct Link {
    identity: Identity,
    voter: Voter,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    connected: bool,
}

impl State {
    /// Without a connection only the latest messages can still be of use.
    const fn bounds(&self) -> (usize, usize) {
        if self.connected { (4096, 16 << 20) } else { (32, 1 << 20) }
    }

    fn push(&mut self, message: Vec<u8>) -> bool {
        let (messages_max, bytes_max) = self.bounds();
        self.bytes += message.len();
        self.messages.push_back(message);
        let mut dropped = false;
        while self.messages.len() > 1
            && (self.messages.len() > messages_max || self.bytes > bytes_max)
        {
            self.bytes -= self.messages.pop_front().map_or(0, |message| message.len());
            dropped = true;
        }
        dropped
    }

    /// Moves queued messages into `buffer`, up to the size of one write.
    fn drain(&mut self, buffer: &mut Vec<u8>) {
        while buffer.len() < WRITE_MAX
            && let Some(message) = self.messages.pop_front()
        {
            self.bytes -= message.len();
            frame::append(buffer, &message);
        }
    }
}

impl Link {
    pub(super) fn new(identity: Identity, voter: Voter) -> Self {
        Self { identity, voter, queue: Arc::default() }
    }

    /// Queues a message. Returns whether an older one had to go.
    pub(super) fn push(&self, message: Vec<u8>) -> bool {
        let dropped = self.state().push(message);
        self.queue.filled.notify_one();
        dropped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, writes what is queued, and connects again, until the task is ended.
    pub(super) async fn run(self, inbox: mpsc::Sender<Incoming>) {
        let mut rng = Rng::from_seed(self.identity.member.0 ^ self.voter.member().0);
        let mut backoff = BACKOFF_MIN;
        let mut logged: Option<String> = None;
        loop {
            match self.connect(Channel::Messages).await {
                Ok(stream) => {
                    tracing::debug!(to = %self.voter.host, "connected to a voter");
                    backoff = BACKOFF_MIN;
                    logged = None;
                    self.state().connected = true;
                    let error = self.write_queue(stream).await;
                    tracing::debug!(to = %self.voter.host, %error, "lost a voter's connection");
                    let mut state = self.state();
                    *state = State::default();
                }
                Err(ConnectError::Refused(refusal)) => {
                    if logged.as_ref() != Some(&refusal) {
                        tracing::warn!(to = %self.voter.host, refusal, "a voter refused the connection; said once");
                    }
                    logged = Some(refusal);
                }
                Err(ConnectError::Io(error)) => {
                    tracing::debug!(to = %self.voter.host, %error, "cannot connect to a voter");
                }
            }
            // If the queue is full, the driver is far behind and will be told again.
            drop(inbox.try_send(Incoming::Unreachable(self.voter.member())));
            let half = backoff / 2;
            let jitter = rng.below(u64::try_from(half.as_nanos()).unwrap_or(0));
            sleep(half + Duration::from_nanos(jitter)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn connect(&self, channel: Channel) -> Result<Stream, ConnectError> {
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.voter.peer)).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        socket::prepare(&stream)?;
        let mut stream = match &self.identity.trust {
            Some(trust) if trust.protects(self.voter.peer.ip()) => {
                trust.connect(stream, &self.voter.host).await?
            }
            Some(_) | None => Stream::Plain(stream),
        };
        let to = self.voter.member().0;
        match hello::introduce(&mut stream, &self.identity, to, channel).await? {
            Ok(()) => Ok(stream),
            Err(refusal) => Err(ConnectError::Refused(refusal)),
        }
    }

    /// Writes until the connection is lost, and returns why.
    async fn write_queue(&self, stream: Stream) -> io::Error {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut buffer = Vec::new();
        let mut nothing = [0];
        loop {
            let filled = self.queue.filled.notified();
            self.state().drain(&mut buffer);
            if buffer.is_empty() {
                tokio::select! {
                    () = filled => {}
                    // The other side never speaks: this is its end.
                    ended = read.read(&mut nothing) => {
                        return ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    }
                }
                continue;
            }
            let written = async {
                write.write_all(&buffer).await?;
                write.flush().await
            };
            if let Err(error) = written.await {
                return error;
            }
            buffer.clear();
            buffer.shrink_to(WRITE_MAX / 4);
        }
    }

    /// Sends a snapshot on a connection of its own. Returns whether it has arrived.
    pub(super) async fn send_bulk(&self, message: Vec<u8>) -> bool {
        let sending = async {
            let mut stream = self.connect(Channel::Bulk).await?;
            let mut bytes = Vec::with_capacity(message.len() + 8);
            frame::append(&mut bytes, &message);
            drop(message);
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            drop(bytes);
            Ok::<_, ConnectError>(stream.read_u8().await? == BULK_RECEIVED)
        };
        timeout(BULK_TIMEOUT, sending).await.is_ok_and(|sent| sent.unwrap_or(false))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}
