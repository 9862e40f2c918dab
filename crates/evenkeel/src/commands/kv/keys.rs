//! Keys: got, put, deleted, listed; and their past forgotten.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

use evenkeel_client::{
    Client, DeleteOptions, KeyValue, LeaseId, ListOptions, PutOptions, ReadOptions,
};
use serde_json::json;

use super::text::{self, GAP};
use super::{read_input, refuse};
use crate::cli::kv::{ChangeArguments, ReadArguments};
use crate::failure::{Failure, Outcome};
use crate::show;

/// Most keys asked for at once.
const PAGE_MAX: u32 = 1000;

pub(super) async fn get(client: &Client, key: &str, read: ReadArguments, json: bool) -> Outcome {
    let options = ReadOptions { stale: read.stale, revision: read.revision };
    let found = client.get(key, &options).await.map_err(refuse)?.ok_or_else(|| absent(key))?;
    if json {
        let (value, encoding) = text::json_value(&found.value);
        let object = json!({
            "key": key, "value": value, "encoding": encoding,
            "revision": found.revision, "store_revision": found.store_revision,
        });
        show::result(&object.to_string())?;
    } else {
        show::bytes(&found.value)?;
        // The prompt begins on a line of its own; whatever else reads gets the value alone.
        if io::stdout().is_terminal() && !found.value.ends_with(b"\n") {
            show::bytes(b"\n")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn put(
    client: &Client,
    key: &str,
    value: &str,
    change: &ChangeArguments,
    lease: Option<LeaseId>,
    json: bool,
) -> Outcome {
    let value = match (value, value.strip_prefix('@')) {
        ("-", _) => read_input(Path::new("-"))?,
        (_, Some(file)) => read_input(Path::new(file))?,
        (text, None) => text.as_bytes().to_vec(),
    };
    let idempotency_key = change.idempotency_key.clone();
    let options = PutOptions { expect: change.expect(), lease, idempotency_key };
    let written = client.put(key, value, &options).await.map_err(refuse)?;
    let verb = if written.created { "created" } else { "changed" };
    let (revision, created, replayed) = (written.revision, written.created, written.replayed);
    let object = json!({ "revision": revision, "created": created, "replayed": replayed });
    let sentence = format!("{verb} at revision {revision}{}", before(replayed));
    tell(json, &object, &sentence)
}

pub(super) async fn delete(
    client: &Client,
    key: &str,
    change: &ChangeArguments,
    json: bool,
) -> Outcome {
    let idempotency_key = change.idempotency_key.clone();
    let options = DeleteOptions { expect: change.expect(), idempotency_key };
    let deleted = client.delete(key, &options).await.map_err(refuse)?;
    let deleted = deleted.ok_or_else(|| absent(key))?;
    let (revision, replayed) = (deleted.revision, deleted.replayed);
    let object = json!({ "revision": revision, "replayed": replayed });
    tell(json, &object, &format!("deleted at revision {revision}{}", before(replayed)))
}

pub(super) async fn compact(client: &Client, revision: u64, json: bool) -> Outcome {
    client.compact(revision).await.map_err(refuse)?;
    let sentence = format!("what was before revision {revision} is forgotten");
    tell(json, &json!({ "oldest": revision }), &sentence)
}

/// What to list.
pub(super) struct List<'a> {
    pub(super) prefix: &'a str,
    pub(super) limit: Option<u32>,
    pub(super) after: Option<&'a str>,
    pub(super) read: ReadArguments,
}

impl List<'_> {
    pub(super) async fn run(&self, client: &Client, json: bool) -> Outcome {
        if self.limit == Some(0) {
            let error = anyhow::Error::msg("`--limit 0` prints nothing");
            return Err(Failure::bad_input(error).with_help("leave it out to print every key"));
        }
        let mut left = usize::try_from(self.limit.unwrap_or(u32::MAX)).unwrap_or(usize::MAX);
        let mut pages = client.pages(&ListOptions {
            prefix: self.prefix.to_owned(),
            limit: self.limit.map(|limit| limit.min(PAGE_MAX)),
            after: self.after.map(str::to_owned),
            revision: self.read.revision,
            stale: self.read.stale,
        });
        let columns = text::columns();
        let (mut revision, mut more, mut all) = (0, false, Vec::new());
        let mut last = String::new();
        while let Some(page) = pages.next().await.map_err(refuse)? {
            revision = page.revision;
            more = page.more || page.keys.len() > left;
            for entry in page.keys.iter().take(left) {
                if json {
                    all.push(text::json_key(entry));
                } else {
                    show::result(&line(entry, columns))?;
                }
            }
            left = left.saturating_sub(page.keys.len());
            if let Some(entry) = page.keys.last() {
                last.clone_from(&entry.key);
            }
            if left == 0 {
                break;
            }
        }
        if json {
            let object = json!({ "revision": revision, "keys": all, "more": more });
            show::result(&object.to_string())?;
        } else if more {
            show::say(&format!(
                "more keys follow: --after '{}' --revision {revision}",
                text::name(&last)
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn line(entry: &KeyValue, columns: Option<usize>) -> String {
    let head = format!("{}{GAP}{}", text::name(&entry.key), entry.revision);
    text::line(&head, &entry.value, columns)
}

fn absent(key: &str) -> Failure {
    Failure::new(format!("there is no key `{}`", text::name(key)))
        .with_help("list the keys that there are with `evenkeel kv list`")
}

/// Says that an earlier request had done it.
const fn before(replayed: bool) -> &'static str {
    if replayed { ", by an earlier request of this name" } else { "" }
}

pub(super) fn tell(json: bool, object: &serde_json::Value, sentence: &str) -> Outcome {
    if json {
        show::result(&object.to_string())?;
    } else {
        show::result(sentence)?;
    }
    Ok(ExitCode::SUCCESS)
}
