//! Commands as they stand in entries.

use prost::Message as _;
use prost::bytes::Bytes;

use super::{decode, encode};
use crate::command::{Command, Expect, Space};
use crate::log::DecodeError;

const WHAT: &str = "command";

#[derive(Clone, PartialEq, prost::Message)]
struct WireCommand {
    #[prost(oneof = "Change", tags = "1, 2")]
    change: Option<Change>,
    #[prost(enumeration = "WireSpace", tag = "3")]
    space: i32,
    #[prost(string, tag = "4")]
    key: String,
    #[prost(message, optional, tag = "5")]
    expect: Option<WireExpect>,
    #[prost(string, optional, tag = "6")]
    idempotency: Option<String>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Change {
    #[prost(bytes = "bytes", tag = "1")]
    Put(Bytes),
    #[prost(message, tag = "2")]
    Delete(Empty),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

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

/// Encodes a command for an entry.
pub(crate) fn encode_command(command: Command) -> Vec<u8> {
    let (change, space, key, expect, idempotency) = match command {
        Command::Put { space, key, value, expect, idempotency } => {
            (Change::Put(value), space, key, expect, idempotency)
        }
        Command::Delete { space, key, expect, idempotency } => {
            (Change::Delete(Empty {}), space, key, expect, idempotency)
        }
    };
    encode(&WireCommand {
        change: Some(change),
        space: WireSpace::from(space).into(),
        key,
        expect: encode_expect(expect),
        idempotency,
    })
}

/// Decodes the data of an entry. A field that is not known fails: to apply a change that is half
/// understood would make members differ in silence.
pub(crate) fn decode_command(data: &Bytes) -> Result<Command, DecodeError> {
    let command: WireCommand = decode(data, WHAT)?;
    if command.encoded_len() + 1 != data.len() {
        return Err(DecodeError::Malformed(WHAT));
    }
    let WireCommand { change, space, key, expect, idempotency } = command;
    let space = decode_space(space)?;
    let expect = decode_expect(expect)?;
    match change {
        Some(Change::Put(value)) => Ok(Command::Put { space, key, value, expect, idempotency }),
        Some(Change::Delete(Empty {})) => Ok(Command::Delete { space, key, expect, idempotency }),
        None => Err(DecodeError::Malformed(WHAT)),
    }
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
