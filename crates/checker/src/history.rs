//! What one client asked for, when, and what it was told.

use std::collections::BTreeMap;
use std::fmt;

use evenkeel_model::time::Timestamp;

/// What an operation does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationKind {
    /// Writes a value, whatever was there.
    Put,
    /// Reads.
    Get,
    /// Writes a value if the key's revision is the expected one.
    Cas,
    /// Removes the key.
    Delete,
}

impl fmt::Display for OperationKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Cas => "cas",
            Self::Delete => "delete",
        })
    }
}

/// What the client knows about an operation's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Acknowledged.
    Ok,
    /// Surely without effect.
    Fail,
    /// Surely without effect, because the store looked and the condition did not hold: at some
    /// instant between invocation and return the key was not at the expected revision, or there
    /// was nothing to delete. It tells of the key what a read would have told.
    Refused,
    /// In doubt: it may have taken effect, may take effect at any later time, or never.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        })
    }
}

/// One operation of one client, all its retries included. All times are of one monotonic clock.
///
/// Every written value is used once in a history: a value then names the write that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: String,
    /// What was asked for.
    pub kind: OperationKind,
    /// The key.
    pub key: String,
    /// The written value, or the one that was read; `None` for a delete and for a read that found
    /// nothing.
    pub value: Option<String>,
    /// The revision that a [`OperationKind::Cas`] asks for; `None`: that there be no such key.
    pub expect: Option<u64>,
    /// When the schedule wanted it to start. Latency and gaps count from here.
    pub intended: Timestamp,
    /// Taken before the first byte was sent.
    pub invoked: Timestamp,
    /// Taken after the answer was received, or when the client gave up.
    pub returned: Timestamp,
    /// What the client knows.
    pub outcome: Outcome,
    /// The key's revision that the answer named: of the write itself, or of the value read.
    pub revision: Option<u64>,
}

impl Operation {
    /// Returns whether this asks for a change.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        !matches!(self.kind, OperationKind::Get)
    }

    /// Returns whether it is a write that took effect, or may have.
    #[must_use]
    pub const fn may_have_written(&self) -> bool {
        self.is_write() && matches!(self.outcome, Outcome::Ok | Outcome::Unknown)
    }

    /// Returns whether this is a condition that the store looked at and found not to hold.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self.kind, OperationKind::Cas | OperationKind::Delete)
            && matches!(self.outcome, Outcome::Refused)
    }

    /// Returns the time up to which it may still take effect: for ever, when in doubt.
    #[must_use]
    pub const fn latest_effect(&self) -> Timestamp {
        match self.outcome {
            Outcome::Unknown => Timestamp::from_nanos(u64::MAX),
            Outcome::Ok | Outcome::Fail | Outcome::Refused => self.returned,
        }
    }
}

impl fmt::Display for Operation {
    /// Writes `fra-1 put "x" -> ok at revision 7, 1.204 s to 1.207 s`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.client, self.kind)?;
        if let Some(value) = &self.value {
            write!(formatter, " {value:?}")?;
        }
        if self.kind == OperationKind::Cas {
            match self.expect {
                Some(revision) => write!(formatter, " if at revision {revision}")?,
                None => write!(formatter, " if absent")?,
            }
        }
        write!(formatter, " -> {}", self.outcome)?;
        if let Some(revision) = self.revision {
            write!(formatter, " at revision {revision}")?;
        }
        let seconds = |at: Timestamp| {
            let micros = at.as_nanos() / 1000;
            format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
        };
        write!(formatter, ", {} s to {} s", seconds(self.invoked), seconds(self.returned))
    }
}

/// Sorts a history into one list a key: registers under different keys are linearizable together
/// exactly when each is by itself (Herlihy and Wing 1990, theorem 1).
#[must_use]
pub fn by_key(operations: &[Operation]) -> BTreeMap<&str, Vec<&Operation>> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(&operation.key).or_default().push(operation);
    }
    keys
}

/// The rule that a history breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An acknowledged write is no longer there, and nothing newer replaced it.
    LostWrite,
    /// Something is there that was deleted, surely failed, or was never written.
    ResurrectedWrite,
    /// One write took effect twice.
    DuplicateWrite,
    /// Two members hold different contents.
    DivergentMembers,
    /// Two writes were acknowledged with the same revision.
    ReusedRevision,
    /// Something was read, by a client or afterwards, that no write had written.
    UnwrittenValue,
    /// The order of revisions contradicts the order in which operations followed one another.
    RealTimeOrder,
    /// A conditional write or a delete was acknowledged though its condition did not hold.
    BrokenPrecondition,
    /// A conditional write or a delete was refused though its condition held all the time.
    FalseRefusal,
    /// No order of the operations explains all answers.
    NotLinearizable,
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::LostWrite => "lost write",
            Self::ResurrectedWrite => "resurrected write",
            Self::DuplicateWrite => "duplicate write",
            Self::DivergentMembers => "members differ",
            Self::ReusedRevision => "revision used twice",
            Self::UnwrittenValue => "read of an unwritten value",
            Self::RealTimeOrder => "real-time order broken",
            Self::BrokenPrecondition => "precondition broken",
            Self::FalseRefusal => "refused without reason",
            Self::NotLinearizable => "not linearizable",
        })
    }
}

/// One broken rule, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// The key on which it was broken.
    pub key: String,
    /// The operations that show it, in words.
    pub evidence: String,
}

impl Violation {
    pub(crate) fn new(rule: Rule, key: &str, evidence: impl Into<String>) -> Self {
        Self { rule, key: key.to_owned(), evidence: evidence.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} on key `{}`: {}", self.rule, self.key, self.evidence)
    }
}

/// A short notation for histories in tests.
#[cfg(test)]
pub(crate) mod parse {
    use super::*;

    /// Reads operations on key `k`, parted by `|`: `0-9 cas b =1 @2` is a compare-and-set to `b`
    /// with the expected revision 1, sent at 0 ns, acknowledged at 9 ns with revision 2; `?` at the
    /// end marks an outcome in doubt, `!` a sure failure, `#` a refusal, `~client` another client,
    /// `/key` another key.
    pub(crate) fn history(text: &str) -> Vec<Operation> {
        text.split('|').map(operation).collect()
    }

    fn operation(text: &str) -> Operation {
        let mut words = text.split_whitespace();
        let (from, to) = words.next().unwrap().split_once('-').unwrap();
        let at = |text: &str| Timestamp::from_nanos(text.parse().unwrap());
        let mut operation = Operation {
            client: "c".to_owned(),
            kind: match words.next().unwrap() {
                "put" => OperationKind::Put,
                "get" => OperationKind::Get,
                "cas" => OperationKind::Cas,
                "delete" => OperationKind::Delete,
                other => panic!("no operation `{other}`"),
            },
            key: "k".to_owned(),
            value: None,
            expect: None,
            intended: at(from),
            invoked: at(from),
            returned: at(to),
            outcome: Outcome::Ok,
            revision: None,
        };
        for word in words {
            match (word.split_at(1), word) {
                (_, "?") => operation.outcome = Outcome::Unknown,
                (_, "!") => operation.outcome = Outcome::Fail,
                (_, "#") => operation.outcome = Outcome::Refused,
                (("=", expect), _) => operation.expect = expect.parse().ok(),
                (("@", revision), _) => operation.revision = revision.parse().ok(),
                (("~", client), _) => client.clone_into(&mut operation.client),
                (("/", key), _) => key.clone_into(&mut operation.key),
                _ => operation.value = Some(word.to_owned()),
            }
        }
        operation
    }
}
