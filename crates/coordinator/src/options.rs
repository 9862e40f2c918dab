//! What a coordinator is told when it starts.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_consensus::settings::MemberId;
use evenkeel_model::name::{HostName, SystemName};
use evenkeel_model::patience::patience;
use evenkeel_trust::tls::Trust;
use tokio::sync::watch;

use crate::digest::digest;

/// Everything that a [`Coordinator`](crate::Coordinator) must be told.
#[derive(Debug)]
pub struct Options {
    /// The system: the others must have the same name.
    pub system: SystemName,
    /// This host.
    pub host: HostName,
    /// The voters as far as known: with them a group begins, and hosts that take no part ask them.
    pub voters: Vec<Voter>,
    /// Where all hosts are found that may ever take part, this one and the voters among them. The
    /// same while it runs.
    pub hosts: Vec<Voter>,
    /// Whether this host joins a group that is there: with an empty log it waits until a leader
    /// fills it.
    pub joins: bool,
    /// Where other members reach this one: bound already, so that its port is known. Needed on a
    /// voter and on one that joins, unused elsewhere.
    pub peer_listener: Option<TcpListener>,
    /// What this host proves itself with, and takes as proof, wherever addresses are not loopback.
    /// Without it all traffic is plain.
    pub trust: Option<Trust>,
    /// A folder for the log alone. Made on a voter if missing, unused elsewhere.
    pub log_folder: PathBuf,
    /// Size of a log segment in bytes, see [`SEGMENT_BYTES`].
    pub log_segment_bytes: u64,
    /// Most bytes of the log's folder; a log that needs more acts as on a full disk.
    pub log_bytes_max: u64,
    /// Most bytes of the store's keys and values, see [`STORE_BYTES_MAX`]. A put that would make
    /// it larger is refused.
    pub store_bytes_max: usize,
    /// Seed of the election timeouts.
    pub seed: u64,
}

/// The usual size of a log segment in bytes. A voter's folder holds at least two: small enough for
/// many voters on one disk, large enough to be changed every few thousand writes only.
pub const SEGMENT_BYTES: u64 = 8 << 20;

/// The usual bound of the store's keys and values in bytes. Every voter holds the store in memory,
/// and writes and sends it whole as a snapshot: it must stay far below what a link takes in one
/// piece, and there must be room in it for the system's own keys, which are not refused, and for
/// the changes under way, which are not counted.
pub const STORE_BYTES_MAX: usize = 256 << 20;

/// A host that votes, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Its name.
    pub host: HostName,
    /// Where it listens for other voters.
    pub peer: SocketAddr,
    /// Where it serves the API.
    pub api: SocketAddr,
}

impl Voter {
    /// Returns its identity in the protocol, which follows from its name.
    #[must_use]
    pub fn member(&self) -> MemberId {
        member(&self.host)
    }
}

/// Where others are found.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) voters: Voters,
    /// All that may ever lead.
    pub(crate) hosts: Vec<Voter>,
}

/// The voters as far as known by now.
pub(crate) type Voters = watch::Receiver<Arc<[Voter]>>;

/// Returns the identity in the protocol of the member on `host`. Never zero.
#[must_use]
pub fn member(host: &HostName) -> MemberId {
    MemberId(digest([host.as_str()]).max(1))
}

/// The time to another host and back, as measured lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    /// The median: no single late answer moves it.
    pub median: Duration,
    /// What 90 % are below.
    pub p90: Duration,
}

/// Returns how long to wait for an answer of `host`, see [`patience`].
#[must_use]
pub fn patience_for(round_trips: &RoundTrips, host: &HostName, least: Duration) -> Duration {
    patience(least, round_trips.get(host).map(|trip| trip.median))
}

/// Round trips from this host to others; those that were not measured are missing.
pub type RoundTrips = BTreeMap<HostName, RoundTrip>;
