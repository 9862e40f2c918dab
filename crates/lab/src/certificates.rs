//! Certificates for the hosts of a lab, made as those of real hosts are: by an authority that the
//! first of them keeps until the system has a quorum.

use std::path::PathBuf;

use evenkeel_model::name::HostName;
use evenkeel_model::system::System;
use evenkeel_trust::authority::{Authority, AuthorityError};
use evenkeel_trust::folder::{Folder, FolderError};
use evenkeel_trust::identity::Subject;
use evenkeel_trust::renewal::{HOST_LIFE, now};
use evenkeel_trust::tls::{Scope, Trust, TrustError};

/// Who asks the hosts how they are.
const OPERATOR: &str = "lab";

/// Reports why hosts have no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The authority can't be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A host's folder can't be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What was made can't be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The operator's name is none.
    #[error(transparent)]
    Name(#[from] evenkeel_model::name::NameError),
}

/// Makes the certificates of all hosts in their data folders, and returns with what their API can
/// be asked. `None` when all are on loopback addresses, where nothing is protected.
pub(crate) fn make(
    system: &System,
    data: impl Fn(&HostName) -> PathBuf,
) -> Result<Option<Trust>, CertificatesError> {
    if system.hosts.values().all(|host| host.address.is_loopback()) {
        return Ok(None);
    }
    let authority = Authority::create(&system.name, now())?;
    for (index, host) in system.hosts.keys().enumerate() {
        let folder = Folder::of(&data(host));
        if index == 0 {
            folder.store_authority(&authority)?;
        }
        let credentials = authority.equip(&Subject::Host(host.clone()), now(), HOST_LIFE)?;
        folder.store_credentials(&credentials)?;
    }
    let operator = Subject::Operator(HostName::parse(OPERATOR)?);
    let members = system.hosts.values().map(|host| (host.name.clone(), host.address)).collect();
    let credentials = authority.equip(&operator, now(), HOST_LIFE)?;
    Ok(Some(Trust::new(&system.name, credentials, members, Scope::Network)?))
}
