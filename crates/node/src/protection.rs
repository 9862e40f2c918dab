//! Decides at the start whether this host's traffic is protected, and with what.

use std::path::PathBuf;

use evenkeel_model::name::HostName;
use evenkeel_model::place::Host as Place;
use evenkeel_model::system::System;
use evenkeel_trust::folder::{Folder, FolderError};
use evenkeel_trust::renewal::{Standing, Time, now};
use evenkeel_trust::tls::{Members, Trust};

/// Says why this host can't protect its traffic.
#[derive(Debug, thiserror::Error)]
pub enum ProtectionError {
    /// The host has not joined.
    #[error("host `{host}` has no certificate in `{folder}`, and its traffic crosses a network")]
    NotJoined {
        /// The host.
        host: HostName,
        /// Where its certificate would be.
        folder: PathBuf,
    },
    /// What it has can't be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl ProtectionError {
    /// Returns what can be done about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NotJoined { host, .. } => format!(
                "`evenkeel host token {host}` on a host of the system gives a token, and `evenkeel \
                 host join TOKEN` redeems it here; is this the first host of a new system, then \
                 start it once with --bootstrap"
            ),
            Self::Folder(error) => error.help(),
        }
    }
}

/// What a node is told about the protection of its traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// By the certificate that is there.
    Joined,
    /// The same; and if there is none, this is the first host of a new system.
    Bootstrap,
}

/// How this host's traffic will be protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// It stays plain.
    Plain,
    /// By what is in a folder, or will be.
    Folder(Folder, Wanted),
}

impl Protection {
    /// Decides before anything is changed.
    ///
    /// # Errors
    /// The host must have joined, and has not.
    pub fn check(
        wanted: Wanted,
        data: &std::path::Path,
        system: &System,
        host: &HostName,
    ) -> Result<Self, ProtectionError> {
        let crosses = system.hosts.values().any(|host| !host.address.is_loopback());
        if !crosses {
            return Ok(Self::Plain);
        }
        let folder = Folder::of(data);
        if wanted == Wanted::Joined && !folder.host_file().exists() {
            let folder = folder.path().to_path_buf();
            return Err(ProtectionError::NotJoined { host: host.clone(), folder });
        }
        Ok(Self::Folder(folder, wanted))
    }

    /// Returns what protects the traffic, `None` when it stays plain.
    ///
    /// # Errors
    /// What is there can't be used, or can't be made.
    pub fn open(&self, system: &System, place: &Place) -> Result<Option<Trust>, ProtectionError> {
        let Self::Folder(folder, wanted) = self else { return Ok(None) };
        if *wanted == Wanted::Bootstrap {
            folder.bootstrap(&system.name, &place.name, now())?;
        }
        Ok(folder.trust(&system.name, &place.name, members(system))?)
    }

    /// Returns the folder that protects the traffic.
    #[must_use]
    pub const fn folder(&self) -> Option<&Folder> {
        match self {
            Self::Plain => None,
            Self::Folder(folder, _) => Some(folder),
        }
    }
}

/// Returns the hosts that may speak with each other.
#[must_use]
pub fn members(system: &System) -> Members {
    system.hosts.values().map(|host| (host.name.clone(), host.address)).collect()
}

/// Says what an operator should know of the own certificate.
#[must_use]
pub fn warning(trust: &Trust, now: Time) -> Option<String> {
    let validity = trust.validity()?;
    let days = |seconds: u64| seconds / (24 * 60 * 60);
    match validity.standing(now) {
        Standing::Fresh | Standing::Due => None,
        Standing::Late => {
            let left = days(validity.end.as_secs().saturating_sub(now.as_secs()));
            Some(format!("this host's certificate ends in {left} days and could not be renewed"))
        }
        Standing::Over(left) => {
            let left = days(left.as_secs());
            Some(format!(
                "this host's certificate has ended, or a clock is wrong; other hosts take it for \
                 {left} days more"
            ))
        }
    }
}
