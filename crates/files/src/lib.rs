//! Files that are replaced as a whole: after a crash the old or the new contents are there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Whoever the process's umask allows.
    Usual,
    /// Its owner, from the first byte on.
    Owner,
}

/// Replaces the file at `path` by `bytes`: durable when this returns. Of two at once on one path
/// one may fail.
///
/// # Errors
/// When writing, syncing or renaming fails; the old contents are then still in place.
pub fn replace(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // One that a crash has left may be open to others.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mode = match readers {
        Readers::Usual => 0o666,
        Readers::Owner => 0o600,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

/// Makes durable which files the folder of `path` holds.
///
/// # Errors
/// When the folder can't be opened or synced.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

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

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let scratch = Scratch::new("replaced");
        let path = scratch.0.join("state.json");
        for text in ["old, and longer", "new"] {
            replace(&path, text.as_bytes(), Readers::Usual).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_is_for_its_owner_whatever_a_crash_has_left() {
        let scratch = Scratch::new("secret");
        let path = scratch.0.join("key.pem");
        let left = scratch.0.join("key.new");
        fs::write(&left, "half").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"secret", Readers::Owner).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn what_was_there_stays_when_the_disk_refuses() {
        let scratch = Scratch::new("refused");
        let path = scratch.0.join("state.json");
        replace(&path, b"old", Readers::Usual).unwrap();
        // Nothing can be written where a folder stands.
        fs::create_dir(scratch.0.join("state.new")).unwrap();
        replace(&path, b"new", Readers::Usual).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
