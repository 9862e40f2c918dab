//! Reads conditions and idempotency keys out of request headers.

use axum::http::{HeaderMap, HeaderName, header};
use evenkeel_consensus::command::Expect;

use super::response::Refusal;

/// Names a change, so that it can be asked for twice.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest idempotency key in bytes.
const IDEMPOTENCY_MAX: usize = 128;

/// Which revision a condition speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// `*`: any.
    Any,
    /// `"N"`: this one.
    Revision(u64),
}

/// The conditions of a read (RFC 9110 §13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conditions {
    /// The key must be so.
    pub(super) if_match: Option<Match>,
    /// The key must not be so.
    pub(super) if_none_match: Option<Match>,
}

impl Conditions {
    /// Reads the conditions of a read.
    pub(super) fn parse_read(headers: &HeaderMap) -> Result<Self, Refusal> {
        Ok(Self {
            if_match: parse_match(headers, &header::IF_MATCH)?,
            if_none_match: parse_match(headers, &header::IF_NONE_MATCH)?,
        })
    }

    /// Reads the condition of a change.
    pub(super) fn parse_write(headers: &HeaderMap) -> Result<Expect, Refusal> {
        match Self::parse_read(headers)? {
            Self { if_match: None, if_none_match: None } => Ok(Expect::Any),
            Self { if_match: Some(Match::Any), if_none_match: None } => Ok(Expect::Present),
            Self { if_match: Some(Match::Revision(revision)), if_none_match: None } => {
                Ok(Expect::Revision(revision))
            }
            Self { if_match: None, if_none_match: Some(Match::Any) } => Ok(Expect::Absent),
            Self { .. } => Err(Refusal::bad(
                "bad-header",
                "a change takes `If-Match` or `If-None-Match: *`, not both".to_owned(),
            )),
        }
    }
}

fn parse_match(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Match>, Refusal> {
    let Some(text) = single(headers, name.as_str())? else { return Ok(None) };
    if text == "*" {
        return Ok(Some(Match::Any));
    }
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let revision = quoted.and_then(|text| text.parse().ok());
    let bad = || {
        let message = format!("`{name}: {text}` is neither `*` nor one `ETag`, such as `\"17\"`");
        Refusal::bad("bad-header", message)
    };
    revision.map(|revision| Some(Match::Revision(revision))).ok_or_else(bad)
}

/// Reads the idempotency key of a change.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(key) = single(headers, IDEMPOTENCY_KEY)? else { return Ok(None) };
    if key.is_empty() || key.len() > IDEMPOTENCY_MAX {
        let length = key.len();
        let message = format!("`Idempotency-Key` has {length} bytes, not 1–{IDEMPOTENCY_MAX}");
        return Err(Refusal::bad("bad-header", message));
    }
    Ok(Some(key.to_owned()))
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    match (first.map(|value| value.to_str()), second) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text.trim())),
        (Some(_), _) => {
            Err(Refusal::bad("bad-header", format!("`{name}` is not one line of ASCII text")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)], expected: Option<Expect>) {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        let expect = Conditions::parse_write(&headers.collect()).ok();
        assert_eq!(expect, expected);
    }

    #[test]
    fn conditions_become_expectations() {
        check(&[], Some(Expect::Any));
        check(&[("if-match", "\"17\"")], Some(Expect::Revision(17)));
        check(&[("if-match", "*")], Some(Expect::Present));
        check(&[("if-none-match", "*")], Some(Expect::Absent));
        check(&[("if-match", "17")], None);
        check(&[("if-match", "\"17\", \"18\"")], None);
        check(&[("if-match", "W/\"17\"")], None);
        check(&[("if-match", "\"\"")], None);
        check(&[("if-none-match", "\"17\"")], None);
        check(&[("if-match", "*"), ("if-none-match", "*")], None);
    }
}
