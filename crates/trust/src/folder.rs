//! The folder `trust` of a host's data.
//!
//! | file | holds |
//! |---|---|
//! | `host.pem` | the host's key, its certificate and the authority's; there once it has joined |
//! | `joining.pem` | the key of a host that is about to join |
//! | `authority.pem` | on the first host, until the store of the system holds it: the authority |
//! | `tokens.json` | on the first host, as long: the tokens it has given |
//!
//! Each is replaced whole, is on disk before anything depends on it, and is for its owner alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use evenkeel_files::{Readers, replace, sync_folder_of};
use evenkeel_model::name::{HostName, SystemName};
use rustls::pki_types::UnixTime;

use crate::Cause;
use crate::authority::{Authority, AuthorityError};
use crate::credentials::{Credentials, Key, KeyError};
use crate::identity::Subject;
use crate::renewal::HOST_LIFE;
use crate::tls::{Members, Scope, Trust, TrustError};

/// Reports what is wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The operating system refused a step.
    #[error("can't {step} `{path}`")]
    Io {
        /// What was tried.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{path}` can't be used")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The certificate is another host's.
    #[error("`{path}` is the certificate of {found}, not of host `{wanted}`")]
    OtherHost {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Subject,
        /// Whose it should be.
        wanted: HostName,
    },
    /// There is no key to be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The authority can't be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl FolderError {
    /// Returns what can be done about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Io { .. } => "run it as the user who owns the data folder".to_owned(),
            Self::Damaged { path, .. } => format!(
                "move `{}` away and join again, with a new token from `evenkeel host token` on \
                 another host",
                path.display()
            ),
            Self::OtherHost { .. } => {
                "each host has a data folder of its own: give the right one with --data".to_owned()
            }
            Self::Key(_) | Self::Authority(_) => {
                "see that the machine has a source of randomness (/dev/urandom)".to_owned()
            }
        }
    }
}

/// The folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// Returns the folder within a host's data folder. It may not exist yet.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self(data.join("trust"))
    }

    /// Returns the folder at `path`.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the file with the host's key and certificate.
    #[must_use]
    pub fn host_file(&self) -> PathBuf {
        self.0.join("host.pem")
    }

    /// Returns the file with the tokens that are not in the store yet.
    #[must_use]
    pub fn tokens_file(&self) -> PathBuf {
        self.0.join("tokens.json")
    }

    fn authority_file(&self) -> PathBuf {
        self.0.join("authority.pem")
    }

    fn joining_file(&self) -> PathBuf {
        self.0.join("joining.pem")
    }

    /// Reads the host's key and certificate, `None` before it has joined.
    ///
    /// # Errors
    /// They are there and can't be used.
    pub fn credentials(&self) -> Result<Option<Credentials>, FolderError> {
        let path = self.host_file();
        let Some(text) = read(&path)? else { return Ok(None) };
        let read = Credentials::from_pem(&text);
        read.map(Some).map_err(|error| FolderError::Damaged { path, source: error.into() })
    }

    /// Begins to trust as `host`, `None` before it has joined.
    ///
    /// # Errors
    /// What is there can't be used.
    pub fn trust(
        &self,
        system: &SystemName,
        host: &HostName,
        members: Members,
    ) -> Result<Option<Trust>, FolderError> {
        let Some(credentials) = self.credentials()? else { return Ok(None) };
        let path = self.host_file();
        let damaged = |source: Cause| FolderError::Damaged { path: path.clone(), source };
        let found = credentials.check(system).map_err(|error| damaged(error.into()))?;
        if found != Subject::Host(host.clone()) {
            return Err(FolderError::OtherHost { path, found, wanted: host.clone() });
        }
        let trust = Trust::new(system, credentials, members, Scope::Network);
        trust.map(Some).map_err(|error: TrustError| damaged(error.into()))
    }

    /// Keeps the host's key and certificate: from then on it has joined.
    ///
    /// # Errors
    /// The disk refuses; what was there stays.
    pub fn store_credentials(&self, credentials: &Credentials) -> Result<(), FolderError> {
        self.write(&self.host_file(), &credentials.to_pem())?;
        self.remove(&self.joining_file())
    }

    /// Returns the key with which this host is joining: the same one until it has joined, so that
    /// an answer that was lost can be asked for again.
    ///
    /// # Errors
    /// The disk refuses, or the system gives no randomness.
    pub fn joining_key(&self) -> Result<Key, FolderError> {
        let path = self.joining_file();
        if let Some(text) = read(&path)? {
            let key = Key::from_pem(&text);
            return key.map_err(|error| FolderError::Damaged { path, source: error.into() });
        }
        let key = Key::generate()?;
        self.write(&path, &key.to_pem())?;
        Ok(key)
    }

    /// Reads the authority, which only the first host of a system has, and only for a while.
    ///
    /// # Errors
    /// It is there and can't be used.
    pub fn authority(&self, system: &SystemName) -> Result<Option<Authority>, FolderError> {
        let path = self.authority_file();
        let Some(text) = read(&path)? else { return Ok(None) };
        let read = Authority::from_pem(&text, system);
        read.map(Some).map_err(|error| FolderError::Damaged { path, source: error.into() })
    }

    /// Keeps the authority until the store holds it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn store_authority(&self, authority: &Authority) -> Result<(), FolderError> {
        self.write(&self.authority_file(), &authority.to_pem())
    }

    /// Forgets authority and tokens: the store holds them.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove_authority(&self) -> Result<(), FolderError> {
        self.remove(&self.tokens_file())?;
        self.remove(&self.authority_file())
    }

    /// Makes this host the first of a new system: makes the authority and the host's certificate.
    /// A host that has joined stays as it is; one whose first start was interrupted goes on.
    ///
    /// # Errors
    /// The disk refuses, or the system gives no randomness.
    pub fn bootstrap(
        &self,
        system: &SystemName,
        host: &HostName,
        now: UnixTime,
    ) -> Result<(), FolderError> {
        if self.credentials()?.is_some() {
            return Ok(());
        }
        let authority = match self.authority(system)? {
            Some(authority) => authority,
            None => {
                let authority = Authority::create(system, now)?;
                self.store_authority(&authority)?;
                authority
            }
        };
        let credentials = authority.equip(&Subject::Host(host.clone()), now, HOST_LIFE)?;
        self.store_credentials(&credentials)
    }

    /// Replaces a file of this folder.
    ///
    /// # Errors
    /// The disk refuses; what was there stays.
    pub fn write(&self, path: &Path, text: &str) -> Result<(), FolderError> {
        let failed = |source| FolderError::Io { step: "write", path: path.to_path_buf(), source };
        self.make().map_err(failed)?;
        replace(path, text.as_bytes(), Readers::Owner).map_err(failed)
    }

    fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).recursive(true).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => sync_folder_of(&self.0),
        }
    }

    fn remove(&self, path: &Path) -> Result<(), FolderError> {
        let removed = match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed,
        };
        removed.and_then(|()| sync_folder_of(path)).map_err(|source| FolderError::Io {
            step: "remove",
            path: path.to_path_buf(),
            source,
        })
    }
}

fn read(path: &Path) -> Result<Option<String>, FolderError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FolderError::Io { step: "read", path: path.to_path_buf(), source }),
    }
}
