//! Changes told as they come, as server-sent events.
//!
//! ```text
//!  event: open       id: 17   data: {"revision":17}             everything after 17 follows
//!  event: change     id: 19   data: {"revision":19,"changes":[…]}      one event a revision
//!  event: progress   id: 25   data: {"revision":25}             nothing up to 25 was missed
//!  event: end        data: {"error":{…}}                        why no more will come
//! ```
//! A revision is never split, so that its `id` may be given back as `since` or `Last-Event-ID`:
//! nothing is told twice and nothing is left out. Events are drawn from the history as the reader
//! takes them: one that does not read holds up nobody, and is told when its place was forgotten.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::Response;
use evenkeel_consensus::answer::{Answer, KeyChange};
use evenkeel_consensus::command::{Query, Space};
use serde::Serialize;
use tokio::time::Instant;

use super::Api;
use super::events::{self, Gone, Outlet, PROGRESS_EVERY};
use super::response::Refusal;
use super::target::Parameters;
use super::value::KeyBody;
use crate::failure::Failure;

/// Changes asked for at once.
const BATCH: usize = 256;
/// A reader without an id of its own says where it was in this header.
const LAST_EVENT_ID: &str = "last-event-id";

/// The keys to watch.
#[derive(Debug)]
pub(super) enum Wanted {
    Key(String),
    Prefix(String),
}

impl Wanted {
    fn prefix(&self) -> &str {
        match self {
            Self::Key(prefix) | Self::Prefix(prefix) => prefix,
        }
    }

    fn has(&self, key: &str) -> bool {
        match self {
            Self::Key(wanted) => key == wanted,
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

/// The body of an event.
#[derive(Serialize)]
struct ChangesBody {
    revision: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<ChangeBody>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ChangeBody {
    Put(KeyBody),
    Delete { key: String },
}

/// Answers with a stream of changes.
pub(super) async fn watch(
    api: &Arc<Api>,
    wanted: Wanted,
    parameters: &Parameters,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let permit = api.admit_watcher()?;
    let present = present_revision(api).await?;
    let since = match parameters.since {
        Some(since) => since,
        None => last_event_id(headers)?.unwrap_or(present),
    };
    if since > present {
        return Err(Refusal::from_answer(&Answer::Future { store_revision: present }));
    }
    // What is forgotten already is refused with a status of its own.
    let first = changes(api, &wanted, since, Duration::ZERO).await?;
    if let Answer::Compacted { .. } = first {
        return Err(Refusal::from_answer(&first));
    }
    let (outlet, response) = events::open();
    let watcher = Watcher { api: Arc::clone(api), wanted, since, outlet };
    tokio::spawn(async move {
        watcher.run().await;
        drop(permit);
    });
    Ok(response)
}

/// Returns the store's revision now, as a quorum knows it.
async fn present_revision(api: &Api) -> Result<u64, Refusal> {
    let (space, prefix) = (Space::User, String::new());
    let query = Query::Range { space, prefix, after: None, limit: 0, at: None };
    let answer = api.executor.execute(&crate::Request::Query(query), 0).await?;
    answer.store_revision().ok_or_else(|| Refusal::from_answer(&answer))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let revision = id.to_str().ok().and_then(|id| id.parse().ok());
    let bad = || Refusal::bad("bad-header", "`Last-Event-ID` is no revision".to_owned());
    revision.map(Some).ok_or_else(bad)
}

/// Asks this host, or the nearest voter, what has changed after `since`; waits for at most `wait`
/// when nothing has.
async fn changes(
    api: &Api,
    wanted: &Wanted,
    since: u64,
    wait: Duration,
) -> Result<Answer, Failure> {
    let prefix = wanted.prefix().to_owned();
    let query = Query::Changes { prefix, after: since, limit: BATCH };
    api.executor.changes(&query, since, wait, 0).await
}

/// One reader, and how far it has been told.
struct Watcher {
    api: Arc<Api>,
    wanted: Wanted,
    since: u64,
    outlet: Outlet,
}

impl Watcher {
    async fn run(mut self) {
        let opened = self.tell("open", ChangesBody { revision: self.since, changes: Vec::new() });
        if opened.await.is_ok() {
            drop(self.follow().await);
        }
    }

    async fn follow(&mut self) -> Result<(), Gone> {
        let mut told = Instant::now();
        loop {
            let before = self.since;
            match changes(&self.api, &self.wanted, self.since, PROGRESS_EVERY).await {
                Ok(Answer::Changes { changes, through }) => {
                    if self.tell_changes(changes).await? {
                        told = Instant::now();
                    }
                    self.since = through.max(self.since);
                }
                // This host is behind what a quorum has told before, and was waited for in vain.
                Ok(Answer::Future { .. }) => {}
                Ok(answer) => return self.outlet.end(&Refusal::from_answer(&answer)).await,
                Err(failure) => return self.outlet.end(&Refusal::from(failure)).await,
            }
            if let Some(refusal) = events::leaderless(&self.api) {
                return self.outlet.end(&refusal).await;
            }
            if told.elapsed() >= PROGRESS_EVERY && self.since >= before {
                self.tell("progress", ChangesBody { revision: self.since, changes: Vec::new() })
                    .await?;
                told = Instant::now();
            }
        }
    }

    /// Tells the changes that are wanted, and returns whether there were any.
    async fn tell_changes(&mut self, changes: Vec<KeyChange>) -> Result<bool, Gone> {
        let mut event: Option<ChangesBody> = None;
        let mut any = false;
        for change in changes {
            if !self.wanted.has(&change.key) {
                continue;
            }
            any = true;
            if let Some(full) = event.take_if(|event| event.revision != change.revision) {
                self.tell("change", full).await?;
            }
            let revision = change.revision;
            let body = event.get_or_insert(ChangesBody { revision, changes: Vec::new() });
            body.changes.push(match &change.after {
                Some(version) => ChangeBody::Put(KeyBody::new(change.key, version)),
                None => ChangeBody::Delete { key: change.key },
            });
        }
        if let Some(last) = event {
            self.tell("change", last).await?;
        }
        Ok(any)
    }

    async fn tell(&mut self, name: &str, body: ChangesBody) -> Result<(), Gone> {
        self.outlet.tell(name, body.revision, &body).await
    }
}
