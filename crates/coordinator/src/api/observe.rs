//! The holders of a lock, told as they follow each other, as server-sent events.
//!
//! ```text
//!  event: holder     id: 17   data: {"lock":…,"revision":17,"holder":{…},"waiting":2}
//!  event: progress   id: 25   data: {"revision":25}             it is as it was told last
//!  event: end        data: {"error":{…}}                        why no more will come
//! ```
//! Told is how it is: at once, and then whenever there is another holder, another value, or none.
//! One that held the lock for a moment may be left out, the latest never.

use std::sync::Arc;

use axum::response::Response;
use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::Query;
use evenkeel_consensus::locks::{LockName, Queue};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::events::{self, Gone, Outlet, PROGRESS_EVERY};
use super::locks::{StateBody, places};
use super::response::Refusal;
use super::{Api, POLL_EVERY};

/// Changes asked for at once: that there are any is enough.
const BATCH: usize = 16;

#[derive(Serialize)]
struct ProgressBody {
    revision: u64,
}

/// Answers with a stream of holders.
pub(super) async fn observe(api: &Arc<Api>, name: LockName) -> Result<Response, Refusal> {
    let permit = api.admit_watcher()?;
    let (queue, revision) = places(api, &name, false).await?;
    let (outlet, response) = events::open();
    let mut observer = Observer { api: Arc::clone(api), name, outlet, told: None };
    tokio::spawn(async move {
        drop(observer.run(queue, revision).await);
        drop(permit);
    });
    Ok(response)
}

/// One reader.
struct Observer {
    api: Arc<Api>,
    name: LockName,
    outlet: Outlet,
    /// Who it was told last: a token and when its value was put.
    told: Option<Option<(u64, u64)>>,
}

impl Observer {
    async fn run(&mut self, queue: Queue, revision: u64) -> Result<(), Gone> {
        let (mut queue, mut revision) = (queue, revision);
        loop {
            let holder = queue.holder().map(|place| (place.token(), place.version.revision));
            if self.told != Some(holder) {
                let body = StateBody::new(&self.name, &queue, revision);
                self.outlet.tell("holder", revision, &body).await?;
                self.told = Some(holder);
            }
            if let Err(refusal) = self.wait(revision).await? {
                return self.outlet.end(&refusal).await;
            }
            (queue, revision) = match places(&self.api, &self.name, false).await {
                Ok(found) => found,
                Err(refusal) => return self.outlet.end(&refusal).await,
            };
        }
    }

    /// Waits until a place has changed after a revision.
    async fn wait(&mut self, revision: u64) -> Result<Result<(), Refusal>, Gone> {
        let (mut after, mut told) = (revision, Instant::now());
        loop {
            let prefix = self.name.prefix();
            let query = Query::Changes { prefix, after, limit: BATCH };
            match self.api.executor.changes(&query, after, PROGRESS_EVERY, 0).await {
                Ok(Answer::Changes { changes, .. }) if !changes.is_empty() => return Ok(Ok(())),
                Ok(Answer::Changes { through, .. }) => {
                    after = through.max(after);
                    sleep(POLL_EVERY).await;
                }
                Ok(Answer::Future { .. }) => {}
                Ok(Answer::Compacted { .. }) => return Ok(Ok(())),
                Ok(answer) => return Ok(Err(Refusal::from_answer(&answer))),
                Err(failure) => return Ok(Err(Refusal::from(failure))),
            }
            if let Some(refusal) = events::leaderless(&self.api) {
                return Ok(Err(refusal));
            }
            if told.elapsed() >= PROGRESS_EVERY {
                let body = ProgressBody { revision: after };
                self.outlet.tell("progress", after, &body).await?;
                told = Instant::now();
            }
        }
    }
}
