//! The child's output on its way to the log files.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::folder::{LOG, LOG_OLDER};

/// Most bytes taken at once, so that a child that only writes does not keep the shim from
/// listening.
const TURN_MAX_BYTES: usize = 64 * 1024;

/// A pipe, and the file that its content goes to.
#[derive(Debug)]
pub(super) struct Log {
    reader: File,
    writer: OwnedFd,
    file: Option<File>,
    size: u64,
    size_max: u64,
}

impl Log {
    /// Opens the pipe, and the log in the current directory.
    pub(super) fn open() -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        // Only the end that is read here: the child's writes wait when the shim is behind.
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let reader = File::from(reader);
        let mut log = Self { reader, writer, file: None, size: 0, size_max: u64::MAX };
        log.reopen();
        Ok(log)
    }

    /// Sets the size at which the file is rotated, in bytes.
    pub(super) const fn set_size_max(&mut self, bytes: u64) {
        self.size_max = bytes;
    }

    /// Returns the end that the child writes to.
    pub(super) fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// Returns the end to wait for.
    pub(super) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Moves what the child wrote into the file. What the disk does not take is lost: a full disk
    /// must not stop the child.
    pub(super) fn drain(&mut self) {
        let mut buffer = [0; 8192];
        let mut taken = 0;
        while taken < TURN_MAX_BYTES {
            let Ok(length @ 1..) = self.reader.read(&mut buffer) else { return };
            self.append(buffer.get(..length).unwrap_or_default());
            taken += length;
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.size.saturating_add(length) > self.size_max {
            self.file = None;
            // If it cannot be renamed the old file grows on, which is better than losing it.
            let _not_renamed = fs::rename(LOG, LOG_OLDER);
        }
        if self.file.is_none() {
            self.reopen();
        }
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_ok()
        {
            self.size = self.size.saturating_add(length);
        }
    }

    fn reopen(&mut self) {
        self.file = File::options().append(true).create(true).mode(0o600).open(LOG).ok();
        let metadata = self.file.as_ref().and_then(|file| file.metadata().ok());
        self.size = metadata.map_or(0, |metadata| metadata.len());
    }
}
