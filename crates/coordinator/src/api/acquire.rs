//! Walks a client's way to a lock, step by step as [`Acquisition`] says.
//!
//! A task of its own does it, so that it ends well also when the client has gone: then what was
//! made for it is taken back. A client that has named its request may come back for its place, at
//! any host: it is left to its lease.

use std::sync::Arc;

use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Change, Command};
use evenkeel_consensus::locks::acquisition::{Acquisition, Action, Ending, Wish};
use evenkeel_model::time::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::response::Refusal;
use super::{Api, POLL_EVERY};
use crate::Request;
use crate::failure::Failure;

/// Waits for a lock for as long as the wish says.
pub(super) async fn acquire(api: &Arc<Api>, wish: Wish) -> Result<Ending, Refusal> {
    let permit = api.admit_waiter()?;
    let (mut sender, receiver) = oneshot::channel();
    let is_named = wish.idempotency.is_some();
    let acquisition = Acquisition::new(wish, Timestamp::ZERO);
    let begun = Instant::now();
    let mut walk = Walk { api: Arc::clone(api), acquisition, begun, polled: begun };
    tokio::spawn(async move {
        let result = tokio::select! {
            result = walk.run() => Some(result),
            () = sender.closed() => None,
        };
        let is_done = matches!(result, Some(Ok(_)));
        let is_told = result.is_some_and(|result| sender.send(result).is_ok());
        if !(is_named || is_done && is_told) {
            walk.withdraw().await;
        }
        drop(permit);
    });
    // A walk that panicked has changed nobody knows what.
    Ok(receiver.await.unwrap_or(Err(Failure::Unknown))?)
}

struct Walk {
    api: Arc<Api>,
    acquisition: Acquisition,
    begun: Instant,
    /// When it last asked for changes.
    polled: Instant,
}

impl Walk {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.begun.elapsed()
    }

    async fn run(&mut self) -> Result<Ending, Failure> {
        loop {
            let answer = match self.acquisition.poll_action() {
                Action::End(ending) => return Ok(ending),
                Action::Change(command) => self.execute(Request::Command(command)).await?,
                Action::Ask(query) => self.execute(Request::Query(query)).await?,
                Action::Await { query, after } => {
                    sleep_until(self.polled + POLL_EVERY).await;
                    self.polled = Instant::now();
                    let until = self.acquisition.poll_timeout().unwrap_or(Timestamp::ZERO);
                    let wait = until.since(self.now());
                    let answer = self.api.executor.changes(&query, after, wait, 0).await;
                    answer.map_err(|_| Failure::Unknown)?
                }
            };
            let now = self.now();
            self.acquisition.handle_answer(answer, now);
            self.acquisition.handle_timeout(now);
        }
    }

    /// Once there is a place, a failure can't mean that nothing was changed.
    async fn execute(&self, request: Request) -> Result<Answer, Failure> {
        let is_placed = self.acquisition.is_placed();
        let executed = self.api.executor.execute(&request, 0).await;
        executed.map_err(|failure| if is_placed { Failure::Unknown } else { failure })
    }

    /// Ends the lease that was made, and with it the place. Without a quorum it ends by itself.
    async fn withdraw(&self) {
        let Some(lease) = self.acquisition.own_lease() else { return };
        let request = Request::Command(Command::once(Change::RevokeLease { lease }));
        if let Err(failure) = self.api.executor.execute(&request, 0).await {
            tracing::debug!(lease = lease.0, %failure, "a place in a queue is left to its lease");
        }
    }
}
