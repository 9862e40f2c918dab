//! Transactions: compare, then do one list of operations or the other, all or nothing.

use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::keys::KeyValue;
use crate::leases::LeaseId;
use crate::value::{self, Encoding, KeyWire};

/// What is compared, and what is done then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// What must hold.
    pub compare: Vec<Compare>,
    /// What is done if all of it holds.
    pub success: Vec<Operation>,
    /// What is done if not.
    pub failure: Vec<Operation>,
}

/// A comparison. A key that is not there has an empty value, and 0 for every number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// How it must stand to `operand`.
    pub relation: Relation,
    /// What of it is compared, and with what.
    pub operand: Operand,
}

/// How two sides must stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Relation {
    /// The same.
    #[default]
    #[serde(rename = "=")]
    Equal,
    /// Not the same.
    #[serde(rename = "!=")]
    NotEqual,
    /// The key's side is less.
    #[serde(rename = "<")]
    Less,
    /// The key's side is greater.
    #[serde(rename = ">")]
    Greater,
}

/// What of a key is compared, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// The revision of its last change.
    Revision(u64),
    /// The revision of its creation.
    Created(u64),
    /// How often it was set since.
    Version(u64),
    /// Its lease, 0 for none.
    Lease(u64),
    /// Its value.
    Value(Bytes),
}

/// One thing that a transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: Bytes,
        /// The lease with which it goes.
        lease: Option<LeaseId>,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Reads a key.
    Get {
        /// The key.
        key: String,
    },
}

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transacted {
    /// Whether every comparison held.
    pub succeeded: bool,
    /// The revision of the store since.
    pub revision: u64,
    /// What each operation of the list that was done came to; empty when `replayed`, as the store
    /// does not remember it.
    pub results: Vec<OperationResult>,
    /// Whether an earlier try of the same idempotency key had done it.
    pub replayed: bool,
}

/// What one operation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationResult {
    /// A key was set.
    Put {
        /// Whether it did not exist before.
        created: bool,
    },
    /// A key was to be removed.
    Delete {
        /// Whether it was there.
        existed: bool,
    },
    /// A key was read.
    Get {
        /// The key, if it is there.
        found: Option<KeyValue>,
    },
}

/// A transaction in JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransactionWire {
    #[serde(default)]
    compare: Vec<CompareWire>,
    #[serde(default)]
    then: Vec<OperationWire>,
    #[serde(default, rename = "else")]
    otherwise: Vec<OperationWire>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareWire {
    key: String,
    target: Target,
    #[serde(default)]
    is: Relation,
    with: Value,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Target {
    Revision,
    Created,
    Version,
    Lease,
    Value,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OperationWire {
    Put(PutWire),
    Delete(KeyOnly),
    Get(KeyOnly),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutWire {
    key: String,
    value: String,
    #[serde(default)]
    encoding: Encoding,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyOnly {
    key: String,
}

/// The answer to a transaction.
#[derive(Deserialize)]
pub(crate) struct TransactedWire {
    succeeded: bool,
    revision: u64,
    results: Vec<ResultWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ResultWire {
    Put { created: bool },
    Delete { existed: bool },
    Get { found: Option<KeyWire> },
}

impl Transaction {
    /// Reads a transaction as it stands in the body of `POST /v1/txn`.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn from_json(text: &[u8]) -> Result<Self, Error> {
        let bad =
            |error: serde_json::Error| Error::bad_request(format!("the transaction: {error}"));
        let wire: TransactionWire = serde_json::from_slice(text).map_err(bad)?;
        let operations = |list: Vec<OperationWire>| -> Result<Vec<Operation>, Error> {
            list.into_iter().map(operation).collect()
        };
        Ok(Self {
            compare: wire.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
            success: operations(wire.then)?,
            failure: operations(wire.otherwise)?,
        })
    }

    /// Returns whether neither list changes anything.
    pub(crate) fn only_reads(&self) -> bool {
        let mut operations = self.success.iter().chain(&self.failure);
        operations.all(|operation| matches!(operation, Operation::Get { .. }))
    }

    pub(crate) fn to_wire(&self) -> TransactionWire {
        TransactionWire {
            compare: self.compare.iter().map(CompareWire::new).collect(),
            then: self.success.iter().map(OperationWire::new).collect(),
            otherwise: self.failure.iter().map(OperationWire::new).collect(),
        }
    }
}

impl CompareWire {
    fn new(compare: &Compare) -> Self {
        let (target, with, encoding) = match &compare.operand {
            Operand::Revision(number) => (Target::Revision, (*number).into(), Encoding::Utf8),
            Operand::Created(number) => (Target::Created, (*number).into(), Encoding::Utf8),
            Operand::Version(number) => (Target::Version, (*number).into(), Encoding::Utf8),
            Operand::Lease(number) => (Target::Lease, (*number).into(), Encoding::Utf8),
            Operand::Value(value) => {
                let (text, encoding) = value::encode(value);
                (Target::Value, text.into(), encoding)
            }
        };
        Self { key: compare.key.clone(), target, is: compare.relation, with, encoding }
    }
}

impl OperationWire {
    fn new(operation: &Operation) -> Self {
        match operation {
            Operation::Put { key, value, lease } => {
                let (value, encoding) = value::encode(value);
                let lease = lease.map(|LeaseId(lease)| lease);
                Self::Put(PutWire { key: key.clone(), value, encoding, lease })
            }
            Operation::Delete { key } => Self::Delete(KeyOnly { key: key.clone() }),
            Operation::Get { key } => Self::Get(KeyOnly { key: key.clone() }),
        }
    }
}

fn compare(wire: CompareWire) -> Result<Compare, Error> {
    let CompareWire { key, target, is, with, encoding } = wire;
    let bad = |problem: &str| Error::bad_request(format!("the comparison of `{key}`: {problem}"));
    let number = || with.as_u64().ok_or_else(|| bad("`with` is not a number from 0 on"));
    let operand = match target {
        Target::Revision => Operand::Revision(number()?),
        Target::Created => Operand::Created(number()?),
        Target::Version => Operand::Version(number()?),
        Target::Lease => Operand::Lease(number()?),
        Target::Value => {
            let text = with.as_str().ok_or_else(|| bad("`with` is not a text"))?;
            Operand::Value(value::decode(text.to_owned(), encoding).map_err(bad)?)
        }
    };
    Ok(Compare { key, relation: is, operand })
}

fn operation(wire: OperationWire) -> Result<Operation, Error> {
    Ok(match wire {
        OperationWire::Put(PutWire { key, value, encoding, lease }) => {
            let bad = |problem| Error::bad_request(format!("the value of `{key}` {problem}"));
            let value = value::decode(value, encoding).map_err(bad)?;
            Operation::Put { key, value, lease: lease.map(LeaseId) }
        }
        OperationWire::Delete(KeyOnly { key }) => Operation::Delete { key },
        OperationWire::Get(KeyOnly { key }) => Operation::Get { key },
    })
}

impl TransactedWire {
    pub(crate) fn read(self, replayed: bool) -> Result<Transacted, Error> {
        let Self { succeeded, revision, results } = self;
        let result = |wire| {
            Ok(match wire {
                ResultWire::Put { created } => OperationResult::Put { created },
                ResultWire::Delete { existed } => OperationResult::Delete { existed },
                ResultWire::Get { found } => {
                    OperationResult::Get { found: found.map(KeyWire::read).transpose()? }
                }
            })
        };
        let results = results.into_iter().map(result).collect::<Result<_, Error>>()?;
        Ok(Transacted { succeeded, revision, results, replayed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_the_same_in_json() {
        let key = |key: &str| key.to_owned();
        let compare = |relation, operand| Compare { key: key("c"), relation, operand };
        let put = |value: &'static [u8], lease| Operation::Put {
            key: key("p"),
            value: Bytes::from_static(value),
            lease,
        };
        let transaction = Transaction {
            compare: vec![
                compare(Relation::Equal, Operand::Version(0)),
                compare(Relation::Less, Operand::Revision(u64::MAX)),
                compare(Relation::Greater, Operand::Created(1)),
                compare(Relation::NotEqual, Operand::Lease(3)),
                compare(Relation::Equal, Operand::Value(Bytes::from_static(b"\xff"))),
            ],
            success: vec![put(b"text", None), put(b"\0\xff", Some(LeaseId(9)))],
            failure: vec![Operation::Get { key: key("g") }, Operation::Delete { key: key("d") }],
        };
        let json = serde_json::to_vec(&transaction.to_wire()).unwrap();
        assert_eq!(Transaction::from_json(&json).unwrap(), transaction);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, expected: &str| {
            let error = Transaction::from_json(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("[", "EOF");
        check(r#"{"than": []}"#, "unknown field `than`");
        check(r#"{"then": [{"burn": {"key": "k"}}]}"#, "unknown variant `burn`");
        check(
            r#"{"compare": [{"key": "k", "target": "version", "with": "x"}]}"#,
            "comparison of `k`",
        );
        let put = r#"{"then": [{"put": {"key": "k", "value": "~", "encoding": "base64"}}]}"#;
        check(put, "the value of `k` is not base64");
    }

    #[test]
    fn results_are_read() {
        let text = r#"{"succeeded": true, "revision": 5, "results": [
            {"put": {"created": true}}, {"delete": {"existed": false}}, {"get": {"found": null}}
        ]}"#;
        let read = serde_json::from_str::<TransactedWire>(text).unwrap().read(false).unwrap();
        let expected = [
            OperationResult::Put { created: true },
            OperationResult::Delete { existed: false },
            OperationResult::Get { found: None },
        ];
        assert_eq!((read.succeeded, read.revision, read.results), (true, 5, expected.to_vec()));
    }
}
