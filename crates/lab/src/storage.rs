//! Where a lab keeps its hosts' folders, and how these go away.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};

use crate::world;

/// Begin of the name of every folder that a lab makes for itself.
const PREFIX: &str = "evenkeel-lab-";
/// Locked inside a temporary folder while its lab exists.
const LOCK: &str = "lock";

/// Counts the labs of this process, which share one memory file system.
static LABS: AtomicU32 = AtomicU32::new(0);

/// The folder that holds one folder a host.
#[derive(Debug)]
pub(crate) enum Root {
    /// The user's own.
    Kept(PathBuf),
    /// In the memory of the world: goes with the lab, or else with the world.
    Memory(PathBuf),
    /// On disk: goes with the lab, or else with the next lab that finds it unlocked.
    Temporary { folder: PathBuf, _lock: Flock<File> },
}

impl Root {
    /// Names a folder in the memory of the world.
    pub(crate) fn in_memory() -> Self {
        Self::Memory(fresh(Path::new(world::MEMORY)))
    }

    /// Makes a folder on disk, and removes those whose labs were killed.
    pub(crate) fn temporary(parent: &Path) -> io::Result<Self> {
        for entry in fs::read_dir(parent)?.filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                remove_stale(&entry.path());
            }
        }
        let folder = fresh(parent);
        fs::create_dir(&folder)?;
        let lock = File::create(folder.join(LOCK))?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        Ok(Self::Temporary { folder, _lock: lock })
    }

    /// Returns the folder.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Kept(folder) | Self::Memory(folder) | Self::Temporary { folder, .. } => folder,
        }
    }

    /// Removes what the lab made for itself.
    pub(crate) fn remove(&self) {
        let removed = match self {
            Self::Kept(_) => Ok(()),
            Self::Memory(folder) => unmount_all(folder).and_then(|()| fs::remove_dir_all(folder)),
            Self::Temporary { folder, .. } => fs::remove_dir_all(folder),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, folder = %self.folder().display(), "lab data not removed");
        }
    }
}

fn fresh(parent: &Path) -> PathBuf {
    let serial = LABS.fetch_add(1, Ordering::Relaxed);
    parent.join(format!("{PREFIX}{}-{serial}", std::process::id()))
}

/// Removes a folder whose lab no longer holds the lock. One without a lock file is being made.
fn remove_stale(folder: &Path) {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return };
    if Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok() {
        // Another user's folder stays, and disturbs nobody.
        drop(fs::remove_dir_all(folder));
    }
}

/// Unmounts the file system of every host.
fn unmount_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        umount2(&entry?.path(), MntFlags::MNT_DETACH)?;
    }
    Ok(())
}
