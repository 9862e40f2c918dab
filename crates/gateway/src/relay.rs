//! The relay: gateways of other hosts reach this host's replicas through it.
//!
//! Replicas speak plain HTTP and listen for their own host alone. Between hosts a connection is
//! TLS, in which both sides prove who they are:
//!
//! ```text
//!  gateway of A ──── TLS ────▶ relay of B ──── loopback ────▶ replica on B
//!      `replica web-17`  ──▶
//!                        ◀──  `connected`
//!      bytes of the replica's own protocol, both ways
//! ```
//!
//! It leads to what this host's table calls its own replicas, and to nothing else.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use evenkeel_gateway_core::table::{EndpointId, RouteTable};
use evenkeel_model::instance::InstanceId;
use evenkeel_trust::stream::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::protection::notice_death;
use crate::shared::Shared;

/// Connections that other hosts may hold here at once.
pub(crate) const RELAYED_MAX: usize = 4096;

/// The version of what is said before the replica's own protocol begins.
const FORMAT: u8 = 1;
/// Time for the question that follows the proof of identity.
const QUESTION_MAX: Duration = Duration::from_secs(2);
/// Time to connect to a replica of this machine.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Silence after an answer's bytes after which a connection counts as idle, once this gateway ends.
/// While a question waits for its answer it does not.
const IDLE_AFTER: Duration = Duration::from_millis(100);

/// What the relay answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// From here on the replica answers.
    Connected,
    /// This host has no such replica, as far as its table knows.
    Unknown,
    /// The replica takes no connection.
    Refused,
}

impl Verdict {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Connected => 0,
            Self::Unknown => 1,
            Self::Refused => 2,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Connected),
            1 => Some(Self::Unknown),
            2 => Some(Self::Refused),
            _ => None,
        }
    }
}

/// Asks the relay at the other end for a replica.
///
/// # Errors
/// [`io::ErrorKind::ConnectionRefused`] when the host is there and the replica is not.
pub(crate) async fn ask(stream: &mut Stream, replica: &InstanceId) -> io::Result<()> {
    stream.write_all(&question(replica)?).await?;
    stream.flush().await?;
    match Verdict::from_byte(stream.read_u8().await?) {
        Some(Verdict::Connected) => Ok(()),
        Some(Verdict::Unknown | Verdict::Refused) => Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            format!("replica `{replica}` takes no connection on its host"),
        )),
        None => Err(invalid("the relay's answer can't be understood")),
    }
}

/// Writes the question for a replica: version, length, name.
fn question(replica: &InstanceId) -> io::Result<Vec<u8>> {
    let name = replica.to_string();
    let length = u8::try_from(name.len()).map_err(|_| invalid("a replica's name is too long"))?;
    Ok([&[FORMAT, length], name.as_bytes()].concat())
}

async fn read_question(stream: &mut Stream) -> io::Result<InstanceId> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let [format, length] = head;
    if format != FORMAT {
        return Err(invalid("a question of another version"));
    }
    let mut name = vec![0; usize::from(length)];
    stream.read_exact(&mut name).await?;
    let name = String::from_utf8(name).map_err(|_| invalid("a replica's name is not text"))?;
    InstanceId::parse(&name).map_err(|_| invalid("a replica's name is none"))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Returns where a replica of the table's own host listens.
fn own_replica(table: &RouteTable, replica: &InstanceId) -> Option<SocketAddr> {
    let id = EndpointId::Replica(replica.clone());
    table
        .upstreams
        .values()
        .flat_map(|upstream| &upstream.endpoints)
        .find(|endpoint| endpoint.host == table.host && endpoint.id == id)
        .map(|endpoint| endpoint.address)
}

/// Serves one connection of another host.
pub(crate) async fn serve(
    shared: Rc<Shared>,
    stream: TcpStream,
    ending: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let from = stream.peer_addr().ok();
    match begin(&shared, stream).await {
        Ok((stream, replica)) => {
            shared.metrics.relayed.inc();
            pass_on(stream, replica, ending).await;
            shared.metrics.relayed.dec();
        }
        Err(error) => tracing::debug!(?from, %error, "a relayed connection did not begin"),
    }
    drop(permit);
}

/// Finds out who asks and for what, and connects to it.
async fn begin(shared: &Shared, stream: TcpStream) -> io::Result<(Stream, TcpStream)> {
    notice_death(&stream)?;
    let trust = shared.protection.trust();
    let trust = trust.ok_or_else(|| io::Error::other("there is no certificate"))?;
    let (mut stream, _host) = trust.accept(stream).await?;
    let replica = timeout(QUESTION_MAX, read_question(&mut stream)).await??;
    let address = own_replica(shared.balancer.borrow().table(), &replica);
    let Some(address) = address else {
        answer(&mut stream, Verdict::Unknown).await?;
        return Err(invalid("no replica of this host has that name"));
    };
    let connected = match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
        Ok(connected) => connected.and_then(|upstream| {
            upstream.set_nodelay(true)?;
            Ok(upstream)
        }),
        Err(late) => Err(late.into()),
    };
    match connected {
        Ok(upstream) => {
            answer(&mut stream, Verdict::Connected).await?;
            Ok((stream, upstream))
        }
        Err(error) => {
            answer(&mut stream, Verdict::Refused).await?;
            Err(error)
        }
    }
}

async fn answer(stream: &mut Stream, verdict: Verdict) -> io::Result<()> {
    stream.write_all(&[verdict.to_byte()]).await?;
    stream.flush().await
}

/// Which side has spoken last, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// A question, which waits for its answer.
    Caller,
    /// An answer, or a part of one.
    Replica(Instant),
}

impl Said {
    /// Returns for how long an answer seems to have ended.
    fn idle(self, now: Instant) -> Option<Duration> {
        match self {
            Self::Caller => None,
            Self::Replica(at) => Some(now.saturating_duration_since(at)),
        }
    }
}

/// Carries bytes both ways until a side ends, or this gateway does and no answer is under way.
async fn pass_on(caller: Stream, replica: TcpStream, mut ending: watch::Receiver<bool>) {
    let said = Cell::new(Said::Replica(Instant::now()));
    let mut caller = Heard { stream: caller, note: || said.set(Said::Caller) };
    let mut replica = Heard { stream: replica, note: || said.set(Said::Replica(Instant::now())) };
    let copying = tokio::io::copy_bidirectional(&mut caller, &mut replica);
    let idle = async {
        // Without a gateway nobody ends it.
        if ending.wait_for(|ending| *ending).await.is_err() {
            std::future::pending::<()>().await;
        }
        while said.get().idle(Instant::now()).is_none_or(|silence| silence < IDLE_AFTER) {
            sleep(IDLE_AFTER / 4).await;
        }
    };
    tokio::select! {
        // How a connection ends is its two sides' business.
        _ended = copying => {}
        () = idle => {}
    }
}

/// A stream that tells when something was read from it.
struct Heard<S, F> {
    stream: S,
    note: F,
}

impl<S: AsyncRead + Unpin, F: Fn() + Unpin> AsyncRead for Heard<S, F> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if read.is_ready() && buffer.filled().len() > before {
            (this.note)();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin, F: Unpin> AsyncWrite for Heard<S, F> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_as_they_are_written() {
        for verdict in [Verdict::Connected, Verdict::Unknown, Verdict::Refused] {
            assert_eq!(Verdict::from_byte(verdict.to_byte()), Some(verdict));
        }
        assert_eq!(Verdict::from_byte(3), None);
    }

    #[test]
    fn an_answer_under_way_is_not_idle() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        assert_eq!(Said::Caller.idle(later), None);
        assert_eq!(Said::Replica(now).idle(later), Some(Duration::from_secs(1)));
    }
}
