//! The data folder of a host: who may use it, and where what stands in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use evenkeel_model::name::{HostName, SystemName};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// Version of the folder's layout.
const FORMAT: u32 = 1;

/// Says why a data folder can't be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another node holds the folder's lock.
    #[error("another node runs on data folder `{0}`; stop it first: `evenkeel down --data {0}`")]
    InUse(PathBuf),
    /// The folder was made for another system.
    #[error(
        "data folder `{folder}` belongs to system `{found}`, not `{wanted}`; \
         give another folder with --data"
    )]
    OtherSystem {
        /// The refused folder.
        folder: PathBuf,
        /// The system it belongs to.
        found: String,
        /// The system of this node's file.
        wanted: SystemName,
    },
    /// The folder was made for another host.
    #[error(
        "data folder `{folder}` belongs to host `{found}`, not `{wanted}`; \
         each host has a folder of its own"
    )]
    OtherHost {
        /// The refused folder.
        folder: PathBuf,
        /// The host it belongs to.
        found: String,
        /// The host that this node is started as.
        wanted: HostName,
    },
    /// The folder's layout is newer than this program.
    #[error(
        "data folder `{folder}` has format {found}, this program knows format {FORMAT}; upgrade it"
    )]
    Format {
        /// The refused folder.
        folder: PathBuf,
        /// Its format.
        found: u32,
    },
    /// `identity.json` is not what a node writes.
    #[error("`{0}` is damaged; restore it, or remove the folder and let the host start anew")]
    Damaged(PathBuf),
    /// The operating system refused a step.
    #[error("can't {step} `{path}`")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

/// Contents of `identity.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    format: u32,
    system: String,
    host: String,
}

/// A data folder that this process alone may use.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataFolder {
    /// Takes the folder at `path` for `host` of `system`, making it when it does not exist.
    ///
    /// # Errors
    /// When it is in use, belongs to somebody else, or can't be written.
    pub fn open(path: &Path, system: &SystemName, host: &HostName) -> Result<Self, OpenError> {
        let failed = |step, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { step, path, source }
        };
        fs::create_dir_all(path).map_err(failed("make folder", path))?;
        let path = fs::canonicalize(path).map_err(failed("find folder", path))?;
        let lock_path = path.join("lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| OpenError::InUse(path.clone()))?;
        let folder = Self { path, _lock: lock };
        folder.check_identity(system, host)?;
        Ok(folder)
    }

    fn check_identity(&self, system: &SystemName, host: &HostName) -> Result<(), OpenError> {
        let path = self.path.join("identity.json");
        let failed = |step| {
            let path = path.clone();
            move |source| OpenError::Io { step, path, source }
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity =
                    Identity { format: FORMAT, system: system.to_string(), host: host.to_string() };
                let text = serde_json::to_string(&identity)
                    .map_err(|_| OpenError::Damaged(path.clone()))?;
                return write_durably(&path, text.as_bytes()).map_err(failed("write"));
            }
            Err(error) => return Err(failed("read")(error)),
        };
        let found: Identity =
            serde_json::from_str(&text).map_err(|_| OpenError::Damaged(path.clone()))?;
        let folder = self.path.clone();
        if found.format != FORMAT {
            return Err(OpenError::Format { folder, found: found.format });
        }
        if found.system != system.as_str() {
            let wanted = system.clone();
            return Err(OpenError::OtherSystem { folder, found: found.system, wanted });
        }
        if found.host != host.as_str() {
            let wanted = host.clone();
            return Err(OpenError::OtherHost { folder, found: found.host, wanted });
        }
        Ok(())
    }

    /// Returns the folder itself, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where the coordinator keeps its log and snapshots.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Returns where the shims live.
    #[must_use]
    pub fn shims(&self) -> PathBuf {
        self.path.join("shims")
    }

    /// Returns the gateway's snapshot.
    #[must_use]
    pub fn routes(&self) -> PathBuf {
        self.path.join("routes.json")
    }

    /// Returns the last plan that this host accepted.
    #[must_use]
    pub fn plan(&self) -> PathBuf {
        self.path.join("plan.json")
    }

    /// Returns the system file in force.
    #[must_use]
    pub fn system_file(&self) -> PathBuf {
        self.path.join("system.toml")
    }

    /// Returns the local control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        control_socket(&self.path)
    }
}

/// Returns the control socket of the node on data folder `data`.
#[must_use]
pub fn control_socket(data: &Path) -> PathBuf {
    data.join("node.sock")
}

/// Replaces the file at `path` by `bytes`, so that a crash leaves the old or the new contents.
///
/// # Errors
/// When writing, syncing or renaming fails; the old contents are then still in place.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;

    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("evenkeel-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn names(system: &str, host: &str) -> (SystemName, HostName) {
        (SystemName::parse(system).unwrap(), HostName::parse(host).unwrap())
    }

    #[test]
    fn a_folder_serves_one_node_of_one_host_of_one_system() {
        let scratch = Scratch::new("data");
        let (system, host) = names("shop", "a1");
        let open = DataFolder::open(&scratch.0, &system, &host).unwrap();
        let again = DataFolder::open(&scratch.0, &system, &host);
        assert!(matches!(again, Err(OpenError::InUse(_))), "{again:?}");
        drop(open);
        let (other_system, other_host) = names("blog", "a2");
        let refused = DataFolder::open(&scratch.0, &other_system, &host);
        assert!(matches!(refused, Err(OpenError::OtherSystem { .. })), "{refused:?}");
        let refused = DataFolder::open(&scratch.0, &system, &other_host);
        assert!(matches!(refused, Err(OpenError::OtherHost { .. })), "{refused:?}");
        DataFolder::open(&scratch.0, &system, &host).unwrap();
    }

    #[test]
    fn a_damaged_identity_is_refused() {
        let scratch = Scratch::new("identity");
        let (system, host) = names("shop", "a1");
        fs::write(scratch.0.join("identity.json"), "{").unwrap();
        let refused = DataFolder::open(&scratch.0, &system, &host);
        assert!(matches!(refused, Err(OpenError::Damaged(_))), "{refused:?}");
    }
}
