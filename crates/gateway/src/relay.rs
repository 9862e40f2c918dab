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
use std::rc::Rc;
use std::time::Duration;

use evenkeel_model::instance::InstanceId;
use evenkeel_trust::stream::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::io::InspectReader;

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
    let address = shared.balancer.borrow().table().own_replica(&replica);
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
    /// Returns when to look again whether the connection is idle; `None` when it is.
    fn until_idle(self, now: Instant) -> Option<Duration> {
        match self {
            Self::Caller => Some(IDLE_AFTER),
            Self::Replica(at) => {
                let silence = now.saturating_duration_since(at);
                Some(IDLE_AFTER.saturating_sub(silence)).filter(|left| !left.is_zero())
            }
        }
    }
}

/// Carries bytes both ways until a side ends, or this gateway does and no answer is under way.
async fn pass_on(caller: Stream, replica: TcpStream, mut ending: watch::Receiver<bool>) {
    let said = Cell::new(Said::Replica(Instant::now()));
    let mut caller = InspectReader::new(caller, |bytes: &[u8]| {
        if !bytes.is_empty() {
            said.set(Said::Caller);
        }
    });
    let mut replica = InspectReader::new(replica, |bytes: &[u8]| {
        if !bytes.is_empty() {
            said.set(Said::Replica(Instant::now()));
        }
    });
    let copying = tokio::io::copy_bidirectional(&mut caller, &mut replica);
    let idle = async {
        // Without a gateway nobody ends it.
        if ending.wait_for(|ending| *ending).await.is_err() {
            std::future::pending::<()>().await;
        }
        while let Some(pause) = said.get().until_idle(Instant::now()) {
            sleep(pause).await;
        }
    };
    tokio::select! {
        // How a connection ends is its two sides' business.
        _ended = copying => {}
        () = idle => {}
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
        let answer = Said::Replica(now);
        assert_eq!(answer.until_idle(now + IDLE_AFTER / 4), Some(IDLE_AFTER * 3 / 4));
        assert_eq!(answer.until_idle(now + IDLE_AFTER), None);
        assert_eq!(Said::Caller.until_idle(now + IDLE_AFTER * 9), Some(IDLE_AFTER));
    }
}
