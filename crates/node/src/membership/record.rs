//! Decides what a join token is still good for. Reads no clock and no store.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::name::HostName;
use evenkeel_trust::join::Refusal;
use serde::{Deserialize, Serialize};

/// How long after its end a token is remembered, so that whoever uses it is told why it fails.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// What is kept of a token, under the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The host that may join.
    pub(super) host: String,
    /// Its end, in seconds of Unix time.
    pub(super) end: u64,
    /// The key that was certified with it.
    #[serde(default)]
    pub(super) used_by: Option<String>,
}

/// Records by the hash of their secret.
pub(super) type Records = BTreeMap<String, Record>;

/// What a token that is good leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Use {
    /// It is used up now: this is to be kept before anything is certified.
    First(Record),
    /// The same key asks again: the first answer was lost.
    Again,
}

impl Record {
    /// Returns what is kept of a token that is good until `end`.
    pub(super) fn new(host: &HostName, end: u64) -> Self {
        Self { host: host.to_string(), end, used_by: None }
    }

    /// Decides whether `key` may be certified at `now`.
    pub(super) fn redeem(&self, key: &str, now: u64) -> Result<Use, Refusal> {
        match &self.used_by {
            Some(used_by) if used_by == key => Ok(Use::Again),
            Some(_) => Err(Refusal::Used),
            None if now > self.end => Err(Refusal::Expired),
            None => Ok(Use::First(Self { used_by: Some(key.to_owned()), ..self.clone() })),
        }
    }

    /// Returns whether it may be forgotten.
    pub(super) const fn is_past(&self, now: u64) -> bool {
        now > self.end.saturating_add(REMEMBERED.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(used_by: Option<&str>, key: &str, now: u64, expected: Result<bool, Refusal>) {
        let host = HostName::parse("a1").unwrap();
        let record = Record { used_by: used_by.map(str::to_owned), ..Record::new(&host, 1000) };
        let redeemed = record.redeem(key, now).map(|used| match used {
            Use::First(after) => {
                assert_eq!(after.used_by.as_deref(), Some(key));
                true
            }
            Use::Again => false,
        });
        assert_eq!(redeemed, expected, "{used_by:?} {key} {now}");
    }

    #[test]
    fn a_token_is_good_once_and_for_a_while() {
        check(None, "own", 1000, Ok(true));
        check(None, "own", 1001, Err(Refusal::Expired));
        // The answer was lost.
        check(Some("own"), "own", 1000, Ok(false));
        check(Some("own"), "own", 1001, Ok(false));
        check(Some("own"), "other", 1000, Err(Refusal::Used));
        check(Some("own"), "other", 1001, Err(Refusal::Used));
    }

    #[test]
    fn a_token_is_remembered_for_a_day() {
        let record = Record::new(&HostName::parse("a1").unwrap(), 1000);
        assert!(!record.is_past(1000 + 24 * 60 * 60));
        assert!(record.is_past(1001 + 24 * 60 * 60));
    }
}
