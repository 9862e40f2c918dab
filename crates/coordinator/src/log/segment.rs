//! Files of a fixed size that hold the log's frames.
//!
//! A segment is filled with zeros and synced before it is used, so that a later write changes no
//! metadata of the file system, needs no new space, and an unwritten sector is told by its zeros.
//! Its first sector says what it is:
//!
//! ```text
//! magic 8 B | format u32 | salt u32 | segment u64 | first frame u64 | owner u64 | crc32c u32
//! ```

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::frame::{SECTOR, read_u32, read_u64};

/// The file format that this version writes and reads.
pub(super) const FORMAT: u32 = 2;
const MAGIC: &[u8; 8] = b"EvkeelLg";
const HEAD: usize = 44;
const PREFIX: &str = "segment-";
const SPARE: &str = "spare";

/// The first sector of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Start value of the checksums of its frames.
    pub(super) salt: u32,
    /// Counted up by one over the log's whole life.
    pub(super) segment: u64,
    /// Number of its first frame.
    pub(super) first_frame: u64,
    /// System and member that it belongs to.
    pub(super) owner: u64,
}

/// Says what is wrong with a first sector.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// It is not what was written.
    Damaged,
    /// It was written by another version.
    Format(u32),
}

impl Header {
    /// Describes a new segment.
    pub(super) fn new(segment: u64, first_frame: u64, owner: u64) -> Self {
        let random = RandomState::new().build_hasher().finish().to_le_bytes();
        let salt = u32::from_le_bytes([random[0], random[1], random[2], random[3]]);
        Self { salt, segment, first_frame, owner }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SECTOR);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.first_frame.to_le_bytes());
        bytes.extend_from_slice(&self.owner.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.resize(SECTOR, 0);
        bytes
    }

    /// Reads the first sector of a segment.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let parse = || {
            let checksum = read_u32(bytes, HEAD - 4)?;
            let intact =
                bytes.starts_with(MAGIC) && crc32c::crc32c(bytes.get(..HEAD - 4)?) == checksum;
            let header = Self {
                salt: read_u32(bytes, 12)?,
                segment: read_u64(bytes, 16)?,
                first_frame: read_u64(bytes, 24)?,
                owner: read_u64(bytes, 32)?,
            };
            intact.then_some((read_u32(bytes, 8)?, header))
        };
        match parse() {
            None => Err(HeaderError::Damaged),
            Some((FORMAT, header)) => Ok(header),
            Some((format, _)) => Err(HeaderError::Format(format)),
        }
    }
}

/// Returns the file of segment `number`.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number:012}"))
}

/// Returns the file that waits to become a segment.
pub(super) fn spare_path(folder: &Path) -> PathBuf {
    folder.join(SPARE)
}

/// Returns the numbers of the segments in `folder`, in order.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the spare file: `size` bytes of zeros, durable. Fails without leaving one.
pub(super) fn make_spare(folder: &Path, size: u64) -> io::Result<()> {
    let unfinished = folder.join("spare.tmp");
    let made = fill(&unfinished, size)
        .and_then(|()| fs::rename(&unfinished, spare_path(folder)))
        .and_then(|()| sync_folder(folder));
    if made.is_err() {
        // What could not be filled would only hold on to space that others need.
        drop(fs::remove_file(&unfinished));
    }
    made
}

/// Offers a segment that is no longer needed as the next spare: zeroing it needs no new space.
pub(super) fn recycle(folder: &Path, number: u64) -> io::Result<()> {
    fs::rename(path(folder, number), folder.join("spare.tmp"))
}

fn fill(file: &Path, size: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(file)?;
    let zeros = [0; 64 << 10];
    let mut missing = size;
    while missing > 0 {
        let length = usize::try_from(missing).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(&zeros[..length])?;
        missing -= length as u64;
    }
    file.set_len(size)?;
    file.sync_all()
}

/// Turns the spare file into a segment.
pub(super) fn begin(folder: &Path, header: &Header) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(spare_path(folder))?;
    file.write_all_at(&header.encode(), 0)?;
    file.sync_data()?;
    fs::rename(spare_path(folder), path(folder, header.segment))?;
    sync_folder(folder)?;
    Ok(file)
}

/// Makes renames and removals in `folder` durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header::new(7, 300, 0xfeed);
        let mut bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        bytes[20] ^= 4;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Damaged));
        assert_eq!(Header::decode(&[]), Err(HeaderError::Damaged));
    }
}
