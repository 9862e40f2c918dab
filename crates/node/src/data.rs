//! The data folder of a host: who may use it, and where what stands in it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use evenkeel_coordinator::log::{self, Contents};
use evenkeel_files::{Readers, replace};
use evenkeel_model::name::{HostName, SystemName};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// Version of the folder's layout.
const FORMAT: u32 = 1;

/// Says why a data folder can't be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another node holds the folder's lock.
    #[error("another node runs on data folder `{0}`")]
    InUse(PathBuf),
    /// The folder was made for another system.
    #[error("data folder `{folder}` belongs to system `{found}`, not `{wanted}`")]
    OtherSystem {
        /// The refused folder.
        folder: PathBuf,
        /// The system it belongs to.
        found: String,
        /// The system of this node's file.
        wanted: SystemName,
    },
    /// The folder was made for another host.
    #[error("data folder `{folder}` belongs to host `{found}`, not `{wanted}`")]
    OtherHost {
        /// The refused folder.
        folder: PathBuf,
        /// The host it belongs to.
        found: String,
        /// The host that this node is started as.
        wanted: HostName,
    },
    /// The folder's layout is newer than this program.
    #[error("data folder `{folder}` has format {found}, this program knows format {FORMAT}")]
    Format {
        /// The refused folder.
        folder: PathBuf,
        /// Its format.
        found: u32,
    },
    /// `identity.json` is not what a node writes.
    #[error("`{0}` is damaged")]
    Damaged(PathBuf),
    /// The folder has held the coordinator's log, and holds none.
    #[error("the coordinator's log of this host is missing: `{0}` holds none, nothing was changed")]
    LogMissing(PathBuf),
    /// The coordinator's log was to begin anew, but is there.
    #[error(
        "`--rejoin-empty` begins an empty log, but `{0}` holds this host's log; nothing was changed"
    )]
    LogPresent(PathBuf),
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

impl OpenError {
    /// Returns what can be done about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::InUse(folder) => {
                format!("stop it first: `evenkeel down --data {}`", folder.display())
            }
            Self::OtherSystem { .. } | Self::OtherHost { .. } => {
                "each host of each system has a folder of its own: give another with --data"
                    .to_owned()
            }
            Self::Format { .. } => {
                "use the version of Evenkeel that wrote it, or a newer one".to_owned()
            }
            Self::Damaged(_) => {
                "restore it; or, while every other voter is up (`evenkeel status`), move the \
                 folder away and start once with `--rejoin-empty`: this host begins with an empty \
                 log and is sent everything"
                    .to_owned()
            }
            Self::LogMissing(log) => format!(
                "put `{}` back; or, if it is lost, and while every other voter is up (`evenkeel \
                 status`), start once with `--rejoin-empty`: this host begins with an empty log \
                 and is sent everything; with another voter down, bring that voter back first",
                log.display()
            ),
            Self::LogPresent(log) => format!(
                "start without `--rejoin-empty`; if the log is then refused as damaged, move `{}` \
                 away and start with it",
                log.display()
            ),
            Self::Io { .. } => "give a folder that you may write with --data".to_owned(),
        }
    }
}

/// Whose a data folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The system.
    pub system: SystemName,
    /// The host.
    pub host: HostName,
}

/// Contents of `identity.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    format: u32,
    system: String,
    host: String,
    /// Whether the coordinator's log was begun here: it must be there from then on.
    #[serde(default)]
    log: bool,
}

/// What a voter's data folder is to hold of the coordinator's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogWanted {
    /// The log, if one was ever begun.
    Kept,
    /// None: the log was lost, and is begun anew.
    Lost,
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
        fs::create_dir_all(path).map_err(|source| OpenError::Io {
            step: "make folder",
            path: path.to_path_buf(),
            source,
        })?;
        let folder = Self::lock(path)?;
        folder.check_identity(system, host)?;
        Ok(folder)
    }

    /// Takes a folder that a node has used before, whoever's it is: to stop what that node left
    /// running.
    ///
    /// # Errors
    /// When it is in use, or was never a node's.
    pub fn reopen(path: &Path) -> Result<Self, OpenError> {
        let identity = path.join("identity.json");
        match fs::symlink_metadata(&identity) {
            Ok(_) => Self::lock(path),
            Err(source) => Err(OpenError::Io { step: "read", path: identity, source }),
        }
    }

    /// Returns whose it is.
    ///
    /// # Errors
    /// When `identity.json` can't be read.
    pub fn owner(&self) -> Result<Owner, OpenError> {
        let found = self.read_identity()?;
        match (SystemName::parse(&found.system), HostName::parse(&found.host)) {
            (Ok(system), Ok(host)) => Ok(Owner { system, host }),
            _ => Err(OpenError::Damaged(self.identity())),
        }
    }

    fn lock(path: &Path) -> Result<Self, OpenError> {
        let failed = |step, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { step, path, source }
        };
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
        Ok(Self { path, _lock: lock })
    }

    fn check_identity(&self, system: &SystemName, host: &HostName) -> Result<(), OpenError> {
        let found = match self.read_identity() {
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let (system, host) = (system.to_string(), host.to_string());
                let new = Identity { format: FORMAT, system, host, log: false };
                return self.write_identity(&new);
            }
            found => found?,
        };
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

    fn identity(&self) -> PathBuf {
        identity(&self.path)
    }

    fn read_identity(&self) -> Result<Identity, OpenError> {
        let path = self.identity();
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|_| OpenError::Damaged(path)),
            Err(source) => Err(OpenError::Io { step: "read", path, source }),
        }
    }

    fn write_identity(&self, identity: &Identity) -> Result<(), OpenError> {
        let path = self.identity();
        serde_json::to_string(identity)
            .map_err(io::Error::other)
            .and_then(|text| replace(&path, text.as_bytes(), Readers::Usual))
            .map_err(|source| OpenError::Io { step: "write", path, source })
    }

    /// Checks that the coordinator's log is there if it was ever begun, or, when it was lost, that
    /// it is not, and marks its place then.
    ///
    /// # Errors
    /// When it is not as wanted; nothing was changed then.
    pub fn check_log(&self, wanted: LogWanted) -> Result<(), OpenError> {
        let path = self.log();
        let failed = |step| {
            let path = path.clone();
            move |source| OpenError::Io { step, path, source }
        };
        log::finish_setting_aside(&path).map_err(failed("put in place"))?;
        let contents = log::contents(&path).map_err(failed("list"))?;
        match (wanted, contents) {
            (LogWanted::Kept, Contents::Nothing) if self.read_identity()?.log => {
                Err(OpenError::LogMissing(path))
            }
            (LogWanted::Kept, _) => Ok(()),
            (LogWanted::Lost, Contents::Log) => Err(OpenError::LogPresent(path)),
            (LogWanted::Lost, Contents::Nothing | Contents::Mark) => {
                log::mark_rejoining(&path).map_err(failed("mark"))
            }
        }
    }

    /// Returns whether [`Self::note_log`] is still to be called.
    ///
    /// # Errors
    /// When `identity.json` can't be read.
    pub fn lacks_log(&self) -> Result<bool, OpenError> {
        Ok(!self.read_identity()?.log)
    }

    /// Remembers durably that the coordinator's log is there: without it, no later node starts.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn note_log(&self) -> Result<(), OpenError> {
        self.write_identity(&Identity { log: true, ..self.read_identity()? })
    }

    /// Sets the coordinator's log aside, because the system goes on from another host's: this host
    /// begins with an empty one. Returns where it is kept; nobody may be writing to it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn set_log_aside(&self) -> Result<PathBuf, OpenError> {
        let path = self.log();
        log::set_aside(&path).map_err(|source| OpenError::Io { step: "set aside", path, source })
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
        plan(&self.path)
    }

    /// Returns the system file in force.
    #[must_use]
    pub fn system_file(&self) -> PathBuf {
        system_file(&self.path)
    }

    /// Returns the local control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        control_socket(&self.path)
    }
}

/// Returns the host that data folder `data` belongs to, if a node has used it.
#[must_use]
pub fn owner(data: &Path) -> Option<String> {
    let text = fs::read_to_string(identity(data)).ok()?;
    let found: Identity = serde_json::from_str(&text).ok()?;
    Some(found.host)
}

fn identity(data: &Path) -> PathBuf {
    data.join("identity.json")
}

/// Returns the last plan that the host of data folder `data` accepted.
#[must_use]
pub fn plan(data: &Path) -> PathBuf {
    data.join("plan.json")
}

/// Returns the system file in force on the host of data folder `data`.
#[must_use]
pub fn system_file(data: &Path) -> PathBuf {
    data.join("system.toml")
}

/// Returns the control socket of the node on data folder `data`.
#[must_use]
pub fn control_socket(data: &Path) -> PathBuf {
    data.join("node.sock")
}

/// Gives `act` a way to `socket` that is short enough for a socket's address, which holds 107
/// bytes only.
///
/// # Errors
/// When the folder of `socket` can't be opened, or `act` fails.
pub fn at_short_path<T>(socket: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return act(socket);
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let opened = File::open(folder)?;
    act(&Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

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
    fn a_folder_is_taken_again_whoever_used_it() {
        let scratch = Scratch::new("again");
        let refused = DataFolder::reopen(&scratch.0);
        assert!(matches!(refused, Err(OpenError::Io { .. })), "{refused:?}");
        let (system, host) = names("shop", "a1");
        let open = DataFolder::open(&scratch.0, &system, &host).unwrap();
        let refused = DataFolder::reopen(&scratch.0);
        assert!(matches!(refused, Err(OpenError::InUse(_))), "{refused:?}");
        drop(open);
        DataFolder::reopen(&scratch.0).unwrap();
    }

    #[test]
    fn a_socket_may_lie_deep() {
        let scratch = Scratch::new("deep");
        let folder = scratch.0.join("a".repeat(80)).join("b".repeat(80));
        fs::create_dir_all(&folder).unwrap();
        let socket = control_socket(&folder);
        let _listener = at_short_path(&socket, |path| UnixListener::bind(path)).unwrap();
        at_short_path(&socket, |path| UnixStream::connect(path)).unwrap();
    }

    fn listing(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_log_that_was_begun_must_be_there() {
        let scratch = Scratch::new("log");
        let (system, host) = names("shop", "a1");
        let folder = DataFolder::open(&scratch.0, &system, &host).unwrap();
        // A first start: there is none yet, and whatever is begun is only noted once it is there.
        folder.check_log(LogWanted::Kept).unwrap();
        assert!(folder.lacks_log().unwrap());
        fs::create_dir(folder.log()).unwrap();
        let segment = folder.log().join("segment-000000000001");
        fs::write(&segment, "").unwrap();
        folder.check_log(LogWanted::Kept).unwrap();
        folder.note_log().unwrap();
        assert!(!folder.lacks_log().unwrap());
        drop(folder);

        let folder = DataFolder::open(&scratch.0, &system, &host).unwrap();
        folder.check_log(LogWanted::Kept).unwrap();
        let refused = folder.check_log(LogWanted::Lost);
        assert!(matches!(refused, Err(OpenError::LogPresent(_))), "{refused:?}");
        assert_eq!(listing(&folder.log()), ["segment-000000000001"]);
        fs::remove_file(&segment).unwrap();
        for _ in 0..2 {
            let refused = folder.check_log(LogWanted::Kept);
            assert!(matches!(refused, Err(OpenError::LogMissing(_))), "{refused:?}");
            drop(fs::remove_dir(folder.log()));
        }
        assert_eq!(listing(&scratch.0), ["identity.json", "lock"]);

        folder.check_log(LogWanted::Lost).unwrap();
        assert_eq!(listing(&folder.log()), ["rejoining"]);
        // A crash before the log was begun: the mark is there, so no flag is needed again.
        folder.check_log(LogWanted::Kept).unwrap();
    }

    #[test]
    fn a_log_that_is_set_aside_is_kept() {
        let scratch = Scratch::new("aside");
        let (system, host) = names("shop", "a1");
        let folder = DataFolder::open(&scratch.0, &system, &host).unwrap();
        let segment = folder.log().join("segment-000000000001");
        for kept in ["log.superseded-1", "log.superseded-2"] {
            fs::create_dir_all(folder.log()).unwrap();
            fs::write(&segment, kept).unwrap();
            folder.note_log().unwrap();
            assert_eq!(folder.set_log_aside().unwrap(), folder.path().join(kept));
            assert_eq!(listing(&folder.log()), ["rejoining"]);
            folder.check_log(LogWanted::Kept).unwrap();
        }
        // A crash in the middle: the log is away and the empty folder not yet in its place.
        fs::rename(folder.log(), scratch.0.join("log.next")).unwrap();
        folder.check_log(LogWanted::Kept).unwrap();
        assert_eq!(listing(&folder.log()), ["rejoining"]);
        let first = fs::read_to_string(scratch.0.join("log.superseded-1/segment-000000000001"));
        assert_eq!(first.unwrap(), "log.superseded-1");
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
