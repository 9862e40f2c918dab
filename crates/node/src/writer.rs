//! Writes the newest of several versions to this host's disk, one after the other.

use std::sync::Arc;

use evenkeel_control::plan::Plan;
use evenkeel_files::{Readers, replace};
use evenkeel_gateway::snapshot;
use evenkeel_gateway_core::table::RouteTable;
use evenkeel_model::system::System;
use evenkeel_node_core::event::Event;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use crate::data::DataFolder;
use crate::host::Outcome;
use crate::plan_file;

/// The way to the task that writes one file. A version that comes while another is being written
/// waits, and is passed over when a newer one follows: an older version never replaces a newer
/// one, and a hung disk holds one write, not all of them.
#[derive(Debug, Clone)]
pub struct Writer<T> {
    newest: watch::Sender<Option<T>>,
}

impl<T: Clone + Send + Sync + 'static> Writer<T> {
    /// Begins to write by `write`, which may block, and to report what it returns, if anybody waits
    /// for that. Ends with the last clone of the returned writer.
    pub fn start(
        outcomes: mpsc::Sender<Outcome>,
        write: impl Fn(&T) -> Option<Event> + Send + Sync + 'static,
    ) -> Self {
        let (newest, mut next) = watch::channel(None);
        let write = Arc::new(write);
        tokio::spawn(async move {
            while next.changed().await.is_ok() {
                let Some(version) = next.borrow_and_update().clone() else { continue };
                let write = Arc::clone(&write);
                let written = spawn_blocking(move || write(&version)).await;
                let Ok(outcome) = written else { return };
                let Some(event) = outcome else { continue };
                if outcomes.send(Outcome::Event(Box::new(event))).await.is_err() {
                    return;
                }
            }
        });
        Self { newest }
    }

    /// Has `version` written.
    pub fn write(&self, version: T) {
        self.newest.send_replace(Some(version));
    }
}

/// Writes plans.
pub(crate) fn of_plans(
    folder: &DataFolder,
    system: &System,
    outcomes: mpsc::Sender<Outcome>,
) -> Writer<Plan> {
    let (path, system) = (folder.plan(), system.name.clone());
    Writer::start(outcomes, move |plan: &Plan| {
        let number = plan.number;
        Some(match plan_file::write(&path, &system, plan) {
            Ok(()) => Event::PlanSaved { number },
            Err(error) => {
                let reason = format!("write `{}`: {error}", path.display());
                Event::PlanSaveFailed { number, reason }
            }
        })
    })
}

/// Writes routes.
pub(crate) fn of_routes(
    folder: &DataFolder,
    outcomes: mpsc::Sender<Outcome>,
) -> Writer<RouteTable> {
    let path = folder.routes();
    Writer::start(outcomes, move |routes: &RouteTable| {
        let generation = routes.generation;
        Some(match snapshot::write(&path, routes) {
            Ok(()) => Event::RoutesWritten { generation },
            Err(error) => Event::RoutesFailed { generation, reason: error.to_string() },
        })
    })
}

/// Writes the system file in force beside the plan, for people and for hosts that join: nothing
/// reads it that has a plan, and nothing waits for it.
pub(crate) fn of_system_files(
    folder: &DataFolder,
    outcomes: mpsc::Sender<Outcome>,
) -> Writer<Arc<str>> {
    let path = folder.system_file();
    Writer::start(outcomes, move |text: &Arc<str>| {
        if let Err(error) = replace(&path, text.as_bytes(), Readers::Usual) {
            tracing::warn!(path = %path.display(), %error, "the system file was not kept");
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc as blocking;

    use super::*;

    #[tokio::test]
    async fn an_older_version_never_replaces_a_newer_one() {
        let (outcomes, mut inlet) = mpsc::channel(8);
        let (begun, begins) = blocking::channel();
        let (finish, finishes) = blocking::channel();
        let finishes = Mutex::new(finishes);
        let writer = Writer::start(outcomes, move |number: &u64| {
            begun.send(*number).unwrap();
            finishes.lock().unwrap().recv().unwrap();
            Some(Event::PlanSaved { number: *number })
        });
        writer.write(1);
        let begins = spawn_blocking(move || (begins.recv().unwrap(), begins)).await.unwrap();
        assert_eq!(begins.0, 1);
        writer.write(2);
        writer.write(3);
        assert!(begins.1.try_recv().is_err(), "two writes at a time");
        for number in [1, 3] {
            finish.send(()).unwrap();
            let Some(Outcome::Event(event)) = inlet.recv().await else { panic!("no outcome") };
            assert_eq!(*event, Event::PlanSaved { number });
        }
        assert_eq!(begins.1.try_recv(), Ok(3));
        // A version is written again when it is asked for again.
        writer.write(3);
        finish.send(()).unwrap();
        assert!(inlet.recv().await.is_some());
    }
}
