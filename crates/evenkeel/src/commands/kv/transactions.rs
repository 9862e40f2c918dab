//! Transactions out of a file.

use std::path::Path;
use std::process::ExitCode;

use evenkeel_client::{Client, Operation, OperationResult, Transacted, Transaction};
use serde_json::{Value, json};

use super::text::{self, GAP};
use super::{read_input, refuse};
use crate::exit;
use crate::failure::Outcome;
use crate::show;

pub(super) async fn run(
    client: &Client,
    file: &Path,
    idempotency_key: Option<&str>,
    json: bool,
) -> Outcome {
    let transaction = Transaction::from_json(&read_input(file)?).map_err(refuse)?;
    let done = client.transact(&transaction, idempotency_key).await.map_err(refuse)?;
    let operations = if done.succeeded { &transaction.success } else { &transaction.failure };
    if json {
        show::result(&object(&done).to_string())?;
    } else {
        show::result(&sentence(&done))?;
        let columns = text::columns();
        for (operation, result) in operations.iter().zip(&done.results) {
            show::result(&line(operation, result, columns))?;
        }
    }
    let nothing_done = !done.succeeded && operations.is_empty();
    Ok(if nothing_done { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
}

fn sentence(done: &Transacted) -> String {
    let holds =
        if done.succeeded { "every comparison holds" } else { "a comparison does not hold" };
    let before =
        if done.replayed { "; it was done by an earlier request of this name" } else { "" };
    format!("{holds}, revision {}{before}", done.revision)
}

fn line(operation: &Operation, result: &OperationResult, columns: Option<usize>) -> String {
    let (Operation::Put { key, .. } | Operation::Delete { key } | Operation::Get { key }) =
        operation;
    let key = text::name(key);
    match result {
        OperationResult::Put { created: true } => format!("put{GAP}{key}{GAP}created"),
        OperationResult::Put { created: false } => format!("put{GAP}{key}{GAP}changed"),
        OperationResult::Delete { existed: true } => format!("delete{GAP}{key}{GAP}deleted"),
        OperationResult::Delete { existed: false } => format!("delete{GAP}{key}{GAP}was not there"),
        OperationResult::Get { found: None } => format!("get{GAP}{key}{GAP}is not there"),
        OperationResult::Get { found: Some(found) } => {
            let head = format!("get{GAP}{key}{GAP}{}", found.revision);
            text::line(&head, &found.value, columns)
        }
    }
}

fn object(done: &Transacted) -> Value {
    let result = |result: &OperationResult| match result {
        OperationResult::Put { created } => json!({ "put": { "created": created } }),
        OperationResult::Delete { existed } => json!({ "delete": { "existed": existed } }),
        OperationResult::Get { found } => {
            json!({ "get": { "found": found.as_ref().map(text::json_key) } })
        }
    };
    let results: Vec<Value> = done.results.iter().map(result).collect();
    json!({
        "succeeded": done.succeeded, "revision": done.revision, "results": results,
        "replayed": done.replayed,
    })
}
