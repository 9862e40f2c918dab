//! Reads the heads and refusals of answers.

use hyper::body::Bytes;
use hyper::header::{ETAG, HeaderMap};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Refusal};

/// Longest part of a foreign body that is shown.
const SHOWN_MAX: usize = 200;

/// What an answer says of a change that it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was surely not applied.
    None,
    /// It may be.
    Unknown,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The revision of the key.
    pub(crate) etag: Option<u64>,
    /// The revision of the store.
    pub(crate) revision: Option<u64>,
    /// Whether this is the first answer to an earlier request of the same name.
    pub(crate) replayed: bool,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) body: Bytes,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    code: String,
    message: String,
    #[serde(default)]
    help: String,
}

impl Response {
    pub(crate) fn new(status: u16, headers: &HeaderMap, body: Bytes) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let etag = text(ETAG.as_str());
        Self {
            status,
            etag: etag.and_then(|etag| etag.trim_matches('"').parse().ok()),
            revision: text("evenkeel-revision").and_then(|revision| revision.parse().ok()),
            replayed: text("evenkeel-replayed") == Some("true"),
            outcome: match text("evenkeel-outcome") {
                Some("none") => Some(Outcome::None),
                Some(_) => Some(Outcome::Unknown),
                None => None,
            },
            body,
        }
    }

    pub(crate) const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// Returns what the server says of why it refuses.
    pub(crate) fn refusal(&self) -> Refusal {
        let mut refusal = parse_refusal(&self.body).unwrap_or_else(|| self.foreign());
        refusal.status = self.status;
        refusal.revision = self.etag;
        refusal
    }

    /// Describes an answer of something that does not speak as Evenkeel does.
    fn foreign(&self) -> Refusal {
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text
            .chars()
            .take(SHOWN_MAX)
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect();
        let separator = if text.trim().is_empty() { "" } else { ": " };
        let message = format!("HTTP status {}{separator}{}", self.status, text.trim());
        let help = "check that the URL is one of an Evenkeel host".to_owned();
        Refusal { status: 0, code: String::new(), message, help, revision: None }
    }

    /// Reads the body of an answer.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::malformed(error.to_string()))
    }

    pub(crate) fn etag(&self) -> Result<u64, Error> {
        self.etag.ok_or_else(|| Error::malformed("it has no `ETag`"))
    }

    pub(crate) fn revision(&self) -> Result<u64, Error> {
        self.revision.ok_or_else(|| Error::malformed("it has no `Evenkeel-Revision`"))
    }
}

/// Reads the body of a refusal.
pub(crate) fn parse_refusal(body: &[u8]) -> Option<Refusal> {
    let ErrorBody { error } = serde_json::from_slice(body).ok()?;
    let ErrorText { code, message, help } = error;
    Some(Refusal { status: 0, code, message, help, revision: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Response {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        Response::new(status, &headers, Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn heads_are_read() {
        let headers =
            [("etag", "\"17\""), ("evenkeel-revision", "20"), ("evenkeel-replayed", "true")];
        let read = response(201, &headers, "");
        assert_eq!((read.etag, read.revision, read.replayed), (Some(17), Some(20), true));
        let outcome = |value| response(503, &[("evenkeel-outcome", value)], "").outcome;
        assert_eq!(outcome("none"), Some(Outcome::None));
        // What this client does not know yet is no promise.
        assert_eq!(outcome("partial"), Some(Outcome::Unknown));
    }

    #[test]
    fn refusals_keep_all_that_the_server_says() {
        let body = r#"{"error": {"code": "conflict", "message": "m", "help": "h"}}"#;
        let refusal = response(412, &[("etag", "\"9\"")], body).refusal();
        let text = |text: &str| text.to_owned();
        let expected = Refusal {
            status: 412,
            code: text("conflict"),
            message: text("m"),
            help: text("h"),
            revision: Some(9),
        };
        assert_eq!(refusal, expected);
    }

    #[test]
    fn foreign_answers_are_shown_in_short() {
        let refusal = response(502, &[], "<h1>Bad\nGateway</h1>").refusal();
        assert_eq!((refusal.code.as_str(), refusal.status), ("", 502));
        assert_eq!(refusal.message, "HTTP status 502: <h1>Bad Gateway</h1>");
        assert_eq!(response(404, &[], "").refusal().message, "HTTP status 404");
    }
}
