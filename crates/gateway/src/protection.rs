//! Connections by TCP; those to other hosts are protected by this host's certificate, which is read
//! again when its file changes.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use evenkeel_gateway_core::table::RouteTable;
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
    /// The hosts whose connections are taken.
    members: RefCell<Members>,
    trust: RefCell<Option<Trust>>,
    seen: Cell<Option<Mark>>,
}

impl Protection {
    /// Begins with what stands in `folder`; without one everything stays plain.
    pub(crate) fn new(folder: Option<PathBuf>, system: SystemName, host: HostName) -> Self {
        let folder = folder.map(Folder::at);
        let (trust, seen) = (RefCell::new(None), Cell::new(None));
        let members = RefCell::default();
        let protection = Self { folder, system, host, members, trust, seen };
        protection.refresh();
        protection
    }

    /// Returns what this host proves itself with; `None` where nothing is protected.
    pub(crate) fn trust(&self) -> Option<Trust> {
        self.trust.borrow().clone()
    }

    /// Takes connections of the hosts of `table` from now on, and of no other.
    pub(crate) fn follow(&self, table: &RouteTable) {
        let members: Members =
            table.hosts().map(|(host, address)| (host.clone(), address)).collect();
        if let Some(trust) = &*self.trust.borrow() {
            trust.set_members(members.clone());
        }
        *self.members.borrow_mut() = members;
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
        // Connections open stay as they are.
        match folder.trust(&self.system, &self.host, self.members.borrow().clone()) {
            Ok(Some(trust)) => *self.trust.borrow_mut() = Some(trust),
            Ok(None) => tracing::warn!("this host's certificate is gone; the one in use stays"),
            Err(error) => tracing::warn!(%error, "this host's certificate can't be read"),
        }
    }

    /// Returns whether `host` is one whose connections are taken.
    pub(crate) fn takes(&self, host: &HostName) -> bool {
        self.members.borrow().contains_key(host)
    }

    /// Connects by TCP alone.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        notice_death(&stream)?;
        Ok(stream)
    }

    /// Connects to `host`, and proves that it is there and who this is.
    pub(crate) async fn prove(&self, address: SocketAddr, host: &HostName) -> io::Result<Stream> {
        let stream = self.connect(address).await?;
        let trust = self.trust().ok_or_else(|| io::Error::other("there is no certificate"))?;
        trust.connect(stream, host).await
    }
}

/// Makes the kernel end a connection whose peer's host has vanished: after 8 s without traffic,
/// or 10 s after something was sent that nobody acknowledges.
pub(crate) fn notice_death(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &5)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &1)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &10_000)?;
    Ok(())
}
