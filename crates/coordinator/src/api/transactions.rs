//! Transactions: compare, then do one list of operations or the other.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use evenkeel_consensus::answer::{Answer, OperationResult};
use evenkeel_consensus::command::{
    Change, Compare, LeaseId, Operand, Operation, Relation, Transaction,
};
use serde::{Deserialize, Serialize};

use super::response::{Refusal, Reply};
use super::target::{self, Parameters};
use super::value::{self, Encoding, KeyBody};
use super::{Api, VALUE_MAX, read_json};
use crate::failure::Failure;

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    compare: Vec<CompareBody>,
    #[serde(default)]
    then: Vec<OperationBody>,
    #[serde(default, rename = "else")]
    otherwise: Vec<OperationBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareBody {
    key: String,
    /// What is compared.
    target: Target,
    /// How the key's side must stand to `with`.
    #[serde(default)]
    is: RelationBody,
    /// The other side: a text for a value, else a number.
    with: serde_json::Value,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Target {
    Revision,
    Created,
    Version,
    Value,
    Lease,
}

#[derive(Deserialize, Clone, Copy, Default)]
enum RelationBody {
    #[default]
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = ">")]
    Greater,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OperationBody {
    Put(PutBody),
    Delete(KeyOnly),
    Get(KeyOnly),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBody {
    key: String,
    value: String,
    #[serde(default)]
    encoding: Encoding,
    lease: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyOnly {
    key: String,
}

/// The body of an answer.
#[derive(Serialize)]
struct Done {
    succeeded: bool,
    revision: u64,
    results: Vec<ResultBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum ResultBody {
    Put { created: bool },
    Delete { existed: bool },
    Get { found: Option<KeyBody> },
}

pub(super) async fn transact(State(api): State<Arc<Api>>, request: Request) -> Response {
    let transact = async {
        Parameters::parse(request.uri(), &[])?;
        let (head, body) = request.into_parts();
        let _permit = api.admit()?;
        let transaction = transaction(read_json(body).await?)?;
        // What is too long to be forwarded would find no leader.
        if bytes(&transaction) > VALUE_MAX {
            return Err(Refusal::from(Failure::TooLarge));
        }
        let read = [&transaction.success, &transaction.failure].map(|list| keys_of(list));
        let answer = api.change(Change::Transaction(transaction), &head.headers).await?;
        let Answer::Transacted { succeeded, results, revision, replayed } = answer else {
            return Err(Refusal::from_answer(&answer));
        };
        let [success, failure] = read;
        let keys = if succeeded { success } else { failure };
        let results = keys.into_iter().zip(results).map(result).collect();
        let body = Done { succeeded, revision, results };
        Ok(Reply::json(StatusCode::OK, &body).replayed(replayed).into_response())
    };
    api.respond(transact.await)
}

fn transaction(body: Body) -> Result<Transaction, Refusal> {
    let operations = |list: Vec<OperationBody>| -> Result<Vec<Operation>, Refusal> {
        list.into_iter().map(operation).collect()
    };
    Ok(Transaction {
        compare: body.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: operations(body.then)?,
        failure: operations(body.otherwise)?,
    })
}

fn compare(body: CompareBody) -> Result<Compare, Refusal> {
    let CompareBody { key, target, is, with, encoding } = body;
    let bad = |what: &str| Refusal::bad("bad-body", format!("the comparison of `{key}`: {what}"));
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
    let relation = match is {
        RelationBody::Equal => Relation::Equal,
        RelationBody::NotEqual => Relation::NotEqual,
        RelationBody::Less => Relation::Less,
        RelationBody::Greater => Relation::Greater,
    };
    Ok(Compare { key: target::check_key(key)?, relation, operand })
}

fn operation(body: OperationBody) -> Result<Operation, Refusal> {
    Ok(match body {
        OperationBody::Put(PutBody { key, value, encoding, lease }) => {
            let bad = |what| Refusal::bad("bad-body", format!("the value of `{key}` {what}"));
            let value = value::decode(value, encoding).map_err(bad)?;
            Operation::Put { key: target::check_key(key)?, value, lease: lease.map(LeaseId) }
        }
        OperationBody::Delete(KeyOnly { key }) => {
            Operation::Delete { key: target::check_key(key)? }
        }
        OperationBody::Get(KeyOnly { key }) => Operation::Get { key: target::check_key(key)? },
    })
}

/// Returns how many bytes of values a transaction sets and compares.
fn bytes(transaction: &Transaction) -> usize {
    let compared = transaction.compare.iter().map(|compare| match &compare.operand {
        Operand::Value(value) => value.len(),
        Operand::Revision(_) | Operand::Created(_) | Operand::Version(_) | Operand::Lease(_) => 0,
    });
    let operations = transaction.success.iter().chain(&transaction.failure);
    let set = operations.map(|operation| match operation {
        Operation::Put { value, .. } => value.len(),
        Operation::Delete { .. } | Operation::Get { .. } => 0,
    });
    compared.chain(set).sum()
}

fn keys_of(operations: &[Operation]) -> Vec<String> {
    let keys = operations.iter().map(|operation| match operation {
        Operation::Put { key, .. } | Operation::Delete { key } | Operation::Get { key } => key,
    });
    keys.cloned().collect()
}

fn result((key, result): (String, OperationResult)) -> ResultBody {
    match result {
        OperationResult::Written { created } => ResultBody::Put { created },
        OperationResult::Deleted { existed } => ResultBody::Delete { existed },
        OperationResult::Read { version } => {
            ResultBody::Get { found: version.map(|version| KeyBody::new(key, &version)) }
        }
    }
}
