//! Log records and snapshots as they stand on disk.

use prost::bytes::Bytes;

use super::members::{members_of, snapshot};
use super::{decode, encode};
use crate::log::{DecodeError, Entry, EntryKind, Record, Snapshot, Vote};
use crate::settings::MemberId;

#[derive(Clone, PartialEq, prost::Message)]
struct WireRecord {
    #[prost(oneof = "Content", tags = "1, 2, 3")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    #[prost(message, tag = "1")]
    Reset(WireReset),
    #[prost(message, tag = "2")]
    Entry(super::Entry),
    #[prost(message, tag = "3")]
    Vote(WireVote),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireReset {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireVote {
    #[prost(uint64, tag = "1")]
    term: u64,
    /// 0: for nobody.
    #[prost(uint64, tag = "2")]
    member: u64,
    #[prost(uint64, tag = "3")]
    commit: u64,
}

impl Record {
    /// Encodes the record for the disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let content = match self {
            &Self::Reset { index, term } => Content::Reset(WireReset { index, term }),
            Self::Entry(entry) => Content::Entry(entry.clone().into()),
            &Self::Vote(Vote { term, member, commit }) => Content::Vote(WireVote {
                term,
                member: member.map_or(0, |member| member.0),
                commit,
            }),
        };
        encode(&WireRecord { content: Some(content) })
    }

    /// Decodes what [`Self::encode`] made.
    ///
    /// # Errors
    ///
    /// If the bytes are none, or of another format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "log record";
        let record: WireRecord = decode(&Bytes::copy_from_slice(bytes), WHAT)?;
        match record.content {
            Some(Content::Reset(WireReset { index, term })) => Ok(Self::Reset { index, term }),
            Some(Content::Entry(entry)) => Ok(Self::Entry(entry.try_into()?)),
            Some(Content::Vote(WireVote { term, member, commit })) => Ok(Self::Vote(Vote {
                term,
                member: Some(member).filter(|member| *member != 0).map(MemberId),
                commit,
            })),
            None => Err(DecodeError::Malformed(WHAT)),
        }
    }
}

impl Snapshot {
    /// Encodes the snapshot for the disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { index, term, members, data } = self;
        encode(&snapshot(*index, *term, &members.to_raft(), data.clone()))
    }

    /// Decodes what [`Self::encode`] made.
    ///
    /// # Errors
    ///
    /// If the bytes are none, or of another format.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, DecodeError> {
        const WHAT: &str = "snapshot";
        let snapshot: super::Snapshot = decode(&bytes.into(), WHAT)?;
        if snapshot.index == 0 || snapshot.term == 0 {
            return Err(DecodeError::Malformed(WHAT));
        }
        let members = members_of(&snapshot)?;
        let super::Snapshot { index, term, data, .. } = snapshot;
        Ok(Self { index, term, members, data })
    }
}

impl From<Entry> for super::Entry {
    fn from(Entry { index, term, kind, data }: Entry) -> Self {
        let kind = match kind {
            EntryKind::Command => super::EntryKind::Command,
            EntryKind::Members => super::EntryKind::Members,
        };
        Self { index, term, data, kind: kind.into() }
    }
}

impl TryFrom<super::Entry> for Entry {
    type Error = DecodeError;

    fn try_from(entry: super::Entry) -> Result<Self, DecodeError> {
        let super::Entry { index, term, data, kind } = entry;
        let kind = match super::EntryKind::try_from(kind) {
            Ok(super::EntryKind::Command) => EntryKind::Command,
            Ok(super::EntryKind::Members) => EntryKind::Members,
            Err(_) => return Err(DecodeError::Malformed("entry of a known kind")),
        };
        Ok(Self { index, term, kind, data })
    }
}
