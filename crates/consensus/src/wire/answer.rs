//! Answers as hosts pass them on to each other.

use std::time::Duration;

use prost::bytes::Bytes;

use super::command::{Empty, millis};
use super::version::{WireEntry, WireKeyChange, WireVersion};
use super::{decode, encode};
use crate::answer::{Answer, OperationResult, Refused};
use crate::command::LeaseId;
use crate::log::DecodeError;
use crate::settings::MemberId;

const WHAT: &str = "answer";

#[derive(Clone, PartialEq, prost::Message)]
struct WireAnswer {
    #[prost(
        oneof = "Kind",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21"
    )]
    kind: Option<Kind>,
    /// Of the key, of the store or of history, as the kind has it.
    #[prost(uint64, optional, tag = "30")]
    revision: Option<u64>,
    /// Whether a key was created, a transaction succeeded, or there is more.
    #[prost(bool, tag = "31")]
    flag: bool,
    #[prost(bool, tag = "32")]
    replayed: bool,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Written(Empty),
    #[prost(message, tag = "2")]
    Deleted(Empty),
    #[prost(message, tag = "3")]
    Conflict(Empty),
    #[prost(message, tag = "4")]
    NotFound(Empty),
    #[prost(message, tag = "5")]
    Transacted(WireResults),
    #[prost(uint64, tag = "6")]
    Granted(u64),
    #[prost(message, tag = "7")]
    Revoked(Empty),
    #[prost(uint64, tag = "8")]
    NoLease(u64),
    #[prost(message, tag = "9")]
    Forgotten(Empty),
    #[prost(message, tag = "10")]
    IdempotencyMismatch(Empty),
    #[prost(enumeration = "WireRefused", tag = "11")]
    Refused(i32),
    #[prost(message, tag = "12")]
    Value(WireVersion),
    #[prost(message, tag = "13")]
    Absent(Empty),
    #[prost(message, tag = "14")]
    Entries(WireEntries),
    #[prost(message, tag = "15")]
    Changes(WireChanges),
    #[prost(message, tag = "16")]
    Compacted(Empty),
    #[prost(message, tag = "17")]
    Future(Empty),
    #[prost(message, tag = "18")]
    Lease(WireLease),
    /// 0 when the leader is not known.
    #[prost(uint64, tag = "19")]
    NotLeader(u64),
    #[prost(message, tag = "20")]
    Unknown(Empty),
    #[prost(enumeration = "WireUnfit", tag = "21")]
    Unfit(i32),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireResults {
    #[prost(message, repeated, tag = "1")]
    results: Vec<WireResult>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireResult {
    #[prost(oneof = "ResultKind", tags = "1, 2, 3")]
    kind: Option<ResultKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ResultKind {
    #[prost(bool, tag = "1")]
    Written(bool),
    #[prost(bool, tag = "2")]
    Deleted(bool),
    #[prost(message, tag = "3")]
    Read(WireRead),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRead {
    #[prost(message, optional, tag = "1")]
    version: Option<WireVersion>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireEntries {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<WireEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireChanges {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<WireKeyChange>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireLease {
    /// Milliseconds.
    #[prost(uint64, tag = "1")]
    ttl: u64,
    /// Milliseconds.
    #[prost(uint64, optional, tag = "2")]
    left: Option<u64>,
    #[prost(string, repeated, tag = "3")]
    keys: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum WireRefused {
    Unset = 0,
    KeyTwice = 1,
    TooManyOperations = 2,
    TooManyLeases = 3,
    TooManyKeys = 4,
    TimeToLive = 5,
    FutureRevision = 6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum WireUnfit {
    Unset = 0,
    Overloaded = 1,
    TooLarge = 2,
}

/// Encodes an answer.
pub(super) fn encode_answer(answer: &Answer) -> Vec<u8> {
    let (kind, revision) = encode_kind(answer);
    let flag = matches!(
        answer,
        Answer::Written { created: true, .. }
            | Answer::Transacted { succeeded: true, .. }
            | Answer::Entries { more: true, .. }
    );
    let replayed = matches!(
        answer,
        Answer::Written { replayed: true, .. }
            | Answer::Deleted { replayed: true, .. }
            | Answer::Transacted { replayed: true, .. }
            | Answer::Granted { replayed: true, .. }
            | Answer::Revoked { replayed: true, .. }
    );
    encode(&WireAnswer { kind: Some(kind), revision, flag, replayed })
}

fn encode_kind(answer: &Answer) -> (Kind, Option<u64>) {
    match answer {
        Answer::Written { revision, .. } => (Kind::Written(Empty {}), Some(*revision)),
        Answer::Deleted { revision, .. } => (Kind::Deleted(Empty {}), Some(*revision)),
        Answer::Conflict { current } => (Kind::Conflict(Empty {}), *current),
        Answer::NotFound => (Kind::NotFound(Empty {}), None),
        Answer::Transacted { results, revision, .. } => {
            let results = results.iter().map(encode_result).collect();
            (Kind::Transacted(WireResults { results }), Some(*revision))
        }
        Answer::Granted { lease, .. } => (Kind::Granted(lease.0), None),
        Answer::Revoked { revision, .. } => (Kind::Revoked(Empty {}), Some(*revision)),
        Answer::NoLease { lease } => (Kind::NoLease(lease.0), None),
        Answer::Forgotten { through } => (Kind::Forgotten(Empty {}), Some(*through)),
        Answer::IdempotencyMismatch => (Kind::IdempotencyMismatch(Empty {}), None),
        Answer::Refused(why) => (Kind::Refused(encode_refused(*why).into()), None),
        Answer::Value { version, store_revision } => {
            (Kind::Value(WireVersion::from(version)), Some(*store_revision))
        }
        Answer::Absent { store_revision } => (Kind::Absent(Empty {}), Some(*store_revision)),
        Answer::Entries { entries, store_revision, .. } => {
            let entries = entries.iter().map(WireEntry::from).collect();
            (Kind::Entries(WireEntries { entries }), Some(*store_revision))
        }
        Answer::Changes { changes, through } => {
            let changes = changes.iter().map(WireKeyChange::from).collect();
            (Kind::Changes(WireChanges { changes }), Some(*through))
        }
        Answer::Compacted { oldest } => (Kind::Compacted(Empty {}), Some(*oldest)),
        Answer::Future { store_revision } => (Kind::Future(Empty {}), Some(*store_revision)),
        Answer::Lease { ttl, left, keys } => {
            let (ttl, left) = (millis(*ttl), left.map(millis));
            (Kind::Lease(WireLease { ttl, left, keys: keys.clone() }), None)
        }
        Answer::NotLeader { leader } => (Kind::NotLeader(leader.map_or(0, |id| id.0)), None),
        Answer::Unknown => (Kind::Unknown(Empty {}), None),
        Answer::Overloaded => (Kind::Unfit(WireUnfit::Overloaded.into()), None),
        Answer::TooLarge => (Kind::Unfit(WireUnfit::TooLarge.into()), None),
    }
}

/// Decodes what [`encode_answer`] made.
pub(super) fn decode_answer(bytes: &Bytes) -> Result<Answer, DecodeError> {
    let WireAnswer { kind, revision, flag, replayed } = decode(bytes, WHAT)?;
    let malformed = DecodeError::Malformed(WHAT);
    let number = || revision.ok_or(DecodeError::Malformed(WHAT));
    Ok(match kind.ok_or(malformed)? {
        Kind::Written(_) => Answer::Written { revision: number()?, created: flag, replayed },
        Kind::Deleted(_) => Answer::Deleted { revision: number()?, replayed },
        Kind::Conflict(_) => Answer::Conflict { current: revision },
        Kind::NotFound(_) => Answer::NotFound,
        Kind::Transacted(WireResults { results }) => {
            let results = results.into_iter().map(decode_result).collect::<Result<_, _>>()?;
            Answer::Transacted { succeeded: flag, results, revision: number()?, replayed }
        }
        Kind::Granted(lease) => Answer::Granted { lease: LeaseId(lease), replayed },
        Kind::Revoked(_) => Answer::Revoked { revision: number()?, replayed },
        Kind::NoLease(lease) => Answer::NoLease { lease: LeaseId(lease) },
        Kind::Forgotten(_) => Answer::Forgotten { through: number()? },
        Kind::IdempotencyMismatch(_) => Answer::IdempotencyMismatch,
        Kind::Refused(why) => Answer::Refused(decode_refused(why)?),
        Kind::Value(version) => {
            Answer::Value { version: version.into(), store_revision: number()? }
        }
        Kind::Absent(_) => Answer::Absent { store_revision: number()? },
        Kind::Entries(WireEntries { entries }) => {
            let entries = entries.into_iter().map(Into::into).collect();
            Answer::Entries { entries, more: flag, store_revision: number()? }
        }
        Kind::Changes(WireChanges { changes }) => {
            let changes = changes.into_iter().map(Into::into).collect();
            Answer::Changes { changes, through: number()? }
        }
        Kind::Compacted(_) => Answer::Compacted { oldest: number()? },
        Kind::Future(_) => Answer::Future { store_revision: number()? },
        Kind::Lease(WireLease { ttl, left, keys }) => {
            let (ttl, left) = (Duration::from_millis(ttl), left.map(Duration::from_millis));
            Answer::Lease { ttl, left, keys }
        }
        Kind::NotLeader(id) => Answer::NotLeader { leader: (id != 0).then_some(MemberId(id)) },
        Kind::Unknown(_) => Answer::Unknown,
        Kind::Unfit(why) => match WireUnfit::try_from(why) {
            Ok(WireUnfit::Overloaded) => Answer::Overloaded,
            Ok(WireUnfit::TooLarge) => Answer::TooLarge,
            Ok(WireUnfit::Unset) | Err(_) => return Err(DecodeError::Malformed(WHAT)),
        },
    })
}

pub(super) fn encode_result(result: &OperationResult) -> WireResult {
    let kind = match result {
        OperationResult::Written { created } => ResultKind::Written(*created),
        OperationResult::Deleted { existed } => ResultKind::Deleted(*existed),
        OperationResult::Read { version } => {
            ResultKind::Read(WireRead { version: version.as_ref().map(WireVersion::from) })
        }
    };
    WireResult { kind: Some(kind) }
}

pub(super) fn decode_result(wire: WireResult) -> Result<OperationResult, DecodeError> {
    Ok(match wire.kind.ok_or(DecodeError::Malformed(WHAT))? {
        ResultKind::Written(created) => OperationResult::Written { created },
        ResultKind::Deleted(existed) => OperationResult::Deleted { existed },
        ResultKind::Read(WireRead { version }) => {
            OperationResult::Read { version: version.map(Into::into) }
        }
    })
}

const fn encode_refused(why: Refused) -> WireRefused {
    match why {
        Refused::KeyTwice => WireRefused::KeyTwice,
        Refused::TooManyOperations => WireRefused::TooManyOperations,
        Refused::TooManyLeases => WireRefused::TooManyLeases,
        Refused::TooManyKeys => WireRefused::TooManyKeys,
        Refused::TimeToLive => WireRefused::TimeToLive,
        Refused::FutureRevision => WireRefused::FutureRevision,
    }
}

fn decode_refused(why: i32) -> Result<Refused, DecodeError> {
    match WireRefused::try_from(why) {
        Ok(WireRefused::KeyTwice) => Ok(Refused::KeyTwice),
        Ok(WireRefused::TooManyOperations) => Ok(Refused::TooManyOperations),
        Ok(WireRefused::TooManyLeases) => Ok(Refused::TooManyLeases),
        Ok(WireRefused::TooManyKeys) => Ok(Refused::TooManyKeys),
        Ok(WireRefused::TimeToLive) => Ok(Refused::TimeToLive),
        Ok(WireRefused::FutureRevision) => Ok(Refused::FutureRevision),
        Ok(WireRefused::Unset) | Err(_) => Err(DecodeError::Malformed(WHAT)),
    }
}
