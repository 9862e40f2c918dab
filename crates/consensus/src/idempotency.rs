//! The bounded memory of requests that carried an idempotency key.
//!
//! Part of the replicated state: the same at every member, and in every snapshot.

use std::collections::{BTreeMap, VecDeque};

use prost::bytes::Bytes;

use crate::answer::{Answer, OperationResult, Refused};
use crate::command::{Command, LeaseId};

/// What a request came to, for its retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Written {
        revision: u64,
        created: bool,
    },
    Deleted {
        revision: u64,
    },
    Conflict {
        current: Option<u64>,
    },
    NotFound,
    /// The results are kept if they take little room; values that were read may take much.
    Transacted {
        succeeded: bool,
        revision: u64,
        results: Vec<OperationResult>,
    },
    Granted {
        lease: LeaseId,
    },
    Revoked {
        revision: u64,
    },
    NoLease {
        lease: LeaseId,
    },
    Forgotten {
        through: u64,
    },
    Refused(Refused),
}

impl Outcome {
    /// Returns what is remembered of the answer to a command.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        Some(match *answer {
            Answer::Written { revision, created, .. } => Self::Written { revision, created },
            Answer::Deleted { revision, .. } => Self::Deleted { revision },
            Answer::Conflict { current } => Self::Conflict { current },
            Answer::NotFound => Self::NotFound,
            Answer::Transacted { succeeded, revision, ref results, .. } => {
                let kept = results.iter().map(size).sum::<usize>() <= RESULTS_MAX;
                let results = if kept { results.clone() } else { Vec::new() };
                Self::Transacted { succeeded, revision, results }
            }
            Answer::Granted { lease, .. } => Self::Granted { lease },
            Answer::Revoked { revision, .. } => Self::Revoked { revision },
            Answer::NoLease { lease } => Self::NoLease { lease },
            Answer::Forgotten { through } => Self::Forgotten { through },
            Answer::Refused(why) => Self::Refused(why),
            Answer::IdempotencyMismatch
            | Answer::Value { .. }
            | Answer::Absent { .. }
            | Answer::Entries { .. }
            | Answer::Changes { .. }
            | Answer::Compacted { .. }
            | Answer::Future { .. }
            | Answer::Lease { .. }
            | Answer::NotLeader { .. }
            | Answer::Unknown
            | Answer::Overloaded
            | Answer::TooLarge => return None,
        })
    }

    /// Returns the answer to a retry.
    pub(crate) fn answer(&self) -> Answer {
        let replayed = true;
        match *self {
            Self::Written { revision, created } => Answer::Written { revision, created, replayed },
            Self::Deleted { revision } => Answer::Deleted { revision, replayed },
            Self::Conflict { current } => Answer::Conflict { current },
            Self::NotFound => Answer::NotFound,
            Self::Transacted { succeeded, revision, ref results } => {
                Answer::Transacted { succeeded, results: results.clone(), revision, replayed }
            }
            Self::Granted { lease } => Answer::Granted { lease, replayed },
            Self::Revoked { revision } => Answer::Revoked { revision, replayed },
            Self::NoLease { lease } => Answer::NoLease { lease },
            Self::Forgotten { through } => Answer::Forgotten { through },
            Self::Refused(why) => Answer::Refused(why),
        }
    }
}

/// Bytes that the results of a remembered transaction may take.
const RESULTS_MAX: usize = 1024;

fn size(result: &OperationResult) -> usize {
    match result {
        OperationResult::Written { .. } | OperationResult::Deleted { .. } => 1,
        OperationResult::Read { version } => version.as_ref().map_or(1, |it| 32 + it.value.len()),
    }
}

/// Tells a request from another one under the same idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub(crate) u128);

impl Fingerprint {
    /// Takes the FNV-1a hash of what the command would do.
    ///
    /// Two requests of one client that collide would share an answer; nobody else is harmed, so
    /// that a hash without a secret is enough.
    pub(crate) fn of(command: &Command) -> Self {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let bytes = crate::wire::command::encode_command(Command::once(command.change.clone()));
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        for byte in bytes {
            hash = (hash ^ u128::from(byte)).wrapping_mul(PRIME);
        }
        Self(hash)
    }

    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }
}

/// The first outcome of each of the latest idempotency keys. The oldest goes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    capacity: usize,
    outcomes: BTreeMap<String, (Fingerprint, Outcome)>,
    /// Every key of `outcomes`, oldest first.
    order: VecDeque<String>,
}

impl Memory {
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { capacity, outcomes: BTreeMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn find(&self, key: &str) -> Option<(Fingerprint, Outcome)> {
        self.outcomes.get(key).cloned()
    }

    /// Remembers a key that is not remembered yet.
    pub(crate) fn insert(&mut self, key: String, fingerprint: Fingerprint, outcome: Outcome) {
        if self.outcomes.insert(key.clone(), (fingerprint, outcome)).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.outcomes.remove(&oldest);
            }
        }
    }

    /// Returns all that is remembered, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Fingerprint, Outcome)> {
        self.order.iter().filter_map(|key| {
            self.find(key).map(|(fingerprint, outcome)| (key.as_str(), fingerprint, outcome))
        })
    }
}
