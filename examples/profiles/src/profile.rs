//! What a profile is, and under which key of the store it is kept.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};

/// Every profile's key begins with this.
pub(crate) const KEY_PREFIX: &str = "profiles/";

/// A person.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Only in requests and answers: in the store the key says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<String>,
}

impl Profile {
    /// Reads `{"name": …, "email": …, "about": …}`; only the name must be there.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| format!("the body is no profile: {error}"))
    }

    /// Returns what the store keeps.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let Self { name, email, about, .. } = self;
        Bytes::from(serde_json::json!({"name": name, "email": email, "about": about}).to_string())
    }

    /// Returns what a caller sees.
    pub(crate) fn with_id(&self, id: &str) -> Bytes {
        let Self { name, email, about, .. } = self;
        let seen = serde_json::json!({"id": id, "name": name, "email": email, "about": about});
        Bytes::from(seen.to_string())
    }
}

/// Reads a new profile and chooses its id.
///
/// A request that carries an `Idempotency-Key` gets its id from it: a retry, which another replica
/// may receive, must ask the store for the very same thing to be recognised.
pub(crate) fn parse_new(body: &[u8], headers: &HeaderMap) -> Result<(String, Profile), String> {
    let profile = Profile::parse(body)?;
    let id = match (&profile.id, headers.get("idempotency-key")) {
        (Some(id), _) => id.clone(),
        (None, Some(key)) => format!("{:016x}", fnv1a(key.as_bytes())),
        (None, None) => format!("{:016x}", RandomState::new().build_hasher().finish()),
    };
    Ok((id, profile))
}

/// Returns the path of a profile's key in the store's API.
pub(crate) fn key_path(id: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if id.is_empty() || id.len() > 64 || !id.bytes().all(allowed) {
        return Err("an id has 1 to 64 characters out of a-z, A-Z, 0-9, `-` and `_`".to_owned());
    }
    Ok(format!("/v1/kv/{KEY_PREFIX}{id}"))
}

/// The query of a list request.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    /// Most profiles to return.
    pub(crate) limit: Option<u32>,
}

/// Turns the store's list of keys into a list of profiles.
pub(crate) fn list(body: &[u8]) -> Result<Bytes, serde_json::Error> {
    #[derive(Deserialize)]
    struct Listed {
        keys: Vec<Entry>,
        more: bool,
    }
    #[derive(Deserialize)]
    struct Entry {
        key: String,
        value: String,
        revision: u64,
    }
    let listed: Listed = serde_json::from_slice(body)?;
    let profiles: Vec<_> = listed
        .keys
        .iter()
        .filter_map(|entry| {
            let id = entry.key.strip_prefix(KEY_PREFIX)?;
            // Another writer of the same store may have put something else there.
            let profile: serde_json::Value = serde_json::from_str(&entry.value).ok()?;
            Some(serde_json::json!({"id": id, "revision": entry.revision, "profile": profile}))
        })
        .collect();
    let answer = serde_json::json!({"profiles": profiles, "more": listed.more});
    Ok(Bytes::from(answer.to_string()))
}

/// FNV-1a in 64 bits: the same on every replica.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
