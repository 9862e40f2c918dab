//! Keys: what is asked of them and what is answered.

use hyper::body::Bytes;
use serde::Deserialize;

use crate::error::Error;
use crate::leases::LeaseId;
use crate::value::KeyWire;

/// A key as it stands, or stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// The store's revision when it was last changed.
    pub revision: u64,
    /// The store's revision when it was created: since then it was always there.
    pub created: u64,
    /// How often it was set since, the first time included.
    pub version: u64,
    /// The lease with which it goes.
    pub lease: Option<LeaseId>,
}

/// The answer to a question for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: Bytes,
    /// The store's revision when the key was last changed.
    pub revision: u64,
    /// The revision of the store, or the one that was asked for.
    pub store_revision: u64,
}

/// Some keys, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The revision of the store at which they stood so.
    pub revision: u64,
    /// The keys.
    pub keys: Vec<KeyValue>,
    /// Whether more keys follow.
    pub more: bool,
}

/// The answer to a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The revision of the key since.
    pub revision: u64,
    /// Whether it did not exist before.
    pub created: bool,
    /// Whether an earlier try of the same idempotency key had done it.
    pub replayed: bool,
}

/// The answer to a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// The revision of the store since.
    pub revision: u64,
    /// Whether an earlier try of the same idempotency key had done it.
    pub replayed: bool,
}

/// How a key must be for a change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    /// As it is.
    #[default]
    Any,
    /// Not there.
    Absent,
    /// There.
    Present,
    /// Last changed with this revision.
    Revision(u64),
}

/// How a key is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutOptions {
    /// How the key must be.
    pub expect: Expect,
    /// The lease with which it goes.
    pub lease: Option<LeaseId>,
    /// The name under which the change is made once; a random one if there is none.
    pub idempotency_key: Option<String>,
}

/// How a key is removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// How the key must be.
    pub expect: Expect,
    /// The name under which the change is made once; a random one if there is none.
    pub idempotency_key: Option<String>,
}

/// How a key is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// Whether a possibly old answer will do; it needs no quorum.
    pub stale: bool,
    /// The revision at which the key is read.
    pub revision: Option<u64>,
}

/// Which keys are listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListOptions {
    /// What they begin with.
    pub prefix: String,
    /// How many at most, 1–1000; the server's own bound if not said.
    pub limit: Option<u32>,
    /// The last key of the page before.
    pub after: Option<String>,
    /// The revision at which they are read.
    pub revision: Option<u64>,
    /// Whether a possibly old answer will do; it needs no quorum.
    pub stale: bool,
}

/// A page in an answer.
#[derive(Deserialize)]
pub(crate) struct PageWire {
    revision: u64,
    keys: Vec<KeyWire>,
    more: bool,
}

impl PageWire {
    pub(crate) fn read(self) -> Result<Page, Error> {
        let Self { revision, keys, more } = self;
        let keys: Vec<KeyValue> = keys.into_iter().map(KeyWire::read).collect::<Result<_, _>>()?;
        if more && keys.is_empty() {
            return Err(Error::malformed("more keys follow, but none came"));
        }
        Ok(Page { revision, keys, more })
    }
}
