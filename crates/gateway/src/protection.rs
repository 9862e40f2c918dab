//! Connections to endpoints: those to other hosts' APIs are protected by this host's certificate,
//! which is read again when its file changes. Replicas are reached as they listen.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use evenkeel_gateway_core::table::EndpointId;
use evenkeel_model::name::{HostName, SystemName};
use evenkeel_trust::folder::Folder;
use evenkeel_trust::stream::Stream;
use evenkeel_trust::tls::{Members, Trust};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// What changes when the file is replaced.
type Mark = (u64, i64, i64);

/// Opens connections.
#[derive(Debug)]
pub(crate) struct Protection {
    folder: Option<Folder>,
    system: SystemName,
    host: HostName,
    trust: RefCell<Option<Trust>>,
    seen: Cell<Option<Mark>>,
}

impl Protection {
    /// Begins with what stands in `folder`; without one everything stays plain.
    pub(crate) fn new(folder: Option<PathBuf>, system: SystemName, host: HostName) -> Self {
        let folder = folder.map(Folder::at);
        let (trust, seen) = (RefCell::new(None), Cell::new(None));
        let protection = Self { folder, system, host, trust, seen };
        protection.refresh();
        protection
    }

    /// Reads the certificate again if its file has changed.
    pub(crate) fn refresh(&self) {
        let Some(folder) = &self.folder else { return };
        let found = std::fs::metadata(folder.host_file()).ok();
        let mark = found.map(|found| (found.ino(), found.mtime(), found.mtime_nsec()));
        if mark == self.seen.get() {
            return;
        }
        self.seen.set(mark);
        // Connections open stay as they are; what connects needs no list of hosts.
        match folder.trust(&self.system, &self.host, Members::new()) {
            Ok(Some(trust)) => *self.trust.borrow_mut() = Some(trust),
            Ok(None) => tracing::warn!("this host's certificate is gone; the one in use stays"),
            Err(error) => tracing::warn!(%error, "this host's certificate can't be read"),
        }
    }

    /// Connects to an endpoint.
    pub(crate) async fn connect(&self, id: &EndpointId, address: SocketAddr) -> io::Result<Stream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        notice_death(&stream)?;
        match id {
            EndpointId::Api(host) if self.is_protected(host, address) => {
                let trust = self.trust.borrow().clone();
                let trust = trust.ok_or_else(|| io::Error::other("there is no certificate"))?;
                trust.connect(stream, host).await
            }
            EndpointId::Api(_) | EndpointId::Replica(_) => Ok(Stream::Plain(stream)),
        }
    }

    fn is_protected(&self, host: &HostName, address: SocketAddr) -> bool {
        self.folder.is_some() && *host != self.host && !address.ip().is_loopback()
    }
}

/// Makes the kernel end a connection whose peer's host has vanished: after 8 s without traffic,
/// or 10 s after something was sent that nobody acknowledges.
fn notice_death(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &5)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &1)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &10_000)?;
    Ok(())
}
