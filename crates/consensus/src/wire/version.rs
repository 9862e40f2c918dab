//! What is known of a key, and what has become of it, as it stands in snapshots and answers.

use prost::bytes::Bytes;

use super::command::{decode_lease, encode_lease};
use crate::answer::{KeyChange, KeyEntry, Version};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireVersion {
    #[prost(bytes = "bytes", tag = "1")]
    value: Bytes,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(uint64, tag = "3")]
    created: u64,
    #[prost(uint64, tag = "4")]
    count: u64,
    #[prost(uint64, tag = "5")]
    lease: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireKeyChange {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(message, optional, tag = "3")]
    before: Option<WireVersion>,
    #[prost(message, optional, tag = "4")]
    after: Option<WireVersion>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, required, tag = "2")]
    version: WireVersion,
}

impl From<&Version> for WireVersion {
    fn from(version: &Version) -> Self {
        Self {
            value: version.value.clone(),
            revision: version.revision,
            created: version.created,
            count: version.count,
            lease: encode_lease(version.lease),
        }
    }
}

impl From<WireVersion> for Version {
    /// Keeps a copy of the value: a part of a snapshot would keep all of it in memory.
    fn from(wire: WireVersion) -> Self {
        Self {
            value: Bytes::copy_from_slice(&wire.value),
            revision: wire.revision,
            created: wire.created,
            count: wire.count,
            lease: decode_lease(wire.lease),
        }
    }
}

impl From<&KeyChange> for WireKeyChange {
    fn from(change: &KeyChange) -> Self {
        Self {
            revision: change.revision,
            key: change.key.clone(),
            before: change.before.as_ref().map(WireVersion::from),
            after: change.after.as_ref().map(WireVersion::from),
        }
    }
}

impl From<WireKeyChange> for KeyChange {
    fn from(wire: WireKeyChange) -> Self {
        Self {
            revision: wire.revision,
            key: wire.key,
            before: wire.before.map(Version::from),
            after: wire.after.map(Version::from),
        }
    }
}

impl From<&KeyEntry> for WireEntry {
    fn from(entry: &KeyEntry) -> Self {
        Self { key: entry.key.clone(), version: WireVersion::from(&entry.version) }
    }
}

impl From<WireEntry> for KeyEntry {
    fn from(wire: WireEntry) -> Self {
        Self { key: wire.key, version: wire.version.into() }
    }
}
