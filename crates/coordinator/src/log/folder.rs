//! What a log's folder holds, told without reading the log: whether a member may begin in it.
//!
//! A member that has voted or acknowledged must not begin again as if it never had. Whoever starts
//! it remembers elsewhere that there was a log, compares that with [`contents`], and marks a folder
//! in which the member begins anew on purpose.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{REJOINING, segment, snapshot};

/// What the mark says to whoever finds it.
const MARK: &[u8] = b"this voter lost its log and was started with --rejoin-empty: it votes again \
    once it was sent everything\n";

/// What the folder of a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// No log; the folder may be missing.
    Nothing,
    /// No log, and the mark of a member that begins anew.
    Mark,
    /// A log or what is left of one.
    Log,
}

/// Looks into the folder of a log. Changes nothing.
///
/// # Errors
/// The folder can't be listed.
pub fn contents(folder: &Path) -> io::Result<Contents> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Nothing),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    if !segment::list(folder)?.is_empty() || !snapshot::list(folder)?.is_empty() {
        return Ok(Contents::Log);
    }
    Ok(if folder.join(REJOINING).exists() { Contents::Mark } else { Contents::Nothing })
}

/// Marks a folder, durably, before a log is begun in it: its member lost an earlier one.
///
/// # Errors
/// The mark can't be written.
pub fn mark_rejoining(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut mark = File::create(folder.join(REJOINING))?;
    mark.write_all(MARK)?;
    mark.sync_all()?;
    segment::sync_folder(folder)?;
    match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => segment::sync_folder(Path::new(".")),
        Some(parent) => segment::sync_folder(parent),
        None => Ok(()),
    }
}

/// Sets a log aside for good and marks an empty folder in its place, as [`mark_rejoining`] does.
/// Returns where the log is kept. After a crash in between, [`finish_setting_aside`] ends it.
///
/// # Errors
/// What the disk refused.
pub fn set_aside(folder: &Path) -> io::Result<PathBuf> {
    let next = next(folder);
    mark_rejoining(&next)?;
    let beside = |number: u32| folder.with_extension(format!("superseded-{number}"));
    let mut number = 1;
    while beside(number).exists() {
        number += 1;
    }
    fs::rename(folder, beside(number))?;
    finish_setting_aside(folder)?;
    Ok(beside(number))
}

/// Ends what [`set_aside`] began before a crash; otherwise does nothing.
///
/// # Errors
/// What the disk refused.
pub fn finish_setting_aside(folder: &Path) -> io::Result<()> {
    let next = next(folder);
    if !folder.exists() && contents(&next)? == Contents::Mark {
        fs::rename(next, folder)?;
        if let Some(parent) = folder.parent() {
            segment::sync_folder(parent)?;
        }
    }
    Ok(())
}

/// The folder that takes the place of one that is set aside.
fn next(folder: &Path) -> PathBuf {
    folder.with_extension("next")
}
