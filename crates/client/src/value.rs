//! Values in JSON: as text where they are text, else in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::keys::KeyValue;
use crate::leases::LeaseId;

/// How a value stands in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// As it is.
    #[default]
    Utf8,
    /// RFC 4648 §4.
    Base64,
}

/// A key in an answer.
#[derive(Debug, Deserialize)]
pub(crate) struct KeyWire {
    key: String,
    value: String,
    #[serde(default)]
    encoding: Encoding,
    revision: u64,
    created: u64,
    version: u64,
    lease: Option<u64>,
}

impl KeyWire {
    pub(crate) fn read(self) -> Result<KeyValue, Error> {
        let Self { key, value, encoding, revision, created, version, lease } = self;
        let bad = |problem| Error::malformed(format!("the value of `{key}` {problem}"));
        let value = decode(value, encoding).map_err(bad)?;
        Ok(KeyValue { key, value, revision, created, version, lease: lease.map(LeaseId) })
    }
}

/// Writes a value. Text that JSON would blow up is written like any other bytes: a request of
/// values that are short enough must not become too long.
pub(crate) fn encode(value: &[u8]) -> (String, Encoding) {
    let in_json: usize = value.iter().map(|byte| length_in_json(*byte)).sum();
    match std::str::from_utf8(value) {
        Ok(text) if in_json / 4 <= value.len() / 3 => (text.to_owned(), Encoding::Utf8),
        Ok(_) | Err(_) => (STANDARD.encode(value), Encoding::Base64),
    }
}

const fn length_in_json(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..=0x1f => 6,
        _ => 1,
    }
}

pub(crate) fn decode(value: String, encoding: Encoding) -> Result<Bytes, &'static str> {
    match encoding {
        Encoding::Utf8 => Ok(value.into()),
        Encoding::Base64 => STANDARD.decode(value).map(Bytes::from).map_err(|_| "is not base64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_survives_json() {
        for value in [&b""[..], b"text", "grüß".as_bytes(), &[0xff, 0, 1]] {
            let (text, encoding) = encode(value);
            assert_eq!(decode(text, encoding).unwrap(), value);
        }
        assert_eq!(encode(b"say \"a\"\n").1, Encoding::Utf8);
        assert_eq!(encode(&[1; 100]).1, Encoding::Base64);
        assert!(decode("~".to_owned(), Encoding::Base64).is_err());
    }
}
