//! Requests from inside a network that the drill itself is not in.

use std::io;
use std::thread;

use evenkeel_trust::tls::Trust;

use crate::client::Client;
use crate::load::EnterNetwork;

/// Runs `work` with a client, which shows `trust` where it is asked to, on a thread inside a
/// network, and waits for it.
pub(crate) fn run_in<T: Send>(
    enter: &EnterNetwork,
    trust: Option<Trust>,
    work: impl AsyncFnOnce(Client) -> T + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| -> io::Result<T> {
            enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(work(Client::new(Vec::new(), trust))))
        });
        worker.join().map_err(|_| io::Error::other("a request thread panicked"))?
    })
}
