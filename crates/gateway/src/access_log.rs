//! The access log: one JSON object a line, written by a thread of its own, so that a reader who
//! is slow or gone never holds up a request. Lines that find no room are counted and dropped.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// Lines that may wait for the writer.
const WAITING_MAX: usize = 1024;
/// Bytes written at once.
const BATCH_MAX: usize = 64 * 1024;
/// Longest wait for the last lines when the gateway ends.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Longest path that is logged, in bytes.
pub(crate) const PATH_MAX: usize = 1024;

/// One answered request.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    /// When the request ended, RFC 3339 in UTC.
    pub(crate) ts: String,
    pub(crate) kind: &'static str,
    pub(crate) gateway: &'a str,
    pub(crate) peer: String,
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    /// Bytes of the answer's body that were handed to the client's connection.
    pub(crate) bytes: u64,
    pub(crate) duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tier: Option<&'static str>,
    /// How often the request was sent to an endpoint.
    pub(crate) tries: u32,
    /// Why the answer is not an upstream's, or not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<&'static str>,
}

/// What the writing thread is given.
#[derive(Debug)]
enum Order {
    Write(Vec<u8>),
    /// Answered when everything before it has been written.
    Flush(oneshot::Sender<()>),
}

/// Hands lines to the writing thread.
#[derive(Debug)]
pub(crate) struct AccessLog {
    orders: SyncSender<Order>,
}

impl AccessLog {
    /// Starts the writer. It ends when the log is dropped, or at the first error of `output`.
    pub(crate) fn start(output: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let (orders, waiting) = sync_channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || write_lines(&waiting, output))?;
        Ok(Self { orders })
    }

    pub(crate) fn write(&self, line: &Line<'_>, metrics: &Metrics) {
        let text = serde_json::to_vec(line);
        let sent = text.is_ok_and(|mut text| {
            text.push(b'\n');
            self.orders.try_send(Order::Write(text)).is_ok()
        });
        if !sent {
            metrics.log_dropped.inc();
        }
    }

    /// Waits until all lines have been written, as long as somebody reads them.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.orders.try_send(Order::Flush(done)).is_ok() {
            // Late or lost, there is nothing more to do for them.
            drop(tokio::time::timeout(FLUSH_MAX, written).await);
        }
    }
}

fn write_lines(waiting: &Receiver<Order>, mut output: Box<dyn Write + Send>) {
    let mut batch = Vec::new();
    while let Ok(first) = waiting.recv() {
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Write(line) => batch.extend_from_slice(&line),
                Order::Flush(done) => flushed.push(done),
            }
            next = if batch.len() < BATCH_MAX { waiting.try_recv().ok() } else { None };
        }
        // Once nobody reads any more, lines are dropped and counted at the other end.
        if output.write_all(&batch).and_then(|()| output.flush()).is_err() {
            return;
        }
        batch.clear();
        for done in flushed {
            // Whoever asked may have stopped waiting.
            done.send(()).ok();
        }
    }
}
