//! Transactions as they stand in entries.

use prost::bytes::Bytes;

use super::command::{Empty, WHAT, decode_lease, encode_lease};
use crate::command::{Compare, Operand, Operation, Relation, Transaction};
use crate::log::DecodeError;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireTransaction {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<WireCompare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<WireOperation>,
    #[prost(message, repeated, tag = "3")]
    failure: Vec<WireOperation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireCompare {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(enumeration = "WireRelation", tag = "2")]
    relation: i32,
    #[prost(oneof = "WireOperand", tags = "3, 4, 5, 6, 7")]
    operand: Option<WireOperand>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum WireRelation {
    Unset = 0,
    Equal = 1,
    NotEqual = 2,
    Less = 3,
    Greater = 4,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireOperand {
    #[prost(uint64, tag = "3")]
    Revision(u64),
    #[prost(uint64, tag = "4")]
    Created(u64),
    #[prost(uint64, tag = "5")]
    Version(u64),
    #[prost(bytes = "bytes", tag = "6")]
    Value(Bytes),
    #[prost(uint64, tag = "7")]
    Lease(u64),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireOperation {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(oneof = "WireAction", tags = "2, 3, 4")]
    action: Option<WireAction>,
    #[prost(uint64, tag = "5")]
    lease: u64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireAction {
    #[prost(bytes = "bytes", tag = "2")]
    Put(Bytes),
    #[prost(message, tag = "3")]
    Delete(Empty),
    #[prost(message, tag = "4")]
    Get(Empty),
}

pub(super) fn encode_transaction(transaction: Transaction) -> WireTransaction {
    let operations = |list: Vec<Operation>| list.into_iter().map(encode_operation).collect();
    WireTransaction {
        compare: transaction.compare.into_iter().map(encode_compare).collect(),
        success: operations(transaction.success),
        failure: operations(transaction.failure),
    }
}

pub(super) fn decode_transaction(wire: WireTransaction) -> Result<Transaction, DecodeError> {
    let operations = |list: Vec<WireOperation>| -> Result<Vec<Operation>, DecodeError> {
        list.into_iter().map(decode_operation).collect()
    };
    Ok(Transaction {
        compare: wire.compare.into_iter().map(decode_compare).collect::<Result<_, _>>()?,
        success: operations(wire.success)?,
        failure: operations(wire.failure)?,
    })
}

fn encode_compare(Compare { key, relation, operand }: Compare) -> WireCompare {
    let relation = match relation {
        Relation::Equal => WireRelation::Equal,
        Relation::NotEqual => WireRelation::NotEqual,
        Relation::Less => WireRelation::Less,
        Relation::Greater => WireRelation::Greater,
    };
    let operand = match operand {
        Operand::Revision(number) => WireOperand::Revision(number),
        Operand::Created(number) => WireOperand::Created(number),
        Operand::Version(number) => WireOperand::Version(number),
        Operand::Value(value) => WireOperand::Value(value),
        Operand::Lease(number) => WireOperand::Lease(number),
    };
    WireCompare { key, relation: relation.into(), operand: Some(operand) }
}

fn decode_compare(wire: WireCompare) -> Result<Compare, DecodeError> {
    let relation = match WireRelation::try_from(wire.relation) {
        Ok(WireRelation::Equal) => Relation::Equal,
        Ok(WireRelation::NotEqual) => Relation::NotEqual,
        Ok(WireRelation::Less) => Relation::Less,
        Ok(WireRelation::Greater) => Relation::Greater,
        Ok(WireRelation::Unset) | Err(_) => return Err(DecodeError::Malformed(WHAT)),
    };
    let operand = match wire.operand {
        Some(WireOperand::Revision(number)) => Operand::Revision(number),
        Some(WireOperand::Created(number)) => Operand::Created(number),
        Some(WireOperand::Version(number)) => Operand::Version(number),
        Some(WireOperand::Value(value)) => Operand::Value(value),
        Some(WireOperand::Lease(number)) => Operand::Lease(number),
        None => return Err(DecodeError::Malformed(WHAT)),
    };
    Ok(Compare { key: wire.key, relation, operand })
}

fn encode_operation(operation: Operation) -> WireOperation {
    let (key, action, lease) = match operation {
        Operation::Put { key, value, lease } => (key, WireAction::Put(value), lease),
        Operation::Delete { key } => (key, WireAction::Delete(Empty {}), None),
        Operation::Get { key } => (key, WireAction::Get(Empty {}), None),
    };
    WireOperation { key, action: Some(action), lease: encode_lease(lease) }
}

fn decode_operation(wire: WireOperation) -> Result<Operation, DecodeError> {
    let WireOperation { key, action, lease } = wire;
    match action {
        Some(WireAction::Put(value)) => {
            Ok(Operation::Put { key, value, lease: decode_lease(lease) })
        }
        Some(WireAction::Delete(Empty {})) => Ok(Operation::Delete { key }),
        Some(WireAction::Get(Empty {})) => Ok(Operation::Get { key }),
        None => Err(DecodeError::Malformed(WHAT)),
    }
}
