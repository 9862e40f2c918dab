//! Requests from inside a network that the drill itself is not in.

use std::io;
use std::thread;

use crate::client::Client;
use crate::load::EnterNetwork;

/// Runs `work` with a client on a thread inside a network, and waits for it.
pub(crate) fn run_in<T: Send>(
    enter: &EnterNetwork,
    work: impl AsyncFnOnce(Client) -> T + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| -> io::Result<T> {
            enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(work(Client::new(Vec::new()))))
        });
        worker.join().map_err(|_| io::Error::other("a request thread panicked"))?
    })
}
