//! The words of `evenkeel snapshot`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::kv::ConnectionArguments;

/// Arguments of `evenkeel snapshot`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArguments {
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write every key, as all stood at one revision, into a file
    Save {
        /// The file; it is replaced once the new one is complete
        file: PathBuf,
    },
    /// Set every key of a file, and leave all others as they are
    Restore {
        /// The file
        file: PathBuf,
        /// Restore into a store that holds keys; this also goes on after a
        /// restore that was cut off
        #[arg(long)]
        overwrite: bool,
        /// Restore what another system has saved
        #[arg(long)]
        force: bool,
    },
}
