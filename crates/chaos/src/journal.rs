//! The fault journal: one JSON object a line, durable before a fault is applied.
//!
//! ```text
//! {"begin":7,"kind":"isolate","target":"zone fra/a","boot":"5b0c…","until_ns":93120000000}
//! {"end":7}
//! ```
//! Times are of the kernel's monotonic clock, which begins anew with each boot.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evenkeel_model::fault::{FaultKind, Target};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

const FILE: &str = "journal.jsonl";
/// Name of the one older part that is kept.
const OLDER: &str = "journal.1.jsonl";
/// A new part is begun at this size, when no fault is in force.
const BYTES_MAX: usize = 1024 * 1024;

/// Reports that the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{step} `{}`", path.display())]
pub struct JournalError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A fault that an earlier injector began, that was not ended and whose time is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number in the journal.
    pub begin: u64,
    /// Kind of fault, in words.
    pub kind: String,
    /// What it was injected into, in words.
    pub target: String,
    /// The boot of the machine that it belongs to.
    pub boot: String,
    /// When it ends by itself: nanoseconds of the monotonic clock of that boot.
    pub until_ns: u64,
}

#[derive(Serialize, Deserialize)]
struct End {
    end: u64,
}

/// The open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    boot: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    next: u64,
}

impl Journal {
    /// Opens the journal of `folder` and returns the faults that should still be in force.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Vec<Record>), JournalError> {
        let path = folder.join(FILE);
        let failed = |step| {
            let path = path.clone();
            move |source| JournalError { step, path, source }
        };
        fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
        let mut options = OpenOptions::new();
        options.create(true).read(true).append(true);
        let mut file = options.open(&path).map_err(failed("open the fault journal"))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed("read the fault journal"))?;
        if !text.is_empty() && !text.ends_with('\n') {
            // The last writer died within a line: that fault was never applied.
            file.write_all(b"\n").map_err(failed("mend the fault journal"))?;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(failed("read the boot id for"))?
            .trim()
            .to_owned();
        let (next, mut unfinished) = replay(&text);
        let now = now_ns();
        unfinished.retain(|record| record.boot == boot && record.until_ns > now);
        if unfinished.is_empty() && text.len() > BYTES_MAX {
            fs::rename(&path, folder.join(OLDER)).map_err(failed("put away"))?;
            file = options.open(&path).map_err(failed("open the fault journal"))?;
        }
        Ok((Self { path, boot, state: Mutex::new(State { file, next }) }, unfinished))
    }

    /// Writes durably that a fault is about to be applied, and returns its number.
    pub(crate) fn begin(
        &self,
        kind: FaultKind,
        target: &Target,
        hold: Duration,
    ) -> Result<u64, JournalError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.next;
        let hold = u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX);
        let record = Record {
            begin: number,
            kind: kind.to_string(),
            target: target.to_string(),
            boot: self.boot.clone(),
            until_ns: now_ns().saturating_add(hold),
        };
        self.write(&mut state.file, &record)?;
        state.next += 1;
        Ok(number)
    }

    /// Writes that a fault is over.
    pub(crate) fn end(&self, number: u64) -> Result<(), JournalError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut state.file, &End { end: number })
    }

    fn write(&self, file: &mut File, line: &impl Serialize) -> Result<(), JournalError> {
        let written = serde_json::to_vec(line).map_err(io::Error::other).and_then(|mut line| {
            line.push(b'\n');
            file.write_all(&line)?;
            file.sync_data()
        });
        let step = "write the fault journal";
        written.map_err(|source| JournalError { step, path: self.path.clone(), source })
    }
}

/// Reads the next free number and the faults that were begun and not ended. Lines that are no
/// records belong to a torn write and say nothing.
fn replay(text: &str) -> (u64, Vec<Record>) {
    let (mut next, mut open) = (1, Vec::<Record>::new());
    for line in text.lines() {
        if let Ok(record) = serde_json::from_str::<Record>(line) {
            next = next.max(record.begin + 1);
            open.push(record);
        } else if let Ok(End { end }) = serde_json::from_str(line) {
            open.retain(|record| record.begin != end);
        }
    }
    (next, open)
}

fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, next: u64, open: &[u64]) {
        let (found, records) = replay(text);
        let numbers: Vec<u64> = records.iter().map(|record| record.begin).collect();
        assert_eq!((found, numbers.as_slice()), (next, open), "{text}");
    }

    #[test]
    fn finds_what_was_begun_and_not_ended() {
        let begin = |number: u64| {
            format!(
                "{{\"begin\":{number},\"kind\":\"kill\",\"target\":\"host a\",\"boot\":\"b\",\
                 \"until_ns\":1}}\n"
            )
        };
        check("", 1, &[]);
        check(&begin(4), 5, &[4]);
        check(&(begin(1) + &begin(2) + "{\"end\":1}\n"), 3, &[2]);
        check(&(begin(1) + "{\"begin\":2,\"ki\n" + &begin(2) + "{\"end\":9}\n"), 3, &[1, 2]);
    }
}
