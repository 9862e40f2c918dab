//! Requests and replies between hosts, as protobuf. A field's tag is its name for ever.

use axum::body::Bytes;
use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::wire;
use evenkeel_model::name::HostName;
use prost::Message;

use super::Forwarded;
use crate::Request;
use crate::failure::Failure;

#[derive(Clone, PartialEq, Eq, Message)]
struct WireRequest {
    #[prost(oneof = "Kind", tags = "1, 2")]
    kind: Option<Kind>,
    /// Whether the state of the asked host will do.
    #[prost(bool, tag = "3")]
    stale: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum Kind {
    #[prost(bytes = "bytes", tag = "1")]
    Command(Bytes),
    #[prost(bytes = "bytes", tag = "2")]
    Query(Bytes),
}

#[derive(Clone, PartialEq, Eq, Message)]
struct WireReply {
    #[prost(oneof = "Outcome", tags = "1, 2")]
    outcome: Option<Outcome>,
    #[prost(uint64, tag = "3")]
    store_revision: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum Outcome {
    #[prost(bytes = "bytes", tag = "1")]
    Answer(Bytes),
    #[prost(message, tag = "2")]
    Failure(WireFailure),
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
    let kind = match request {
        Request::Command(command) => Kind::Command(wire::encode_command(command.clone()).into()),
        Request::Query(query) => Kind::Query(wire::encode_query(query).into()),
    };
    WireRequest { kind: Some(kind), stale }.encode_to_vec().into()
}

/// Decodes a request and whether the state of this host will do.
pub(crate) fn decode_request(bytes: Bytes) -> Option<(Request, bool)> {
    let WireRequest { kind, stale } = WireRequest::decode(bytes).ok()?;
    let request = match kind? {
        Kind::Command(bytes) => Request::Command(wire::decode_command(&bytes).ok()?),
        Kind::Query(bytes) => Request::Query(wire::decode_query(&bytes).ok()?),
    };
    Some((request, stale))
}

/// Encodes a reply; `store_revision` is this host's, for replies that carry none themselves.
pub(crate) fn encode_reply(result: &Result<Answer, Failure>, store_revision: u64) -> Bytes {
    let (outcome, revision) = match result {
        Ok(answer) => {
            (Outcome::Answer(wire::encode_answer(answer).into()), answer.store_revision())
        }
        Err(failure) => (Outcome::Failure(encode_failure(failure)), None),
    };
    let store_revision = revision.unwrap_or(store_revision);
    WireReply { outcome: Some(outcome), store_revision }.encode_to_vec().into()
}

/// Decodes a reply.
pub(crate) fn decode_reply(bytes: Bytes) -> Option<Forwarded> {
    let WireReply { outcome, store_revision } = WireReply::decode(bytes).ok()?;
    let result = match outcome? {
        Outcome::Answer(bytes) => Ok(wire::decode_answer(&bytes).ok()?),
        Outcome::Failure(failure) => Err(decode_failure(&failure)?),
    };
    Some(Forwarded { result, revision: store_revision })
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
    use std::time::Duration;

    use evenkeel_consensus::command::{Change, Command, LeaseId, Query};

    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        let change = Change::GrantLease { ttl: Duration::from_secs(9) };
        let command = Command { change, idempotency: Some("i".to_owned()) };
        let query = Query::KeepAlive { lease: LeaseId(7) };
        for request in [Request::Command(command), Request::Query(query)] {
            let decoded = decode_request(encode_request(&request, true));
            assert_eq!(decoded, Some((request, true)));
        }
        assert_eq!(decode_request(Bytes::from_static(&[0xff, 1])), None);
    }

    #[test]
    fn replies_are_read_as_they_were_written() {
        let host = || HostName::parse("fra-a1").unwrap();
        let failures = [
            Failure::NoQuorum { host: host() },
            Failure::NotLeader { host: host(), leader: Some(host()) },
            Failure::DiskFull { host: host() },
            Failure::Overloaded { host: host() },
            Failure::TooLarge,
            Failure::StoreFull,
            Failure::Unknown,
        ];
        let written = Answer::Written { revision: 12, created: true, replayed: false };
        for (result, revision) in failures
            .map(|failure| (Err(failure), 9))
            .into_iter()
            .chain([(Ok(Answer::Conflict { current: Some(3) }), 9), (Ok(written), 12)])
        {
            let forwarded = decode_reply(encode_reply(&result, 9)).unwrap();
            assert_eq!(forwarded.result, result);
            assert_eq!(forwarded.revision, revision);
        }
    }
}
