//! The listening sockets that outlive the child.

use std::net::{SocketAddr, TcpListener};

use nix::sys::socket::{Backlog, listen};

/// Connections that may wait for the child. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// One listening socket.
#[derive(Debug)]
pub(super) struct HeldSocket {
    address: SocketAddr,
    listener: TcpListener,
}

impl HeldSocket {
    /// Returns the socket.
    pub(super) const fn listener(&self) -> &TcpListener {
        &self.listener
    }

    fn open(address: SocketAddr) -> Result<Self, String> {
        let open = || {
            let listener = TcpListener::bind(address)?;
            listen(&listener, Backlog::new(BACKLOG)?)?;
            Ok(Self { address, listener })
        };
        open().map_err(|error: std::io::Error| format!("cannot listen on {address}: {error}"))
    }
}

/// Opens and closes sockets until exactly the `wanted` ones are held, in that order. Those that
/// were held before stay open; if one cannot be opened, all stay as they were.
pub(super) fn hold(held: &mut Vec<HeldSocket>, wanted: &[SocketAddr]) -> Result<(), String> {
    let mut new = Vec::new();
    for address in wanted {
        if !held.iter().any(|socket| socket.address == *address) {
            new.push(HeldSocket::open(*address)?);
        }
    }
    held.append(&mut new);
    held.retain(|socket| wanted.contains(&socket.address));
    held.sort_by_key(|socket| wanted.iter().position(|address| *address == socket.address));
    Ok(())
}
