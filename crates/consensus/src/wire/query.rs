//! Questions as hosts pass them on to each other.

use prost::bytes::Bytes;

use super::command::{Empty, WireSpace, decode_space};
use super::{decode, encode};
use crate::command::{LeaseId, Query};
use crate::log::DecodeError;

const WHAT: &str = "question";

#[derive(Clone, PartialEq, prost::Message)]
struct WireQuery {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5")]
    kind: Option<Kind>,
    #[prost(enumeration = "WireSpace", tag = "6")]
    space: i32,
    /// A key, or what keys begin with.
    #[prost(string, tag = "7")]
    key: String,
    #[prost(string, optional, tag = "8")]
    after_key: Option<String>,
    #[prost(uint64, optional, tag = "9")]
    at: Option<u64>,
    #[prost(uint64, tag = "10")]
    limit: u64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Get(Empty),
    #[prost(message, tag = "2")]
    Range(Empty),
    /// The last revision that is known already.
    #[prost(uint64, tag = "3")]
    Changes(u64),
    #[prost(uint64, tag = "4")]
    Lease(u64),
    #[prost(uint64, tag = "5")]
    KeepAlive(u64),
}

/// Encodes a question.
pub(super) fn encode_query(query: &Query) -> Vec<u8> {
    let empty = |kind| WireQuery { kind: Some(kind), ..WireQuery::default() };
    encode(&match query {
        Query::Get { space, key, at } => WireQuery {
            space: WireSpace::from(*space).into(),
            key: key.clone(),
            at: *at,
            ..empty(Kind::Get(Empty {}))
        },
        Query::Range { space, prefix, after, limit, at } => WireQuery {
            space: WireSpace::from(*space).into(),
            key: prefix.clone(),
            after_key: after.clone(),
            at: *at,
            limit: *limit as u64,
            ..empty(Kind::Range(Empty {}))
        },
        Query::Changes { prefix, after, limit } => {
            WireQuery { key: prefix.clone(), limit: *limit as u64, ..empty(Kind::Changes(*after)) }
        }
        Query::Lease { lease } => empty(Kind::Lease(lease.0)),
        Query::KeepAlive { lease } => empty(Kind::KeepAlive(lease.0)),
    })
}

/// Decodes what [`encode_query`] made.
pub(super) fn decode_query(bytes: &Bytes) -> Result<Query, DecodeError> {
    let WireQuery { kind, space, key, after_key, at, limit } = decode(bytes, WHAT)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(match kind.ok_or(DecodeError::Malformed(WHAT))? {
        Kind::Get(Empty {}) => Query::Get { space: decode_space(space)?, key, at },
        Kind::Range(Empty {}) => {
            Query::Range { space: decode_space(space)?, prefix: key, after: after_key, limit, at }
        }
        Kind::Changes(after) => Query::Changes { prefix: key, after, limit },
        Kind::Lease(lease) => Query::Lease { lease: LeaseId(lease) },
        Kind::KeepAlive(lease) => Query::KeepAlive { lease: LeaseId(lease) },
    })
}
