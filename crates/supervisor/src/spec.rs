//! What a shim runs, and its form on disk.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One process that a shim is to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Names the shim and its folder: `gateway`, or an instance such as `web-17`. 1–100
    /// characters of `A-Z a-z 0-9 . _ -`, the first no `.`.
    pub id: String,
    /// Program and arguments; at least the program.
    pub command: Vec<String>,
    /// Absolute working directory; the folder `data` of the shim when absent.
    pub directory: Option<PathBuf>,
    /// Variables added to those of the node, which win over it.
    pub environment: BTreeMap<String, String>,
    /// Addresses whose listening sockets the shim holds and passes on as `LISTEN_FDS`, in this
    /// order from descriptor 3 on. Connections made while the process is down wait for it.
    pub listen: Vec<SocketAddr>,
    /// Size at which the log is rotated, in bytes, at least 4096; two such files are kept.
    pub log_max_bytes: u64,
}

impl ProcessSpec {
    /// Returns whether the id can name a folder.
    pub(crate) fn has_valid_id(id: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=100).contains(&id.len()) && !id.starts_with('.') && id.bytes().all(allowed)
    }
}

/// The format of `spec.json`, version 1. A shim ignores what a newer node adds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SpecFile {
    format: u32,
    id: String,
    command: Vec<String>,
    directory: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    listen: Vec<SocketAddr>,
    log_max_bytes: u64,
}

const FORMAT: u32 = 1;

impl SpecFile {
    pub(crate) fn new(spec: &ProcessSpec) -> Self {
        Self {
            format: FORMAT,
            id: spec.id.clone(),
            command: spec.command.clone(),
            directory: spec.directory.clone(),
            environment: spec.environment.clone(),
            listen: spec.listen.clone(),
            log_max_bytes: spec.log_max_bytes,
        }
    }

    pub(crate) fn into_spec(self) -> Result<ProcessSpec, String> {
        if self.format != FORMAT {
            return Err(format!("spec.json has format {}, this program reads 1", self.format));
        }
        Ok(ProcessSpec {
            id: self.id,
            command: self.command,
            directory: self.directory,
            environment: self.environment,
            listen: self.listen,
            log_max_bytes: self.log_max_bytes.max(4096),
        })
    }
}
