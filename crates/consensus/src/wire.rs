//! The protobuf messages of the network, the log and the snapshots, and how they become the types
//! of the rest of the crate. A field's tag is its name for ever: a change takes a new tag.

mod answer;
pub(crate) mod command;
pub(crate) mod members;
pub(crate) mod message;
mod query;
pub(crate) mod record;
pub(crate) mod state;
mod transaction;
mod version;

use prost::bytes::Bytes;

use crate::answer::Answer;
use crate::command::{Command, Query};
use crate::log::DecodeError;

/// The format of everything that is written today.
pub(crate) const FORMAT: u8 = 1;

/// Encodes a protobuf message behind the format byte.
pub(crate) fn encode(message: &impl prost::Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(FORMAT);
    message.encode_raw(&mut bytes);
    bytes
}

/// Decodes what [`encode`] made; `what` names it in an error.
pub(crate) fn decode<M: prost::Message + Default>(
    bytes: &Bytes,
    what: &'static str,
) -> Result<M, DecodeError> {
    match bytes.first() {
        None => Err(DecodeError::Malformed(what)),
        Some(&FORMAT) => M::decode(bytes.slice(1..)).map_err(|_| DecodeError::Malformed(what)),
        Some(&found) => Err(DecodeError::Format { found, known: FORMAT }),
    }
}

/// Encodes a command, for a host that passes it on.
#[must_use]
pub fn encode_command(command: Command) -> Vec<u8> {
    command::encode_command(command)
}

/// Decodes what [`encode_command`] made.
///
/// # Errors
/// If it is no command that this version knows.
pub fn decode_command(bytes: &Bytes) -> Result<Command, DecodeError> {
    command::decode_command(bytes)
}

/// Encodes a question, for a host that passes it on.
#[must_use]
pub fn encode_query(query: &Query) -> Vec<u8> {
    query::encode_query(query)
}

/// Decodes what [`encode_query`] made.
///
/// # Errors
/// If it is no question that this version knows.
pub fn decode_query(bytes: &Bytes) -> Result<Query, DecodeError> {
    query::decode_query(bytes)
}

/// Encodes an answer, for a host that passes it on.
#[must_use]
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    answer::encode_answer(answer)
}

/// Decodes what [`encode_answer`] made.
///
/// # Errors
/// If it is no answer that this version knows.
pub fn decode_answer(bytes: &Bytes) -> Result<Answer, DecodeError> {
    answer::decode_answer(bytes)
}

/// An entry, on the network and on disk.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Entry {
    #[prost(uint64, tag = "1")]
    pub(crate) index: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) term: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) data: Bytes,
    #[prost(enumeration = "EntryKind", tag = "4")]
    pub(crate) kind: i32,
}

/// What an entry is. The first is what there was before there were others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum EntryKind {
    Command = 0,
    Members = 1,
}

/// Returns whether the bytes of an [`Action::Send`](crate::replica::Action::Send) carry entries or a
/// snapshot, which take room on the disk of whoever takes them in. Votes, heartbeats and answers do
/// not.
#[must_use]
pub fn carries_entries(message: &[u8]) -> bool {
    message::carries_entries(message)
}

/// A snapshot, on the network and on disk.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Snapshot {
    #[prost(uint64, tag = "1")]
    pub(crate) index: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) term: u64,
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) voters: Vec<u64>,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) data: Bytes,
    #[prost(uint64, repeated, tag = "5")]
    pub(crate) outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "6")]
    pub(crate) learners: Vec<u64>,
}
