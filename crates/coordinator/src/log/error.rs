//! Why a log is not opened, and what to do then.

use std::io;
use std::path::PathBuf;

/// Reports why the log in a folder cannot be used. Nothing was changed in the folder.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused a step.
    #[error("cannot {step} `{path}`, nothing was changed", path = path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file was written by another version of Evenkeel.
    #[error(
        "`{path}` has format {format}, this version reads format {known}; nothing was changed",
        path = path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The format of this version.
        known: u32,
    },
    /// A file belongs to another system or to another member.
    #[error(
        "`{path}` belongs to another system or host, nothing was changed",
        path = path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A segment holds something that was never written.
    #[error(
        "the log is damaged in `{path}` at byte {offset}: {what}; nothing was changed",
        path = path.display()
    )]
    SegmentDamaged {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A segment in the middle of the log does not exist.
    #[error("the log's file `{path}` is missing, nothing was changed", path = path.display())]
    SegmentMissing {
        /// The file.
        path: PathBuf,
    },
    /// The newest snapshot is not what was written.
    #[error("the snapshot `{path}` is damaged, nothing was changed", path = path.display())]
    SnapshotDamaged {
        /// The file.
        path: PathBuf,
        /// Whether the snapshot before it and the log hold the same state.
        spare: bool,
    },
    /// The log goes on from a snapshot that does not exist.
    #[error(
        "the log in `{folder}` begins at entry {first}, and no snapshot holds what was before; nothing was changed",
        folder = folder.display()
    )]
    SnapshotMissing {
        /// The folder of log and snapshots.
        folder: PathBuf,
        /// First entry of the log.
        first: u64,
    },
}

impl OpenError {
    /// Returns what can be done about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Io { path, .. } => {
                format!("check the disk and the owner and permissions of `{}`", path.display())
            }
            Self::Format { .. } => {
                "start the version of Evenkeel that wrote it, or a newer one".to_owned()
            }
            Self::Foreign { path } => format!(
                "give this host a data folder of its own; `{}` is of use only to the host that wrote it",
                path.display()
            ),
            Self::SnapshotDamaged { path, spare: true } => format!(
                "move `{}` away and start again: the snapshot before it and the log hold the same state",
                path.display()
            ),
            Self::SnapshotDamaged { path, spare: false }
            | Self::SegmentDamaged { path, .. }
            | Self::SegmentMissing { path } => begin_empty(&path.with_file_name("")),
            Self::SnapshotMissing { folder, .. } => begin_empty(folder),
        }
    }
}

fn begin_empty(folder: &std::path::Path) -> String {
    format!(
        "while every other voter is up (`evenkeel status`), move the folder `{}` away and start \
         once with `--rejoin-empty`: this host begins with an empty log and is sent everything; \
         with another voter down, this host's copy may be needed, so bring that voter back first",
        folder.display()
    )
}
