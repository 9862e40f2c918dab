//! Requests and replies between hosts, as protobuf. A field's tag is its name for ever.

use axum::body::Bytes;
use evenkeel_consensus::command::{Answer, Command, Expect, KeyEntry, Query, Space};
use evenkeel_model::name::HostName;
use prost::Message;

use super::Forwarded;
use crate::Request;
use crate::failure::Failure;

#[derive(Clone, PartialEq, Message)]
struct WireRequest {
    #[prost(oneof = "Operation", tags = "1, 2, 3, 4")]
    operation: Option<Operation>,
    /// 1: the users' keys, 2: the system's.
    #[prost(uint32, tag = "5")]
    space: u32,
    #[prost(string, tag = "6")]
    key: String,
    #[prost(string, optional, tag = "7")]
    idempotency: Option<String>,
    #[prost(oneof = "Condition", tags = "8, 9, 10")]
    condition: Option<Condition>,
    /// Whether the state of the asked host will do.
    #[prost(bool, tag = "11")]
    stale: bool,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Operation {
    #[prost(bytes = "bytes", tag = "1")]
    Put(Bytes),
    #[prost(message, tag = "2")]
    Delete(Empty),
    #[prost(message, tag = "3")]
    Get(Empty),
    /// The most keys; `key` is what they begin with.
    #[prost(uint64, tag = "4")]
    Prefix(u64),
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum Condition {
    #[prost(message, tag = "8")]
    Absent(Empty),
    #[prost(message, tag = "9")]
    Present(Empty),
    #[prost(uint64, tag = "10")]
    Revision(u64),
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct WireReply {
    #[prost(oneof = "Outcome", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    outcome: Option<Outcome>,
    #[prost(uint64, tag = "10")]
    store_revision: u64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Outcome {
    #[prost(message, tag = "1")]
    Written(WireChange),
    #[prost(message, tag = "2")]
    Deleted(WireChange),
    #[prost(message, tag = "3")]
    Conflict(WireConflict),
    #[prost(message, tag = "4")]
    NotFound(Empty),
    #[prost(message, tag = "5")]
    IdempotencyMismatch(Empty),
    #[prost(message, tag = "6")]
    Value(WireEntry),
    #[prost(message, tag = "7")]
    Absent(Empty),
    #[prost(message, tag = "8")]
    Entries(WireEntries),
    #[prost(message, tag = "9")]
    Failure(WireFailure),
}

#[derive(Clone, PartialEq, Eq, Message)]
struct WireChange {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(bool, tag = "2")]
    created: bool,
    #[prost(bool, tag = "3")]
    replayed: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct WireConflict {
    #[prost(uint64, optional, tag = "1")]
    current: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct WireEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
    #[prost(uint64, tag = "3")]
    revision: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct WireEntries {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<WireEntry>,
    #[prost(bool, tag = "2")]
    more: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct WireFailure {
    #[prost(enumeration = "Reason", tag = "1")]
    reason: i32,
    #[prost(string, tag = "2")]
    host: String,
    #[prost(string, optional, tag = "3")]
    leader: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Reason {
    /// A reason of a later version: the change may be applied.
    Unknown = 0,
    NoQuorum = 1,
    NotLeader = 2,
    DiskFull = 3,
    Overloaded = 4,
    TooLarge = 5,
    StoreFull = 6,
}

/// Encodes a request; `stale` says that the state of the asked host will do.
pub(crate) fn encode_request(request: &Request, stale: bool) -> Bytes {
    let (operation, space, key) = match request {
        Request::Command(Command::Put { space, key, value, .. }) => {
            (Operation::Put(value.clone()), space, key)
        }
        Request::Command(Command::Delete { space, key, .. }) => {
            (Operation::Delete(Empty {}), space, key)
        }
        Request::Query(Query::Get { space, key }) => (Operation::Get(Empty {}), space, key),
        Request::Query(Query::Prefix { space, prefix, limit }) => {
            (Operation::Prefix(*limit as u64), space, prefix)
        }
    };
    let (expect, idempotency) = match request {
        Request::Command(
            Command::Put { expect, idempotency, .. } | Command::Delete { expect, idempotency, .. },
        ) => (*expect, idempotency.clone()),
        Request::Query(_) => (Expect::Any, None),
    };
    let condition = match expect {
        Expect::Any => None,
        Expect::Absent => Some(Condition::Absent(Empty {})),
        Expect::Present => Some(Condition::Present(Empty {})),
        Expect::Revision(revision) => Some(Condition::Revision(revision)),
    };
    let space = match space {
        Space::User => 1,
        Space::System => 2,
    };
    let operation = Some(operation);
    WireRequest { operation, space, key: key.clone(), idempotency, condition, stale }
        .encode_to_vec()
        .into()
}

/// Decodes a request and whether the state of this host will do.
pub(crate) fn decode_request(bytes: Bytes) -> Option<(Request, bool)> {
    let WireRequest { operation, space, key, idempotency, condition, stale } =
        WireRequest::decode(bytes).ok()?;
    let space = match space {
        1 => Space::User,
        2 => Space::System,
        _ => return None,
    };
    let expect = match condition {
        None => Expect::Any,
        Some(Condition::Absent(Empty {})) => Expect::Absent,
        Some(Condition::Present(Empty {})) => Expect::Present,
        Some(Condition::Revision(revision)) => Expect::Revision(revision),
    };
    let request = match operation? {
        Operation::Put(value) => {
            Request::Command(Command::Put { space, key, value, expect, idempotency })
        }
        Operation::Delete(Empty {}) => {
            Request::Command(Command::Delete { space, key, expect, idempotency })
        }
        Operation::Get(Empty {}) => Request::Query(Query::Get { space, key }),
        Operation::Prefix(limit) => {
            let limit = usize::try_from(limit).ok()?;
            Request::Query(Query::Prefix { space, prefix: key, limit })
        }
    };
    Some((request, stale))
}

/// Encodes a reply; `store_revision` is this host's, for replies that carry none themselves.
pub(crate) fn encode_reply(result: &Result<Answer, Failure>, store_revision: u64) -> Bytes {
    let (outcome, revision) = match result {
        Ok(answer) => encode_answer(answer),
        Err(failure) => (Outcome::Failure(encode_failure(failure)), None),
    };
    let store_revision = revision.unwrap_or(store_revision);
    WireReply { outcome: Some(outcome), store_revision }.encode_to_vec().into()
}

fn encode_answer(answer: &Answer) -> (Outcome, Option<u64>) {
    let failed = |reason: Reason| {
        let reason = reason.into();
        Outcome::Failure(WireFailure { reason, host: String::new(), leader: None })
    };
    match answer {
        &Answer::Written { revision, created, replayed } => {
            (Outcome::Written(WireChange { revision, created, replayed }), Some(revision))
        }
        &Answer::Deleted { revision, replayed } => {
            let change = WireChange { revision, created: false, replayed };
            (Outcome::Deleted(change), Some(revision))
        }
        &Answer::Conflict { current } => (Outcome::Conflict(WireConflict { current }), None),
        Answer::NotFound => (Outcome::NotFound(Empty {}), None),
        Answer::IdempotencyMismatch => (Outcome::IdempotencyMismatch(Empty {}), None),
        Answer::Value { value, revision, store_revision } => {
            let entry = WireEntry { key: String::new(), value: value.clone(), revision: *revision };
            (Outcome::Value(entry), Some(*store_revision))
        }
        Answer::Absent { store_revision } => (Outcome::Absent(Empty {}), Some(*store_revision)),
        Answer::Entries { entries, more, store_revision } => {
            let entries = entries.iter().map(|entry| WireEntry {
                key: entry.key.clone(),
                value: entry.value.clone(),
                revision: entry.revision,
            });
            let entries = WireEntries { entries: entries.collect(), more: *more };
            (Outcome::Entries(entries), Some(*store_revision))
        }
        // The executor has made failures of these.
        Answer::NotLeader { .. } => (failed(Reason::NotLeader), None),
        Answer::Unknown => (failed(Reason::Unknown), None),
        Answer::Overloaded => (failed(Reason::Overloaded), None),
        Answer::TooLarge => (failed(Reason::TooLarge), None),
    }
}

fn encode_failure(failure: &Failure) -> WireFailure {
    let (reason, host, leader) = match failure {
        Failure::NoQuorum { host } => (Reason::NoQuorum, Some(host), None),
        Failure::NotLeader { host, leader } => (Reason::NotLeader, Some(host), leader.as_ref()),
        Failure::DiskFull { host } => (Reason::DiskFull, Some(host), None),
        Failure::Overloaded { host } => (Reason::Overloaded, Some(host), None),
        Failure::TooLarge => (Reason::TooLarge, None, None),
        Failure::StoreFull => (Reason::StoreFull, None, None),
        Failure::Unknown => (Reason::Unknown, None, None),
    };
    WireFailure {
        reason: reason.into(),
        host: host.map(ToString::to_string).unwrap_or_default(),
        leader: leader.map(ToString::to_string),
    }
}

/// Decodes a reply.
pub(crate) fn decode_reply(bytes: Bytes) -> Option<Forwarded> {
    let WireReply { outcome, store_revision } = WireReply::decode(bytes).ok()?;
    let answer =
        match outcome? {
            Outcome::Written(WireChange { revision, created, replayed }) => {
                Answer::Written { revision, created, replayed }
            }
            Outcome::Deleted(WireChange { revision, replayed, .. }) => {
                Answer::Deleted { revision, replayed }
            }
            Outcome::Conflict(WireConflict { current }) => Answer::Conflict { current },
            Outcome::NotFound(Empty {}) => Answer::NotFound,
            Outcome::IdempotencyMismatch(Empty {}) => Answer::IdempotencyMismatch,
            Outcome::Value(WireEntry { value, revision, .. }) => {
                Answer::Value { value, revision, store_revision }
            }
            Outcome::Absent(Empty {}) => Answer::Absent { store_revision },
            Outcome::Entries(WireEntries { entries, more }) => {
                let entries = entries
                    .into_iter()
                    .map(|WireEntry { key, value, revision }| KeyEntry { key, value, revision });
                Answer::Entries { entries: entries.collect(), more, store_revision }
            }
            Outcome::Failure(failure) => {
                let result = Err(decode_failure(&failure)?);
                return Some(Forwarded { result, revision: store_revision });
            }
        };
    Some(Forwarded { result: Ok(answer), revision: store_revision })
}

fn decode_failure(failure: &WireFailure) -> Option<Failure> {
    let host = || HostName::parse(&failure.host).ok();
    Some(match failure.reason() {
        Reason::Unknown => Failure::Unknown,
        Reason::TooLarge => Failure::TooLarge,
        Reason::StoreFull => Failure::StoreFull,
        Reason::NoQuorum => Failure::NoQuorum { host: host()? },
        Reason::DiskFull => Failure::DiskFull { host: host()? },
        Reason::Overloaded => Failure::Overloaded { host: host()? },
        Reason::NotLeader => {
            let leader = failure.leader.as_ref().and_then(|leader| HostName::parse(leader).ok());
            Failure::NotLeader { host: host()?, leader }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        let key = || "a/b".to_owned();
        let commands = [Expect::Any, Expect::Absent, Expect::Present, Expect::Revision(0)]
            .into_iter()
            .flat_map(|expect| {
                let (space, value) = (Space::User, Bytes::from_static(b"v"));
                let idempotency = Some("i".to_owned());
                [
                    Command::Put { space, key: key(), value, expect, idempotency },
                    Command::Delete { space: Space::System, key: key(), expect, idempotency: None },
                ]
            })
            .map(Request::Command);
        let queries = [
            Query::Get { space: Space::User, key: key() },
            Query::Prefix { space: Space::System, prefix: key(), limit: 7 },
        ];
        for request in commands.chain(queries.map(Request::Query)) {
            let decoded = decode_request(encode_request(&request, true));
            assert_eq!(decoded, Some((request, true)));
        }
        assert_eq!(decode_request(Bytes::from_static(&[0xff, 1])), None);
    }

    #[test]
    fn replies_are_read_as_they_were_written() {
        let host = || HostName::parse("fra-a1").unwrap();
        let value = Bytes::from_static(b"v");
        let entry = KeyEntry { key: "k".to_owned(), value: value.clone(), revision: 3 };
        let answers = [
            Answer::Written { revision: 9, created: true, replayed: false },
            Answer::Deleted { revision: 9, replayed: true },
            Answer::Conflict { current: Some(0) },
            Answer::Conflict { current: None },
            Answer::NotFound,
            Answer::IdempotencyMismatch,
            Answer::Value { value, revision: 3, store_revision: 9 },
            Answer::Absent { store_revision: 9 },
            Answer::Entries { entries: vec![entry], more: true, store_revision: 9 },
        ];
        let failures = [
            Failure::NoQuorum { host: host() },
            Failure::NotLeader { host: host(), leader: Some(host()) },
            Failure::DiskFull { host: host() },
            Failure::Overloaded { host: host() },
            Failure::TooLarge,
            Failure::StoreFull,
            Failure::Unknown,
        ];
        for result in answers.map(Ok).into_iter().chain(failures.map(Err)) {
            let forwarded = decode_reply(encode_reply(&result, 9)).unwrap();
            assert_eq!(forwarded.result, result);
            assert_eq!(forwarded.revision, 9);
        }
    }
}
