//! What a host keeps on its disk.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use evenkeel_model::name::{HostName, SystemName};
use evenkeel_trust::folder::{Folder, FolderError};
use evenkeel_trust::request::PublicKey;
use rustls::pki_types::UnixTime;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("evenkeel-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn names() -> (SystemName, HostName) {
    (SystemName::parse("shop").unwrap(), HostName::parse("a1").unwrap())
}

fn files(folder: &Folder) -> Vec<(String, u32)> {
    let entries = fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_first_host_makes_all_it_needs_once() {
    let scratch = Scratch::new("bootstrap");
    let folder = Folder::of(&scratch.0);
    let (system, host) = names();
    assert!(folder.trust(&system, &host, BTreeMap::new()).unwrap().is_none());
    folder.bootstrap(&system, &host, UnixTime::now()).unwrap();
    let mode = fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    let owners = |names: &[&str]| -> Vec<(String, u32)> {
        names.iter().map(|name| ((*name).to_owned(), 0o600)).collect()
    };
    assert_eq!(files(&folder), owners(&["authority.pem", "host.pem"]));
    let before = fs::read(folder.host_file()).unwrap();
    folder.bootstrap(&system, &host, UnixTime::now()).unwrap();
    assert_eq!(fs::read(folder.host_file()).unwrap(), before);

    // Interrupted between the two: the same authority is used.
    let authority = folder.authority(&system).unwrap().unwrap().fingerprint();
    fs::remove_file(folder.host_file()).unwrap();
    folder.bootstrap(&system, &host, UnixTime::now()).unwrap();
    let trust = folder.trust(&system, &host, BTreeMap::new()).unwrap().unwrap();
    assert_eq!(folder.authority(&system).unwrap().unwrap().fingerprint(), trust.fingerprint());
    assert_eq!(folder.authority(&system).unwrap().unwrap().fingerprint(), authority);

    folder.remove_authority().unwrap();
    folder.remove_authority().unwrap();
    assert_eq!(files(&folder), owners(&["host.pem"]));
}

#[test]
fn a_certificate_of_somebody_else_is_refused() {
    let scratch = Scratch::new("somebody");
    let folder = Folder::of(&scratch.0);
    let (system, host) = names();
    folder.bootstrap(&system, &host, UnixTime::now()).unwrap();
    let other = HostName::parse("b1").unwrap();
    let refused = folder.trust(&system, &other, BTreeMap::new()).unwrap_err();
    assert!(matches!(refused, FolderError::OtherHost { .. }), "{refused:?}");
    let other = SystemName::parse("blog").unwrap();
    let refused = folder.trust(&other, &host, BTreeMap::new()).unwrap_err();
    assert!(matches!(refused, FolderError::Damaged { .. }), "{refused:?}");
    fs::write(folder.host_file(), "-----BEGIN").unwrap();
    let refused = folder.trust(&system, &host, BTreeMap::new()).unwrap_err();
    assert!(matches!(refused, FolderError::Damaged { .. }), "{refused:?}");
    assert!(refused.help().contains("evenkeel host token"));
}

#[test]
fn a_host_joins_with_one_key_however_often_it_tries() {
    let scratch = Scratch::new("joining");
    let folder = Folder::of(&scratch.0);
    let first = PublicKey::of(&folder.joining_key().unwrap());
    let again = PublicKey::of(&folder.joining_key().unwrap());
    assert_eq!(first, again);
    assert_eq!(files(&folder), [("joining.pem".to_owned(), 0o600)]);
}
