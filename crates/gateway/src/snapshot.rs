//! The route table on disk: what lets a gateway start with no node and no coordinator.
//!
//! Two lines of JSON. The first says format, system, generation, and length and CRC-32C of the
//! second; the second is the table. `routes.json` is the newest, `routes.previous.json` the one
//! before it: a damaged newest costs one generation, not the start.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use evenkeel_gateway_core::table::RouteTable;
use serde::{Deserialize, Serialize};

use crate::format::{self, FormatError};

/// The version of the file format that this program writes and reads.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    system: String,
    generation: u64,
    length: usize,
    crc32c: u32,
}

/// Reports why a table was not written. The files on disk are as they were.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The table has no JSON form.
    #[error("the route table cannot be written as JSON")]
    Format(#[source] FormatError),
    /// The new file could not be made durable.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Reports why a file is not a usable table.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file has no readable first line.
    #[error("`{path}` does not begin with a snapshot header")]
    Header {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another version of this program.
    #[error("`{path}` has format {format}, this program reads format {FORMAT}")]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The version it has.
        format: u32,
    },
    /// The table is not the one that was written.
    #[error("`{path}` is damaged: its table does not have the length and checksum of its header")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The table is whole but makes no sense.
    #[error("`{path}` holds no usable route table")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: FormatError,
    },
}

impl ReadError {
    /// Returns whether there simply is no file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A table from disk.
#[derive(Debug)]
pub struct Loaded {
    /// The table.
    pub table: RouteTable,
    /// Why it is the previous one; `None` if it is the newest.
    pub damage: Option<ReadError>,
}

/// Returns where the table before the newest is kept.
#[must_use]
pub fn previous_path(path: &Path) -> PathBuf {
    path.with_extension("previous.json")
}

/// Writes a table to `path` so that at every moment, also after a power failure, `path` or
/// [`previous_path`] is whole. The table that stood there becomes the previous one.
///
/// # Errors
/// The step that failed; the files are then as they were.
pub fn write(path: &Path, table: &RouteTable) -> Result<(), WriteError> {
    let body = format::to_json(table).map_err(WriteError::Format)?;
    let header = Header {
        format: FORMAT,
        system: table.system.to_string(),
        generation: table.generation,
        length: body.len(),
        crc32c: crc32c::crc32c(&body),
    };
    let mut bytes = serde_json::to_vec(&header)
        .map_err(|source| WriteError::Format(FormatError::Json(source)))?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    bytes.push(b'\n');
    replace(path, &bytes).map_err(|source| WriteError::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new.json");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // A damaged file must not push out a whole previous one.
    if read_one(path).is_ok() {
        let link = path.with_extension("link.json");
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::hard_link(path, &link)?;
        fs::rename(&link, previous_path(path))?;
    }
    fs::rename(&new, path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// Reads the newest table, or, if that is damaged or missing, the previous one.
///
/// # Errors
/// What is wrong with the newest, if the previous cannot be used either.
pub fn read(path: &Path) -> Result<Loaded, ReadError> {
    match read_one(path) {
        Ok(table) => Ok(Loaded { table, damage: None }),
        Err(damage) => match read_one(&previous_path(path)) {
            Ok(table) => Ok(Loaded { table, damage: Some(damage) }),
            Err(_) => Err(damage),
        },
    }
}

/// Reads the table in one file.
///
/// # Errors
/// What is wrong with the file.
pub fn read_one(path: &Path) -> Result<RouteTable, ReadError> {
    let owned = || path.to_owned();
    let bytes = fs::read(path).map_err(|source| ReadError::Read { path: owned(), source })?;
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (header, rest) = end
        .and_then(|end| Some((bytes.get(..end)?, bytes.get(end + 1..)?)))
        .ok_or_else(|| ReadError::Header { path: owned() })?;
    let header: Header =
        serde_json::from_slice(header).map_err(|_| ReadError::Header { path: owned() })?;
    if header.format != FORMAT {
        return Err(ReadError::OtherFormat { path: owned(), format: header.format });
    }
    let body = rest
        .get(..header.length)
        .filter(|body| crc32c::crc32c(body) == header.crc32c)
        .ok_or_else(|| ReadError::Damaged { path: owned() })?;
    let table =
        format::from_json(body).map_err(|source| ReadError::Format { path: owned(), source })?;
    // The header has no checksum of its own, so it is compared with the table that has one.
    if table.generation != header.generation || table.system.as_str() != header.system {
        return Err(ReadError::Damaged { path: owned() });
    }
    Ok(table)
}
