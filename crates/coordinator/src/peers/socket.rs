//! Settings of a link's sockets.

use std::io;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// Time after which a connection whose other end is silent is given up.
pub(super) const SILENCE_MAX: Duration = Duration::from_millis(1500);

/// Sends small messages at once, and notices within [`SILENCE_MAX`] (3 s when nothing is sent)
/// that the other end can no longer be reached.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    let silence_max = u32::try_from(SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &silence_max)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &1)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &1)?;
    Ok(())
}
