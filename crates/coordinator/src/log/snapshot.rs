//! Snapshot files: the replicated state at one entry of the log, so that the log before may go.
//!
//! ```text
//! magic 8 B | format u32 | crc32c u32 | owner u64 | length u64 | payload      little-endian
//! ```
//!
//! The checksum covers everything after it. A file appears under its name only when it is whole and
//! durable. The two newest are kept, and the log back to the older: the newest can be given up.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use evenkeel_consensus::log::Snapshot;

use super::error::OpenError;
use super::frame::{read_u32, read_u64};
use super::segment::sync_folder;

const MAGIC: &[u8; 8] = b"EvkeelSn";
const FORMAT: u32 = 1;
const HEAD: usize = 32;
const CHECKED_FROM: usize = 16;
const PREFIX: &str = "snapshot-";
/// Snapshots that are kept.
const KEPT: usize = 2;

/// Returns the file of the snapshot whose last entry is `index`.
pub(super) fn path(folder: &Path, index: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{index:020}"))
}

/// Returns the last entries of the snapshots in `folder`, in order.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut indices = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let index = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        indices.extend(index.and_then(|index| index.parse::<u64>().ok()));
    }
    indices.sort_unstable();
    Ok(indices)
}

/// Writes a snapshot durably under its name.
pub(super) fn save(folder: &Path, owner: u64, snapshot: &Snapshot) -> io::Result<()> {
    let unfinished = folder.join(format!("snapshot.{:020}.tmp", snapshot.index));
    let saved = write(&unfinished, owner, snapshot)
        .and_then(|()| fs::rename(&unfinished, path(folder, snapshot.index)))
        .and_then(|()| sync_folder(folder));
    if saved.is_err() {
        // A part of a snapshot is of no use to anyone.
        drop(fs::remove_file(&unfinished));
    }
    saved
}

fn write(file: &Path, owner: u64, snapshot: &Snapshot) -> io::Result<()> {
    let payload = snapshot.encode();
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&FORMAT.to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&owner.to_le_bytes());
    head.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[CHECKED_FROM..]), &payload);
    head[12..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(file)?;
    file.write_all(&head)?;
    file.write_all(&payload)?;
    file.sync_all()
}

/// Removes what a crash left of a snapshot that was being written.
pub(super) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let unfinished = |name: &str| name.starts_with("snapshot.") && name.ends_with(".tmp");
        if name.to_str().is_some_and(unfinished) {
            fs::remove_file(folder.join(name))?;
        }
    }
    Ok(())
}

/// Removes all but the newest snapshots. Returns the last entry of the older one that stays: the
/// log may go up to there. `None` while there is only one.
pub(super) fn prune(folder: &Path) -> io::Result<Option<u64>> {
    let indices = list(folder)?;
    let Some(first_kept) = indices.len().checked_sub(KEPT) else { return Ok(None) };
    for index in &indices[..first_kept] {
        fs::remove_file(path(folder, *index))?;
    }
    Ok(Some(indices[first_kept]))
}

/// Reads the snapshot whose last entry is `index`. `None` when the file is not what was written.
pub(super) fn load(folder: &Path, owner: u64, index: u64) -> Result<Option<Snapshot>, OpenError> {
    let file = path(folder, index);
    let bytes = fs::read(&file).map_err(|source| OpenError::Io {
        step: "read",
        path: file.clone(),
        source,
    })?;
    let Some(snapshot) = decode(&bytes).filter(|snapshot| snapshot.index == index) else {
        return Ok(None);
    };
    match (read_u32(&bytes, 8), read_u64(&bytes, 16)) {
        (Some(FORMAT), Some(found)) if found == owner => Ok(Some(snapshot)),
        (Some(format), _) if format != FORMAT => {
            Err(OpenError::Format { path: file, format, known: FORMAT })
        }
        _ => Err(OpenError::Foreign { path: file }),
    }
}

fn decode(bytes: &[u8]) -> Option<Snapshot> {
    let checksum = read_u32(bytes, 12)?;
    let length = read_u64(bytes, 24)?;
    let payload = bytes.get(HEAD..)?;
    let intact = bytes.starts_with(MAGIC)
        && payload.len() as u64 == length
        && crc32c::crc32c(bytes.get(CHECKED_FROM..)?) == checksum;
    intact.then(|| Snapshot::decode(payload.to_vec()).ok()).flatten()
}
