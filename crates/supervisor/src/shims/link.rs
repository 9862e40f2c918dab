//! One connection to one shim.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout_at};

use crate::folder::SOCKET;
use crate::protocol::{ChildState, Report, Request, VERSION};
use crate::raw::PidFd;

/// Time within which a shim answers; one that does not is paused or badly starved.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Time within which a shim greets; one that does not is asked again later.
const GREETING_MAX: Duration = Duration::from_secs(2);

/// Time between two attempts to connect to a shim that ends the connection.
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// A connection after its greeting.
#[derive(Debug)]
pub(super) struct Link {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    shim: PidFd,
    pid: u32,
    requests: u64,
}

/// Reports why there is no connection.
#[derive(Debug)]
pub(super) enum LinkError {
    /// Nobody listens: there is no shim.
    NoShim,
    /// Somebody listens but does not greet, or not in a way that is understood.
    Silent(io::Error),
}

impl Link {
    /// Connects to the shim of the folder and returns the link with what its child does.
    pub(super) async fn open(folder: &Path) -> Result<(Self, ChildState), LinkError> {
        let deadline = Instant::now() + GREETING_MAX;
        let directory = File::open(folder).map_err(|_| LinkError::NoShim)?;
        // The folder's own path may be longer than the 107 bytes of a socket's (unix(7)).
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        loop {
            let open = async { Self::greet(UnixStream::connect(&path).await?).await };
            match timeout_at(deadline, open).await {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(error)) if is_absence(&error) => return Err(LinkError::NoShim),
                // It has just been killed, and its socket goes with it in a moment.
                Ok(Err(error)) if is_end(&error) && Instant::now() < deadline => {
                    sleep(RETRY_EVERY).await;
                }
                Ok(Err(error)) => return Err(LinkError::Silent(error)),
                Err(elapsed) => return Err(LinkError::Silent(elapsed.into())),
            }
        }
    }

    async fn greet(stream: UnixStream) -> io::Result<(Self, ChildState)> {
        // The kernel says who listens, so the id is not a matter of trust or of age.
        let pid = stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| io::Error::other("the shim has no process id here"))?;
        let shim = PidFd::open(pid)?;
        let (reader, writer) = stream.into_split();
        let lines = BufReader::new(reader).lines();
        let mut link = Self { lines, writer, shim, pid, requests: 0 };
        let greeting = link.next().await?;
        if !matches!(greeting, Report::Hello { version: VERSION, .. }) {
            return Err(io::Error::other(format!("unknown greeting: {greeting:?}")));
        }
        let state = link.next().await?;
        if let Report::State(child) = state {
            return Ok((link, child));
        }
        Err(io::Error::other(format!("a state was expected: {state:?}")))
    }

    /// Returns the shim's process id.
    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends the shim.
    pub(super) fn kill_shim(&self) -> io::Result<()> {
        self.shim.send(Signal::SIGKILL)
    }

    /// Returns what the shim says next; safe to drop before it is done. An error means that the
    /// connection is no more.
    pub(super) async fn next(&mut self) -> io::Result<Report> {
        loop {
            let line = self.lines.next_line().await?;
            let line = line.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            if let Some(report) = Report::parse(&line) {
                return Ok(report);
            }
            tracing::warn!(shim = self.pid, line, "a shim said something unknown");
        }
    }

    /// Sends a request and returns its number, which its answer will bear.
    pub(super) async fn send(&mut self, request: Request) -> io::Result<u64> {
        self.requests += 1;
        self.writer.write_all(request.format(self.requests).as_bytes()).await?;
        Ok(self.requests)
    }
}

fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
        || matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE | libc::ESRCH))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOENT))
}
