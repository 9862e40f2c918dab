//! The driver's thread.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::critical;
use crate::driver::Ask;

/// A driver that runs. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct DriverThread {
    asks: mpsc::Sender<Ask>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl DriverThread {
    /// Runs `drive` on a thread of its own, within a runtime of its own. A panic in it ends the
    /// process: a member that stops halfway must not look alive.
    pub(crate) fn spawn<F: Future<Output = ()>>(
        asks: mpsc::Sender<Ask>,
        drive: impl FnOnce() -> F + Send + 'static,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread =
            std::thread::Builder::new().name("coordinator".to_owned()).spawn(move || {
                critical::run_first(|| runtime.block_on(async { drive().await }));
            })?;
        Ok(Self { asks, thread: Mutex::new(Some(thread)) })
    }

    /// Asks the driver to end and waits until it has.
    pub(crate) async fn close(&self) {
        drop(self.asks.send(Ask::Close).await);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
    }
}

impl Drop for DriverThread {
    fn drop(&mut self) {
        // A full channel means that the driver still works; it ends when all senders are gone.
        drop(self.asks.try_send(Ask::Close));
    }
}
