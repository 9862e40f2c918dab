//! The injector's side of a pause: starts the holder, checks what it holds, lets it go.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::hold::{Reach, Reply, Request};
use crate::injected::Effect;
use crate::proc::{self, Thread};

/// Time over which held threads must use no processor.
const IDLE_CHECK: Duration = Duration::from_millis(30);

/// A running holder. Dropping it resumes what it holds.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    /// The holder ends when this closes, also by the end of this process.
    input: Option<ChildStdin>,
    reply: Reply,
}

/// Starts a holder, and returns when everything is stopped.
pub(crate) fn start(pids: &[i32], reach: Reach, hold: Duration) -> Result<Holder, String> {
    let hold_ns = u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX);
    let request = Request { pids: pids.to_vec(), reach, hold_ns };
    let failed = |error: std::io::Error| format!("the holder cannot be started: {error}");
    let mut child = Command::new("/proc/self/exe")
        .arg(crate::HOLD_COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Out of reach of the terminal's signals: the injector decides when a fault ends.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let (mut input, output) = (child.stdin.take(), child.stdout.take());
    let told = serde_json::to_vec(&request).map_err(std::io::Error::other).and_then(|mut line| {
        line.push(b'\n');
        input.as_mut().map_or(Ok(()), |input| input.write_all(&line))
    });
    let mut holder = Holder { child, input, reply: Reply::default() };
    told.map_err(failed)?;
    let mut line = String::new();
    if let Some(output) = output {
        BufReader::new(output).read_line(&mut line).map_err(failed)?;
    }
    holder.reply =
        serde_json::from_str(&line).map_err(|_| "the holder ended without an answer".to_owned())?;
    match holder.reply.refused.first() {
        Some(reason) => Err(reason.clone()),
        None if holder.reply.held.is_empty() => Err("every process has ended".to_owned()),
        None => Ok(holder),
    }
}

/// Sees that everything is stopped by the tracer and uses no processor time.
pub(crate) fn verify(reply: &Reply) -> Effect {
    let look = || -> Vec<Option<Thread>> {
        reply.held.iter().map(|(pid, thread)| proc::thread(*pid, *thread)).collect()
    };
    let ticks = |threads: &[Option<Thread>]| -> Vec<Option<u64>> {
        threads.iter().map(|thread| thread.map(|thread| thread.ticks)).collect()
    };
    let before = look();
    std::thread::sleep(IDLE_CHECK);
    let after = look();
    let stopped = after.iter().flatten().filter(|thread| thread.is_stopped()).count();
    let mut processes: Vec<i32> = reply.held.iter().map(|(pid, _)| *pid).collect();
    processes.dedup();
    let (threads, processes) = (reply.held.len(), processes.len());
    if stopped == threads && ticks(&before) == ticks(&after) {
        let evidence = format!(
            "threads stopped: {threads}, of processes: {processes}; no processor time in {} ms",
            IDLE_CHECK.as_millis()
        );
        Effect::Verified { evidence }
    } else {
        Effect::Unverified { reason: format!("threads stopped: only {stopped} of {threads}") }
    }
}

impl Holder {
    /// Returns what the holder said that it holds.
    pub(crate) const fn reply(&self) -> &Reply {
        &self.reply
    }

    /// Ends the holder and with it the pause.
    pub(crate) fn release(mut self) -> Result<(), String> {
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        drop(self.input.take());
        // Should it not see the end of its input, the kernel ends it.
        self.child.kill().map_err(|error| format!("the holder cannot be ended: {error}"))?;
        self.child.wait().map_err(|error| format!("the holder cannot be awaited: {error}"))?;
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Its alarm ends what cannot be ended here.
        drop(self.end());
    }
}
