//! `evenkeel down`: stops this host's node and everything that it started.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use evenkeel_node::data::{DataFolder, OpenError};
use evenkeel_supervisor::protocol::ChildState;
use evenkeel_supervisor::shims::Shims;
use tokio::sync::mpsc;

use crate::commands::local;
use crate::failure::{Failure, Outcome};
use crate::show;

/// Longest wait for every replica's own grace.
const STOP_MAX: Duration = Duration::from_secs(120);

/// Time to end on SIGTERM for processes whose node is gone, and with it the grace of each.
const GRACE: Duration = Duration::from_secs(10);

/// Longest wait for a node that starts or ends.
const CHANGE_MAX: Duration = Duration::from_secs(10);

/// Pause between two looks at a node that starts or ends.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs the command. What a killed node left running is stopped as well.
///
/// # Errors
/// When there is no such data folder, or something does not stop in time.
pub(crate) fn run(data: &Path) -> Outcome {
    let mut until = Instant::now() + CHANGE_MAX;
    let mut asked = false;
    let mut refusal = None;
    loop {
        if !asked && let Some(stream) = local::connect(data)? {
            // The node may end before its answer is out: what counts is that it has ended.
            refusal = local::ask(stream, "POST", "/v1/down", STOP_MAX).err();
            asked = true;
            until = Instant::now() + CHANGE_MAX;
        }
        match DataFolder::reopen(data) {
            Ok(folder) => {
                let left = stop_what_is_left(&folder)?;
                show::result(&report(asked, left, data))?;
                return Ok(ExitCode::SUCCESS);
            }
            // A node that begins has no socket yet, one that ends has none any more.
            Err(OpenError::InUse(_)) if Instant::now() < until => std::thread::sleep(PAUSE),
            Err(OpenError::InUse(_)) => {
                return Err(refusal.map_or_else(|| still_there(data), Failure::from));
            }
            Err(error) => {
                let help = error.help();
                return Err(Failure::from(anyhow::Error::new(error)).with_help(help));
            }
        }
    }
}

fn still_there(data: &Path) -> Failure {
    let lock = data.join("lock");
    Failure::new(format!("the node on `{}` neither answers nor ends", data.display())).with_help(
        format!("`fuser {}` names its process; end it, then run this again", lock.display()),
    )
}

fn report(asked: bool, left: usize, data: &Path) -> String {
    match (asked, left) {
        (true, _) => "stopped: the node and everything it started".to_owned(),
        (false, 0) => format!("nothing runs on `{}`", data.display()),
        (false, _) => {
            let left = show::count(left, "process", "processes");
            format!("stopped: {left} that a former node had started")
        }
    }
}

/// Ends every process that the folder's last node started, and returns how many ran.
fn stop_what_is_left(folder: &DataFolder) -> Result<usize> {
    let program = std::env::current_exe().context("find this program")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    runtime.block_on(async {
        let (events, mut inlet) = mpsc::channel(64);
        tokio::spawn(async move { while inlet.recv().await.is_some() {} });
        let shims = Shims::open(folder.shims(), program, events);
        let shims = shims.await.context("find what a former node started")?;
        let running = |child: &ChildState| matches!(child, ChildState::Running { .. });
        let count = shims.list().iter().filter(|shim| running(&shim.child)).count();
        shims.stop_all(GRACE).await.context("stop what a former node started")?;
        Ok(count)
    })
}
