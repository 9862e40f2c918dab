//! Reads keys and parameters out of request targets.

use axum::http::Uri;
use evenkeel_consensus::command::LeaseId;
use evenkeel_consensus::locks::LockName;

use super::response::Refusal;

/// Where keys stand.
const KEY_PATH: &str = "/v1/kv/";
/// Where leases stand.
const LEASE_PATH: &str = "/v1/leases/";
/// Where locks stand.
const LOCK_PATH: &str = "/v1/locks/";
/// Longest key in bytes.
const KEY_MAX: usize = 512;
/// Keys of a list, if the client does not say how many, and at most.
const LIMIT_STANDARD: usize = 100;
const LIMIT_MAX: usize = 1000;

/// Reads the key that the path names: everything after `/v1/kv/`, percent-decoded.
pub(super) fn key(uri: &Uri) -> Result<String, Refusal> {
    let bad = |message: String| Refusal::bad("bad-key", message);
    let encoded = uri.path().strip_prefix(KEY_PATH).unwrap_or_default();
    let key = decode(encoded, false)
        .ok_or_else(|| bad("the key is not percent-encoded UTF-8".to_owned()))?;
    check_key(key)
}

/// Refuses a key that is empty or too long.
pub(super) fn check_key(key: String) -> Result<String, Refusal> {
    let bad = |message: String| Refusal::bad("bad-key", message);
    match key.len() {
        0 => Err(bad("the key is empty".to_owned())),
        1..=KEY_MAX => Ok(key),
        length => Err(bad(format!("the key has {length} bytes, at most {KEY_MAX} are allowed"))),
    }
}

/// Reads the lease that the path names, before `end`.
pub(super) fn lease(uri: &Uri, end: &str) -> Result<LeaseId, Refusal> {
    let name = part(uri, LEASE_PATH, end);
    let number = name.as_ref().and_then(|name| name.parse().ok()).filter(|lease| *lease != 0);
    number.map(LeaseId).ok_or_else(|| {
        let shown = name.unwrap_or_else(|| uri.path().to_owned());
        Refusal::bad("bad-lease", format!("`{shown}` is no lease: a number from 1 on"))
    })
}

/// Reads the lock that the path names, before `end`.
pub(super) fn lock(uri: &Uri, end: &str) -> Result<LockName, Refusal> {
    let bad = |problem: &str| Refusal::bad("bad-lock", format!("the lock's name {problem}"));
    let name = part(uri, LOCK_PATH, end).ok_or_else(|| bad("is not percent-encoded UTF-8"))?;
    LockName::parse(&name).ok_or_else(|| bad("has not 1–256 bytes, or a slash among them"))
}

/// Returns the part of a path between two others, percent-decoded.
fn part(uri: &Uri, begin: &str, end: &str) -> Option<String> {
    decode(uri.path().strip_prefix(begin)?.strip_suffix(end)?, false)
}

/// The parameters of a request, of which each path knows some.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Whether a possibly old answer will do.
    pub(super) stale: bool,
    /// What the keys of a list begin with.
    pub(super) prefix: String,
    /// How many keys a list has at most.
    pub(super) limit: usize,
    /// The last key of the page before.
    pub(super) after: Option<String>,
    /// The revision at which keys are read.
    pub(super) revision: Option<u64>,
    /// Whether changes are to be told as they come.
    pub(super) watch: bool,
    /// The last revision that a watcher knows.
    pub(super) since: Option<u64>,
    /// The lease with which a key goes.
    pub(super) lease: Option<LeaseId>,
    /// The token of a place in the queue of a lock.
    pub(super) token: Option<u64>,
}

impl Parameters {
    const STANDARD: Self = Self {
        stale: false,
        prefix: String::new(),
        limit: LIMIT_STANDARD,
        after: None,
        revision: None,
        watch: false,
        since: None,
        lease: None,
        token: None,
    };

    /// Reads the parameters; only those in `known` may be there.
    pub(super) fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Refusal> {
        let mut parameters = Self::STANDARD;
        let query = uri.query().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let bad = |problem: &str| Refusal::bad("bad-parameter", format!("`{name}` {problem}"));
            if !known.contains(&name) {
                return Err(bad("is not a parameter of this request"));
            }
            let value = decode(value, true).ok_or_else(|| bad("is not percent-encoded UTF-8"))?;
            parameters.set(name, value).map_err(bad)?;
        }
        Ok(parameters)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        match name {
            "stale" => self.stale = flag(&value)?,
            "watch" => self.watch = flag(&value)?,
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                self.limit = limit.ok_or("is not a number of 1–1000")?;
            }
            "revision" => self.revision = Some(value.parse().map_err(|_| "is no revision")?),
            "since" => self.since = Some(value.parse().map_err(|_| "is no revision")?),
            "lease" => {
                let lease = value.parse().ok().filter(|lease| *lease != 0);
                self.lease = Some(LeaseId(lease.ok_or("is no lease")?));
            }
            "token" => self.token = Some(value.parse().map_err(|_| "is no token")?),
            "after" => self.after = Some(value),
            _ => self.prefix = value,
        }
        Ok(())
    }
}

fn flag(value: &str) -> Result<bool, &'static str> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("is neither `true` nor `false`"),
    }
}

/// Decodes percent-encoding (RFC 3986 §2.1); in a query, `+` may stand for a space.
fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, expected: Option<&str>) {
        let key = key(&target.parse().unwrap()).ok();
        assert_eq!(key.as_deref(), expected, "{target}");
    }

    #[test]
    fn keys_are_the_rest_of_the_path() {
        check("/v1/kv/a", Some("a"));
        check("/v1/kv/a/b//c/", Some("a/b//c/"));
        check("/v1/kv/%2Fa%20b+c", Some("/a b+c"));
        check("/v1/kv/gr%C3%BC%C3%9F", Some("grüß"));
        check("/v1/kv/", None);
        check("/v1/kv/%", None);
        check("/v1/kv/%2", None);
        check("/v1/kv/%zz", None);
        check("/v1/kv/%ff", None);
        check(&format!("/v1/kv/{}", "k".repeat(512)), Some(&"k".repeat(512)));
        check(&format!("/v1/kv/{}", "k".repeat(513)), None);
    }

    #[test]
    fn leases_and_locks_are_parts_of_the_path() {
        let lease = |path: &str| lease(&path.parse().unwrap(), "/keepalive").ok();
        assert_eq!(lease("/v1/leases/7/keepalive"), Some(LeaseId(7)));
        for bad in ["0", "x", "%ff", "-1", "18446744073709551616"] {
            assert_eq!(lease(&format!("/v1/leases/{bad}/keepalive")), None, "{bad}");
        }
        let lock = |path: &str| lock(&path.parse().unwrap(), "").ok();
        let name = lock("/v1/locks/gr%C3%B6%C3%9Fe%20a+b").unwrap();
        assert_eq!(name.as_str(), "größe a+b");
        for bad in ["", "%ff", "a%2Fb"] {
            assert_eq!(lock(&format!("/v1/locks/{bad}")), None, "{bad}");
        }
    }

    #[test]
    fn parameters_are_read_strictly() {
        let parse = |query: &str| {
            let uri = format!("/v1/kv?{query}").parse().unwrap();
            let known = ["stale", "prefix", "limit", "after", "revision", "since", "lease"];
            Parameters::parse(&uri, &known).ok()
        };
        let standard = || Parameters::STANDARD;
        assert_eq!(parse(""), Some(standard()));
        assert_eq!(parse("stale"), Some(Parameters { stale: true, ..standard() }));
        assert_eq!(
            parse("prefix=a%2Fb+c&limit=7"),
            Some(Parameters { prefix: "a/b c".to_owned(), limit: 7, ..standard() })
        );
        let after = Some("a".to_owned());
        assert_eq!(
            parse("after=a&revision=3&since=0&lease=9"),
            Some(Parameters {
                after,
                revision: Some(3),
                since: Some(0),
                lease: Some(LeaseId(9)),
                ..standard()
            })
        );
        let numbers = ["limit=0", "limit=1001", "limit=x", "revision=-1", "since=", "lease=0"];
        for bad in numbers.into_iter().chain(["stale=maybe", "perfix=a", "prefix=%ff", "watch"]) {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
