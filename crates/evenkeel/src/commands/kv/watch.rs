//! Changes, one line each, until Ctrl-C.

use std::process::ExitCode;
use std::time::Duration;

use evenkeel_client::{Change, Client, Wanted};
use serde_json::json;
use tokio::time::sleep;

use super::text::{self, GAP};
use super::{interrupted, refuse};
use crate::failure::Outcome;
use crate::show;

/// Time without a change after which a lost connection is told. Longer than one takes to come
/// back: it is begun anew each time.
const TROUBLE_AFTER: Duration = Duration::from_secs(6);

pub(super) async fn run(
    client: &Client,
    key: Option<&str>,
    prefix: Option<&str>,
    since: Option<u64>,
    json: bool,
) -> Outcome {
    let wanted = key.map_or_else(|| Wanted::prefix(prefix.unwrap_or_default()), Wanted::key);
    let end = interrupted();
    tokio::pin!(end);
    let mut watch = tokio::select! {
        ended = &mut end => return ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        watch = client.watch(wanted, since) => watch.map_err(refuse)?,
    };
    show::say(&format!("watching from revision {} on, until Ctrl-C", watch.revision()));
    let columns = text::columns();
    let mut told = false;
    loop {
        let changes = tokio::select! {
            biased;
            ended = &mut end => return ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
            changes = watch.next() => Some(changes.map_err(refuse)?),
            () = sleep(TROUBLE_AFTER) => None,
        };
        let Some(changes) = changes else {
            let trouble = watch.trouble().filter(|_| !told);
            if let Some(trouble) = trouble {
                show::say(&format!("waiting for a host that answers: {trouble}"));
            }
            told = watch.trouble().is_some();
            continue;
        };
        for change in &changes.changes {
            show::result(&line(changes.revision, change, columns, json))?;
        }
    }
}

fn line(revision: u64, change: &Change, columns: Option<usize>, json: bool) -> String {
    match (change, json) {
        (Change::Put(entry), true) => {
            let mut object = text::json_key(entry);
            object["type"] = "put".into();
            object.to_string()
        }
        (Change::Delete { key }, true) => {
            json!({ "type": "delete", "key": key, "revision": revision }).to_string()
        }
        (Change::Put(entry), false) => {
            let head = format!("{revision}{GAP}put{GAP}{}", text::name(&entry.key));
            text::line(&head, &entry.value, columns)
        }
        (Change::Delete { key }, false) => {
            format!("{revision}{GAP}delete{GAP}{}", text::name(key))
        }
    }
}
