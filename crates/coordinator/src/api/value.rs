//! Values in JSON: as text where they are text, else in base64.

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_consensus::answer::{KeyEntry, Version};
use evenkeel_consensus::command::LeaseId;
use serde::{Deserialize, Serialize};

/// How a value stands in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    /// As it is.
    #[default]
    Utf8,
    /// RFC 4648 §4.
    Base64,
}

/// A key in an answer.
#[derive(Debug, Serialize)]
pub(super) struct KeyBody {
    key: String,
    value: String,
    encoding: Encoding,
    revision: u64,
    created: u64,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<u64>,
}

impl KeyBody {
    pub(super) fn new(key: String, version: &Version) -> Self {
        let (value, encoding) = encode(&version.value);
        Self {
            key,
            value,
            encoding,
            revision: version.revision,
            created: version.created,
            version: version.count,
            lease: version.lease.map(|LeaseId(lease)| lease),
        }
    }
}

impl From<KeyEntry> for KeyBody {
    fn from(KeyEntry { key, version }: KeyEntry) -> Self {
        Self::new(key, &version)
    }
}

/// Writes a value into an answer.
pub(super) fn encode(value: &[u8]) -> (String, Encoding) {
    match std::str::from_utf8(value) {
        Ok(text) => (text.to_owned(), Encoding::Utf8),
        Err(_) => (STANDARD.encode(value), Encoding::Base64),
    }
}

/// Reads a value out of a request.
pub(super) fn decode(value: String, encoding: Encoding) -> Result<Bytes, &'static str> {
    match encoding {
        Encoding::Utf8 => Ok(value.into()),
        Encoding::Base64 => STANDARD.decode(value).map(Bytes::from).map_err(|_| "is not base64"),
    }
}
