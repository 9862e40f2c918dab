//! Lets programs outside a world, such as a browser, reach what listens inside.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::namespace::Namespace;

/// Time for a target to accept before the next one is tried.
const CONNECT_MAX: Duration = Duration::from_millis(300);
/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 256;

/// Accepts connections and passes each on to the first target that accepts one, beginning with the
/// target that did so last. Dropping it ends accepting; connections end with either side.
#[derive(Debug)]
pub struct Forwarder {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Starts forwarding from `listener`, which stays in the network that it was made in, to
    /// `targets` as reached from the network `from`.
    ///
    /// # Errors
    /// No thread or descriptor could be had.
    pub fn start(
        listener: TcpListener,
        from: Namespace,
        targets: Vec<SocketAddr>,
    ) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        listener.set_nonblocking(true)?;
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("lab-forward".to_owned()).spawn(move || {
            if let Err(error) = from
                .enter_thread()
                .and_then(|()| accept(&listener, &stopped, &Arc::new(Targets::new(targets))))
            {
                tracing::error!(%error, "forwarding into the lab ended");
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.write(1).ok();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[derive(Debug)]
struct Targets {
    addresses: Vec<SocketAddr>,
    /// The one that accepted last.
    preferred: AtomicUsize,
    connections: AtomicUsize,
}

impl Targets {
    const fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, preferred: AtomicUsize::new(0), connections: AtomicUsize::new(0) }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let count = self.addresses.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = io::Error::other("there is no target");
        for index in (0..count).map(|turn| (first + turn) % count) {
            let Some(address) = self.addresses.get(index) else { continue };
            match TcpStream::connect_timeout(address, CONNECT_MAX) {
                Ok(stream) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Threads that start here inherit this thread's network namespace.
fn accept(listener: &TcpListener, stop: &EventFd, targets: &Arc<Targets>) -> io::Result<()> {
    loop {
        let mut watched = [
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut watched, PollTimeout::NONE)?;
        if watched.first().and_then(PollFd::any).unwrap_or(true) {
            return Ok(());
        }
        // One that has gone again before it was accepted is no error of the listener.
        let Ok((inward, _)) = listener.accept() else { continue };
        if targets.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        targets.connections.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(targets);
        thread::Builder::new().name("lab-forward".to_owned()).spawn(move || {
            let ended = pass_on(&inward, &shared);
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = ended {
                tracing::debug!(%error, "forwarded connection ended");
            }
        })?;
    }
}

fn pass_on(inward: &TcpStream, targets: &Targets) -> io::Result<()> {
    inward.set_nonblocking(false)?;
    let outward = targets.connect()?;
    thread::scope(|scope| {
        scope.spawn(|| copy(inward, &outward));
        copy(&outward, inward);
    });
    Ok(())
}

/// Copies until one side ends, and passes the end on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // The end of a connection, orderly or not, is the same to the other side.
    drop(io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}
