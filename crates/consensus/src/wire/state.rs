//! The key space as it stands in snapshots.

use prost::bytes::Bytes;

use super::command::{WireSpace, decode_space};
use super::{decode, encode};
use crate::command::{KeyEntry, Space};
use crate::idempotency::{Fingerprint, Outcome};
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
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireOutcome {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    fingerprint: Bytes,
    #[prost(enumeration = "Kind", tag = "3")]
    kind: i32,
    /// Of the store for a change, of the key for a conflict (none: the key did not exist).
    #[prost(uint64, optional, tag = "4")]
    revision: Option<u64>,
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
}

/// Collects a key space, piece by piece.
pub(crate) struct Encoder(WireState);

impl Encoder {
    pub(crate) const fn new(revision: u64) -> Self {
        Self(WireState { revision, keys: Vec::new(), outcomes: Vec::new() })
    }

    pub(crate) fn push_key(&mut self, space: Space, key: &str, value: &Bytes, revision: u64) {
        self.0.keys.push(WireKey {
            space: WireSpace::from(space).into(),
            key: key.to_owned(),
            value: value.clone(),
            revision,
        });
    }

    pub(crate) fn push_outcome(&mut self, name: &str, fingerprint: Fingerprint, outcome: Outcome) {
        let (kind, revision) = match outcome {
            Outcome::Written { revision, created: true } => (Kind::Created, Some(revision)),
            Outcome::Written { revision, created: false } => (Kind::Replaced, Some(revision)),
            Outcome::Deleted { revision } => (Kind::Deleted, Some(revision)),
            Outcome::Conflict { current } => (Kind::Conflict, current),
            Outcome::NotFound => (Kind::NotFound, None),
        };
        self.0.outcomes.push(WireOutcome {
            name: name.to_owned(),
            fingerprint: fingerprint.to_bytes(),
            kind: kind.into(),
            revision,
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
}

pub(crate) fn decode_state(bytes: &Bytes) -> Result<Decoded, DecodeError> {
    let state: WireState = decode(bytes, WHAT)?;
    let keys = state.keys.into_iter().map(|WireKey { space, key, value, revision }| {
        Ok((decode_space(space)?, KeyEntry { key, value, revision }))
    });
    Ok(Decoded {
        revision: state.revision,
        keys: keys.collect::<Result<_, _>>()?,
        outcomes: state.outcomes.into_iter().map(decode_outcome).collect::<Result<_, _>>()?,
    })
}

fn decode_outcome(wire: WireOutcome) -> Result<(String, Fingerprint, Outcome), DecodeError> {
    let malformed = || DecodeError::Malformed(WHAT);
    let fingerprint = <[u8; 16]>::try_from(wire.fingerprint.as_ref()).map_err(|_| malformed())?;
    let changed = wire.revision.ok_or_else(malformed);
    let outcome = match Kind::try_from(wire.kind) {
        Ok(Kind::Created) => Outcome::Written { revision: changed?, created: true },
        Ok(Kind::Replaced) => Outcome::Written { revision: changed?, created: false },
        Ok(Kind::Deleted) => Outcome::Deleted { revision: changed? },
        Ok(Kind::Conflict) => Outcome::Conflict { current: wire.revision },
        Ok(Kind::NotFound) => Outcome::NotFound,
        Ok(Kind::Unset) | Err(_) => return Err(malformed()),
    };
    Ok((wire.name, Fingerprint(u128::from_be_bytes(fingerprint)), outcome))
}
