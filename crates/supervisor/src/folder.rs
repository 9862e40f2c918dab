//! The files of one shim: where they are, and what stands in them.
//!
//! ```text
//! spec.json     what is to run; written by the node
//! control.sock  the shim listens here as long as it lives
//! child.json    the process that runs; written before it may do anything, gone after `quit`
//! exit.json     how the last process ended
//! log, log.1    its output; `log.1` is the older part
//! data/         its working directory, unless the spec names another
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use evenkeel_supervisor_core::status::ExitStatus;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::{ProcessSpec, SpecFile};

pub(crate) const SPEC: &str = "spec.json";
pub(crate) const SOCKET: &str = "control.sock";
pub(crate) const CHILD: &str = "child.json";
pub(crate) const EXIT: &str = "exit.json";
pub(crate) const LOG: &str = "log";
pub(crate) const LOG_OLDER: &str = "log.1";
pub(crate) const DATA: &str = "data";

/// Most bytes of each log file that are read for [`read_log_tail`].
const TAIL_MAX_BYTES: u64 = 1 << 20;

/// The format of `child.json`, version 1: enough to recognise the process and its group for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRecord {
    /// Version of the format: 1.
    pub format: u32,
    /// The process, which is also the leader of its process group.
    pub pid: u32,
    /// Its session, which is the shim's.
    pub session: u32,
    /// When it started, in clock ticks since the machine did.
    pub start_time: u64,
    /// Which life of the machine (or of its container) that was.
    pub boot: String,
}

/// The format of `exit.json`, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ExitRecord {
    format: u32,
    pid: u32,
    code: Option<i32>,
    signal: Option<i32>,
    /// Seconds since 1970, for people.
    ended_at: u64,
}

/// Makes a shim's folder, for its owner only.
pub(crate) fn create(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes `spec.json`, unless the same stands there: a full disk then does not keep a process
/// from being started again.
pub(crate) fn write_spec(folder: &Path, spec: &ProcessSpec) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(&SpecFile::new(spec)).map_err(io::Error::other)?;
    let path = folder.join(SPEC);
    if fs::read(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    replace(&path, &text)
}

/// Reads `spec.json`.
pub(crate) fn read_spec(folder: &Path) -> Result<ProcessSpec, String> {
    let text = fs::read(folder.join(SPEC)).map_err(|error| format!("spec.json: {error}"))?;
    let file: SpecFile =
        serde_json::from_slice(&text).map_err(|error| format!("spec.json: {error}"))?;
    file.into_spec()
}

/// Writes `child.json`. If that fails no older one is left, so that it can never name a process
/// that is not the shim's.
pub(crate) fn write_child(folder: &Path, record: &ChildRecord) -> io::Result<()> {
    let path = folder.join(CHILD);
    let text = serde_json::to_vec(record).map_err(io::Error::other)?;
    replace(&path, &text).inspect_err(|_| remove(&path))
}

/// Reads `child.json`, if it is there and whole.
pub(crate) fn read_child(folder: &Path) -> Option<ChildRecord> {
    read(&folder.join(CHILD)).filter(|record: &ChildRecord| record.format == 1)
}

/// Writes `exit.json`.
pub(crate) fn write_exit(folder: &Path, pid: u32, status: ExitStatus) -> io::Result<()> {
    let (code, signal) = match status {
        ExitStatus::Code(code) => (Some(code), None),
        ExitStatus::Signal(signal) => (None, Some(signal)),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let record = ExitRecord { format: 1, pid, code, signal, ended_at: now.as_secs() };
    let text = serde_json::to_vec(&record).map_err(io::Error::other)?;
    replace(&folder.join(EXIT), &text)
}

/// Reads `exit.json`: which process ended, and how.
pub(crate) fn read_exit(folder: &Path) -> Option<(u32, ExitStatus)> {
    let record: ExitRecord = read(&folder.join(EXIT))?;
    let status = match (record.code, record.signal) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => return None,
    };
    Some((record.pid, status))
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a file could not be removed");
    }
}

/// Returns the last `lines` lines of the log, from at most 1 MiB of each of its two files.
pub(crate) fn read_log_tail(folder: &Path, lines: usize) -> Vec<String> {
    let mut bytes = read_end(&folder.join(LOG_OLDER)).unwrap_or_default();
    bytes.extend(read_end(&folder.join(LOG)).unwrap_or_default());
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.into_iter().skip(from).map(ToOwned::to_owned).collect()
}

fn read_end(path: &PathBuf) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_MAX_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Replaces a file as a whole. Not synced: what it describes does not outlive the machine either.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let write = || {
        options.open(&new)?.write_all(bytes)?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| remove(&new))
}
