//! Reads keys and parameters out of request targets.

use axum::http::Uri;

use super::response::Refusal;

/// Where keys stand.
const KEY_PATH: &str = "/v1/kv/";
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
    match key.len() {
        0 => Err(bad("the key is empty".to_owned())),
        1..=KEY_MAX => Ok(key),
        length => Err(bad(format!("the key has {length} bytes, at most {KEY_MAX} are allowed"))),
    }
}

/// The parameters of a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Whether a possibly old answer will do.
    pub(super) stale: bool,
    /// What the keys of a list begin with.
    pub(super) prefix: String,
    /// How many keys a list has at most.
    pub(super) limit: usize,
}

impl Parameters {
    /// Reads the parameters; only those in `known` may be there.
    pub(super) fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Refusal> {
        let mut parameters = Self { stale: false, prefix: String::new(), limit: LIMIT_STANDARD };
        let query = uri.query().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let bad = |problem: &str| Refusal::bad("bad-parameter", format!("`{name}` {problem}"));
            if !known.contains(&name) {
                return Err(bad("is not a parameter of this request"));
            }
            let value = decode(value, true).ok_or_else(|| bad("is not percent-encoded UTF-8"))?;
            match (name, value.as_str()) {
                ("stale", "" | "true" | "1") => parameters.stale = true,
                ("stale", "false" | "0") => parameters.stale = false,
                ("stale", _) => return Err(bad("is neither `true` nor `false`")),
                ("limit", number) => {
                    let limit = number.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    parameters.limit = limit.ok_or_else(|| bad("is not a number of 1–1000"))?;
                }
                (_, _) => parameters.prefix = value,
            }
        }
        Ok(parameters)
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
    fn parameters_are_read_strictly() {
        let parse = |query: &str| {
            let uri = format!("/v1/kv?{query}").parse().unwrap();
            Parameters::parse(&uri, &["stale", "prefix", "limit"]).ok()
        };
        let standard = || Parameters { stale: false, prefix: String::new(), limit: LIMIT_STANDARD };
        assert_eq!(parse(""), Some(standard()));
        assert_eq!(parse("stale"), Some(Parameters { stale: true, ..standard() }));
        assert_eq!(
            parse("prefix=a%2Fb+c&limit=7"),
            Some(Parameters { prefix: "a/b c".to_owned(), limit: 7, ..standard() })
        );
        for bad in ["limit=0", "limit=1001", "limit=x", "stale=maybe", "perfix=a", "prefix=%ff"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
