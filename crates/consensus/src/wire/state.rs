//! The key space as it stands in snapshots.

use std::time::Duration;

use prost::bytes::Bytes;

use super::answer::{WireResult, decode_result, encode_result};
use super::command::{WireSpace, decode_lease, decode_space, encode_lease, millis};
use super::version::WireKeyChange;
use super::{decode, encode};
use crate::answer::{KeyChange, KeyEntry, Refused, Version};
use crate::command::{LeaseId, Space};
use crate::idempotency::{Fingerprint, Outcome};
use crate::lineage::Lineage;
use crate::log::DecodeError;

const WHAT: &str = "key space";

#[derive(Clone, PartialEq, prost::Message)]
struct WireState {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(message, repeated, tag = "2")]
    keys: Vec<WireKey>,
    #[prost(message, repeated, tag = "3")]
    outcomes: Vec<WireOutcome>,
    /// The last revision without history.
    #[prost(uint64, tag = "4")]
    compacted: u64,
    /// Oldest first.
    #[prost(message, repeated, tag = "5")]
    changes: Vec<WireKeyChange>,
    #[prost(message, repeated, tag = "6")]
    leases: Vec<WireLease>,
    #[prost(uint64, tag = "7")]
    next_lease: u64,
    #[prost(uint64, tag = "8")]
    lineage: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireKey {
    #[prost(enumeration = "WireSpace", tag = "1")]
    space: i32,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(bytes = "bytes", tag = "3")]
    value: Bytes,
    #[prost(uint64, tag = "4")]
    revision: u64,
    #[prost(uint64, tag = "5")]
    created: u64,
    #[prost(uint64, tag = "6")]
    count: u64,
    #[prost(uint64, tag = "7")]
    lease: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireLease {
    #[prost(uint64, tag = "1")]
    lease: u64,
    /// Milliseconds.
    #[prost(uint64, tag = "2")]
    ttl: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireOutcome {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    fingerprint: Bytes,
    #[prost(enumeration = "Kind", tag = "3")]
    kind: i32,
    /// Of the store for a change, of the key for a conflict (none: the key did not exist), the last
    /// forgotten one, or a lease.
    #[prost(uint64, optional, tag = "4")]
    revision: Option<u64>,
    /// Of a transaction.
    #[prost(message, repeated, tag = "5")]
    results: Vec<WireResult>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    Unset = 0,
    Created = 1,
    Replaced = 2,
    Deleted = 3,
    Conflict = 4,
    NotFound = 5,
    Succeeded = 6,
    Failed = 7,
    Granted = 8,
    Revoked = 9,
    NoLease = 10,
    Forgotten = 11,
    KeyTwice = 12,
    TooManyOperations = 13,
    TooManyLeases = 14,
    TooManyKeys = 15,
    TimeToLive = 16,
    FutureRevision = 17,
}

/// Collects a key space, piece by piece.
pub(crate) struct Encoder(WireState);

impl Encoder {
    pub(crate) fn new(revision: u64, compacted: u64) -> Self {
        Self(WireState { revision, compacted, ..WireState::default() })
    }

    pub(crate) fn push_key(&mut self, space: Space, key: &str, version: &Version) {
        self.0.keys.push(WireKey {
            space: WireSpace::from(space).into(),
            key: key.to_owned(),
            value: version.value.clone(),
            revision: version.revision,
            created: version.created,
            count: version.count,
            lease: encode_lease(version.lease),
        });
    }

    pub(crate) fn push_change(&mut self, change: &KeyChange) {
        self.0.changes.push(WireKeyChange::from(change));
    }

    pub(crate) fn push_lease(&mut self, lease: LeaseId, ttl: Duration) {
        self.0.leases.push(WireLease { lease: lease.0, ttl: millis(ttl) });
    }

    pub(crate) const fn next_lease(&mut self, next: u64) {
        self.0.next_lease = next;
    }

    pub(crate) const fn lineage(&mut self, lineage: Lineage) {
        self.0.lineage = lineage.0;
    }

    pub(crate) fn push_outcome(&mut self, name: &str, fingerprint: Fingerprint, outcome: Outcome) {
        let (kind, revision) = encode_outcome(&outcome);
        let results = if let Outcome::Transacted { results, .. } = &outcome {
            results.iter().map(encode_result).collect()
        } else {
            Vec::new()
        };
        self.0.outcomes.push(WireOutcome {
            name: name.to_owned(),
            fingerprint: fingerprint.to_bytes(),
            kind: kind.into(),
            revision,
            results,
        });
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        encode(&self.0)
    }
}

/// A key space in pieces.
pub(crate) struct Decoded {
    pub(crate) revision: u64,
    pub(crate) keys: Vec<(Space, KeyEntry)>,
    /// Oldest first.
    pub(crate) outcomes: Vec<(String, Fingerprint, Outcome)>,
    pub(crate) compacted: u64,
    /// Oldest first.
    pub(crate) changes: Vec<KeyChange>,
    pub(crate) leases: Vec<(LeaseId, Duration)>,
    pub(crate) next_lease: u64,
    pub(crate) lineage: Lineage,
}

pub(crate) fn decode_state(bytes: &Bytes) -> Result<Decoded, DecodeError> {
    let state: WireState = decode(bytes, WHAT)?;
    let lease = |wire: WireLease| (LeaseId(wire.lease), Duration::from_millis(wire.ttl));
    Ok(Decoded {
        revision: state.revision,
        keys: state.keys.into_iter().map(decode_key).collect::<Result<_, _>>()?,
        outcomes: state.outcomes.into_iter().map(decode_outcome).collect::<Result<_, _>>()?,
        compacted: state.compacted,
        changes: state.changes.into_iter().map(KeyChange::from).collect(),
        leases: state.leases.into_iter().map(lease).collect(),
        next_lease: state.next_lease.max(1),
        lineage: Lineage(state.lineage),
    })
}

/// Keeps copies of values: a part of the snapshot would keep all of it in memory.
fn decode_key(wire: WireKey) -> Result<(Space, KeyEntry), DecodeError> {
    let version = Version {
        value: Bytes::copy_from_slice(&wire.value),
        revision: wire.revision,
        created: wire.created,
        count: wire.count,
        lease: decode_lease(wire.lease),
    };
    Ok((decode_space(wire.space)?, KeyEntry { key: wire.key, version }))
}

const fn encode_outcome(outcome: &Outcome) -> (Kind, Option<u64>) {
    match *outcome {
        Outcome::Written { revision, created: true } => (Kind::Created, Some(revision)),
        Outcome::Written { revision, created: false } => (Kind::Replaced, Some(revision)),
        Outcome::Deleted { revision } => (Kind::Deleted, Some(revision)),
        Outcome::Conflict { current } => (Kind::Conflict, current),
        Outcome::NotFound => (Kind::NotFound, None),
        Outcome::Transacted { succeeded: true, revision, .. } => (Kind::Succeeded, Some(revision)),
        Outcome::Transacted { succeeded: false, revision, .. } => (Kind::Failed, Some(revision)),
        Outcome::Granted { lease } => (Kind::Granted, Some(lease.0)),
        Outcome::Revoked { revision } => (Kind::Revoked, Some(revision)),
        Outcome::NoLease { lease } => (Kind::NoLease, Some(lease.0)),
        Outcome::Forgotten { through } => (Kind::Forgotten, Some(through)),
        Outcome::Refused(Refused::KeyTwice) => (Kind::KeyTwice, None),
        Outcome::Refused(Refused::TooManyOperations) => (Kind::TooManyOperations, None),
        Outcome::Refused(Refused::TooManyLeases) => (Kind::TooManyLeases, None),
        Outcome::Refused(Refused::TooManyKeys) => (Kind::TooManyKeys, None),
        Outcome::Refused(Refused::TimeToLive) => (Kind::TimeToLive, None),
        Outcome::Refused(Refused::FutureRevision) => (Kind::FutureRevision, None),
    }
}

fn decode_outcome(wire: WireOutcome) -> Result<(String, Fingerprint, Outcome), DecodeError> {
    let malformed = || DecodeError::Malformed(WHAT);
    let fingerprint = <[u8; 16]>::try_from(wire.fingerprint.as_ref()).map_err(|_| malformed())?;
    let number = wire.revision.ok_or_else(malformed);
    let outcome = match Kind::try_from(wire.kind).map_err(|_| malformed())? {
        Kind::Created => Outcome::Written { revision: number?, created: true },
        Kind::Replaced => Outcome::Written { revision: number?, created: false },
        Kind::Deleted => Outcome::Deleted { revision: number? },
        Kind::Conflict => Outcome::Conflict { current: wire.revision },
        Kind::NotFound => Outcome::NotFound,
        Kind::Succeeded | Kind::Failed => Outcome::Transacted {
            succeeded: wire.kind == i32::from(Kind::Succeeded),
            revision: number?,
            results: wire.results.into_iter().map(decode_result).collect::<Result<_, _>>()?,
        },
        Kind::Granted => Outcome::Granted { lease: LeaseId(number?) },
        Kind::Revoked => Outcome::Revoked { revision: number? },
        Kind::NoLease => Outcome::NoLease { lease: LeaseId(number?) },
        Kind::Forgotten => Outcome::Forgotten { through: number? },
        Kind::KeyTwice => Outcome::Refused(Refused::KeyTwice),
        Kind::TooManyOperations => Outcome::Refused(Refused::TooManyOperations),
        Kind::TooManyLeases => Outcome::Refused(Refused::TooManyLeases),
        Kind::TooManyKeys => Outcome::Refused(Refused::TooManyKeys),
        Kind::TimeToLive => Outcome::Refused(Refused::TimeToLive),
        Kind::FutureRevision => Outcome::Refused(Refused::FutureRevision),
        Kind::Unset => return Err(malformed()),
    };
    Ok((wire.name, Fingerprint(fingerprint_number(fingerprint)), outcome))
}

const fn fingerprint_number(bytes: [u8; 16]) -> u128 {
    u128::from_be_bytes(bytes)
}
