//! Commands as they stand in entries.

use std::time::Duration;

use prost::Message as _;
use prost::bytes::Bytes;

use super::transaction::{WireTransaction, decode_transaction, encode_transaction};
use super::{decode, encode};
use crate::command::{Change, Command, Expect, LeaseId, Space};
use crate::log::DecodeError;

pub(super) const WHAT: &str = "command";

#[derive(Clone, PartialEq, prost::Message)]
struct WireCommand {
    #[prost(oneof = "WireChange", tags = "1, 2, 7, 8, 9, 10")]
    change: Option<WireChange>,
    #[prost(enumeration = "WireSpace", tag = "3")]
    space: i32,
    #[prost(string, tag = "4")]
    key: String,
    #[prost(message, optional, tag = "5")]
    expect: Option<WireExpect>,
    #[prost(string, optional, tag = "6")]
    idempotency: Option<String>,
    /// The lease of a put, or the one that is revoked.
    #[prost(uint64, tag = "11")]
    lease: u64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireChange {
    #[prost(bytes = "bytes", tag = "1")]
    Put(Bytes),
    #[prost(message, tag = "2")]
    Delete(Empty),
    #[prost(message, tag = "7")]
    Transaction(WireTransaction),
    /// The time to live in milliseconds.
    #[prost(uint64, tag = "8")]
    GrantLease(u64),
    #[prost(message, tag = "9")]
    RevokeLease(Empty),
    #[prost(uint64, tag = "10")]
    Compact(u64),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Empty {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum WireSpace {
    Unset = 0,
    User = 1,
    System = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireExpect {
    #[prost(oneof = "Condition", tags = "1, 2, 3")]
    condition: Option<Condition>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Condition {
    #[prost(message, tag = "1")]
    Absent(Empty),
    #[prost(message, tag = "2")]
    Present(Empty),
    #[prost(uint64, tag = "3")]
    Revision(u64),
}

impl WireCommand {
    fn new(change: WireChange, idempotency: Option<String>) -> Self {
        Self { change: Some(change), idempotency, ..Self::default() }
    }
}

/// Encodes a command for an entry.
pub(crate) fn encode_command(Command { change, idempotency }: Command) -> Vec<u8> {
    let new = WireCommand::new;
    encode(&match change {
        Change::Put { space, key, value, expect, lease } => WireCommand {
            space: WireSpace::from(space).into(),
            key,
            expect: encode_expect(expect),
            lease: encode_lease(lease),
            ..new(WireChange::Put(value), idempotency)
        },
        Change::Delete { space, key, expect } => WireCommand {
            space: WireSpace::from(space).into(),
            key,
            expect: encode_expect(expect),
            ..new(WireChange::Delete(Empty {}), idempotency)
        },
        Change::Transaction(transaction) => {
            new(WireChange::Transaction(encode_transaction(transaction)), idempotency)
        }
        Change::GrantLease { ttl } => new(WireChange::GrantLease(millis(ttl)), idempotency),
        Change::RevokeLease { lease } => {
            WireCommand { lease: lease.0, ..new(WireChange::RevokeLease(Empty {}), idempotency) }
        }
        Change::Compact { through } => new(WireChange::Compact(through), idempotency),
    })
}

/// Decodes the data of an entry. A field that is not known fails: to apply a change that is half
/// understood would make members differ in silence.
pub(crate) fn decode_command(data: &Bytes) -> Result<Command, DecodeError> {
    let command: WireCommand = decode(data, WHAT)?;
    if command.encoded_len() + 1 != data.len() {
        return Err(DecodeError::Malformed(WHAT));
    }
    let WireCommand { change, space, key, expect, idempotency, lease } = command;
    let lease = decode_lease(lease);
    let change = match change.ok_or(DecodeError::Malformed(WHAT))? {
        WireChange::Put(value) => {
            let (space, expect) = (decode_space(space)?, decode_expect(expect)?);
            Change::Put { space, key, value, expect, lease }
        }
        WireChange::Delete(Empty {}) => {
            let (space, expect) = (decode_space(space)?, decode_expect(expect)?);
            Change::Delete { space, key, expect }
        }
        WireChange::Transaction(transaction) => {
            Change::Transaction(decode_transaction(transaction)?)
        }
        WireChange::GrantLease(ttl) => Change::GrantLease { ttl: Duration::from_millis(ttl) },
        WireChange::RevokeLease(Empty {}) => {
            Change::RevokeLease { lease: lease.ok_or(DecodeError::Malformed(WHAT))? }
        }
        WireChange::Compact(through) => Change::Compact { through },
    };
    Ok(Command { change, idempotency })
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// No lease is 0.
pub(super) fn encode_lease(lease: Option<LeaseId>) -> u64 {
    lease.map_or(0, |lease| lease.0)
}

pub(super) fn decode_lease(lease: u64) -> Option<LeaseId> {
    (lease != 0).then_some(LeaseId(lease))
}

impl From<Space> for WireSpace {
    fn from(space: Space) -> Self {
        match space {
            Space::User => Self::User,
            Space::System => Self::System,
        }
    }
}

pub(super) fn decode_space(space: i32) -> Result<Space, DecodeError> {
    match WireSpace::try_from(space) {
        Ok(WireSpace::User) => Ok(Space::User),
        Ok(WireSpace::System) => Ok(Space::System),
        Ok(WireSpace::Unset) | Err(_) => Err(DecodeError::Malformed(WHAT)),
    }
}

fn encode_expect(expect: Expect) -> Option<WireExpect> {
    let condition = match expect {
        Expect::Any => return None,
        Expect::Absent => Condition::Absent(Empty {}),
        Expect::Present => Condition::Present(Empty {}),
        Expect::Revision(revision) => Condition::Revision(revision),
    };
    Some(WireExpect { condition: Some(condition) })
}

fn decode_expect(expect: Option<WireExpect>) -> Result<Expect, DecodeError> {
    match expect.map(|expect| expect.condition) {
        None => Ok(Expect::Any),
        Some(Some(Condition::Absent(Empty {}))) => Ok(Expect::Absent),
        Some(Some(Condition::Present(Empty {}))) => Ok(Expect::Present),
        Some(Some(Condition::Revision(revision))) => Ok(Expect::Revision(revision)),
        Some(None) => Err(DecodeError::Malformed(WHAT)),
    }
}
