//! Writes paths and parameters, percent-encoded, so that any key arrives as it is.

use std::fmt::Write as _;

use hyper::Uri;

use crate::error::Error;

/// A path with its parameters.
#[derive(Debug)]
pub(crate) struct Target {
    text: String,
    has_parameters: bool,
}

impl Target {
    pub(crate) fn new(path: &str) -> Self {
        Self { text: path.to_owned(), has_parameters: false }
    }

    pub(crate) fn key(key: &str) -> Self {
        let mut text = "/v1/kv/".to_owned();
        encode(key, &mut text);
        Self { text, has_parameters: false }
    }

    pub(crate) fn lock(name: &str, end: &str) -> Self {
        let mut text = "/v1/locks/".to_owned();
        encode(name, &mut text);
        text.push_str(end);
        Self { text, has_parameters: false }
    }

    /// Adds a parameter without a value.
    pub(crate) fn flag(mut self, name: &str, is_set: bool) -> Self {
        if is_set {
            self.begin(name);
        }
        self
    }

    /// Adds a parameter, if there is a value.
    pub(crate) fn parameter(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.begin(name);
            self.text.push('=');
            encode(&value.to_string(), &mut self.text);
        }
        self
    }

    fn begin(&mut self, name: &str) {
        self.text.push(if self.has_parameters { '&' } else { '?' });
        self.has_parameters = true;
        self.text.push_str(name);
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// Encodes all but what RFC 3986 §2.3 calls unreserved, and slashes. A dot between slashes is
/// encoded too: a proxy might take it for a way up.
fn encode(text: &str, encoded: &mut String) {
    let only_dots = |part: &str| part == "." || part == "..";
    for (place, part) in text.split('/').enumerate() {
        if place > 0 {
            encoded.push('/');
        }
        for byte in part.bytes() {
            let is_plain = byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || byte == b'.';
            if is_plain && !only_dots(part) {
                encoded.push(char::from(byte));
            } else {
                // Writing to a string can't fail.
                let _infallible = write!(encoded, "%{byte:02X}");
            }
        }
    }
}

/// Reads the address of a host: `http://HOST:PORT`.
pub(crate) fn parse_url(url: &str) -> Result<String, Error> {
    let bad = |problem: &str| Error::bad_request(format!("`{url}` {problem}"));
    let uri: Uri = url.trim().parse().map_err(|_| bad("is no URL, such as `http://HOST:7401`"))?;
    if uri.scheme_str() != Some("http") {
        return Err(bad("does not begin with `http://`"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(bad("has a path: give `http://HOST:PORT` alone"));
    }
    let authority = uri.authority().ok_or_else(|| bad("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("names a user, which this API does not know"));
    }
    Ok(authority.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_arrive_as_they_are() {
        let check = |key: &str, expected: &str| {
            assert_eq!(Target::key(key).into_text(), format!("/v1/kv/{expected}"));
        };
        check("a/b//c/", "a/b//c/");
        check("/a b+c", "/a%20b%2Bc");
        check("grüß", "gr%C3%BC%C3%9F");
        check("a?b=c&d#e%", "a%3Fb%3Dc%26d%23e%25");
        check("../a/./b.c", "%2E%2E/a/%2E/b.c");
    }

    #[test]
    fn parameters_follow_each_other() {
        let target = Target::new("/v1/kv")
            .flag("stale", false)
            .parameter("prefix", Some("a b"))
            .parameter("after", None::<&str>)
            .flag("watch", true)
            .parameter("limit", Some(7));
        assert_eq!(target.into_text(), "/v1/kv?prefix=a%20b&watch&limit=7");
        assert_eq!(Target::new("/v1/kv").into_text(), "/v1/kv");
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let check = |url: &str, expected: Option<&str>| {
            assert_eq!(parse_url(url).ok().as_deref(), expected, "{url}");
        };
        check("http://127.0.0.1:7402", Some("127.0.0.1:7402"));
        check(" http://[::1]:7402/ ", Some("[::1]:7402"));
        check("http://db.example", Some("db.example"));
        for bad in ["", "127.0.0.1:7402", "https://a:1", "http://a/v1", "http://a?b", "http://u@a"]
        {
            check(bad, None);
        }
    }
}
