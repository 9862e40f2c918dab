//! Clients of the store: one operation after the other, on any member, with retries.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_checker::history::{Operation, OperationKind, Outcome};
use evenkeel_consensus::answer::Answer;
use evenkeel_consensus::command::{Bytes, Change, Command, Expect, Query, Space};
use evenkeel_consensus::settings::MemberId;
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;

/// How many keys there are; few enough for conflicts, enough for a quick verdict.
const KEYS: u64 = 24;

/// How long a client tries before it gives an operation up.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long it waits for one answer.
pub(crate) const ATTEMPT_MAX: Duration = Duration::from_millis(700);

/// What a client sends to a member.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Change(Command),
    Question(Query),
}

impl Request {
    /// Returns whether it may change something.
    pub(crate) const fn is_change(&self) -> bool {
        matches!(self, Self::Change(_))
    }
}

/// A finished operation, and what else its answer said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) operation: Operation,
    /// The revision of the whole store that the answer named.
    pub(crate) store_revision: Option<u64>,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    hosts: usize,
    /// The member that it asks next.
    target: usize,
    /// What it last knew of the keys' revisions.
    known: BTreeMap<String, u64>,
    operations: u64,
    /// Counts what it sent; an answer to an older attempt is ignored.
    pub(crate) attempt: u64,
    current: Option<Current>,
    pub(crate) finished: Vec<Finished>,
}

#[derive(Debug)]
struct Current {
    operation: Operation,
    request: Request,
    /// Whether it may be sent again.
    safe_to_repeat: bool,
    /// Whether an attempt may have taken effect.
    in_doubt: bool,
}

/// What a client does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Sends the request again or a new one, after a while.
    Wait(Duration),
    /// Nothing: the answer was to an attempt it no longer cares about.
    Ignore,
    /// The store broke its word.
    Complain(String),
}

impl Client {
    pub(crate) fn new(number: usize, hosts: usize) -> Self {
        Self {
            name: format!("c{number}"),
            hosts,
            target: number % hosts,
            known: BTreeMap::new(),
            operations: 0,
            attempt: 0,
            current: None,
            finished: Vec::new(),
        }
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// Returns the next attempt: which member, and what.
    pub(crate) fn send(&mut self, now: Timestamp, rng: &mut Rng) -> (usize, Request) {
        let current = match self.current.take() {
            Some(current) => current,
            None => self.begin(now, rng),
        };
        let request = current.request.clone();
        self.current = Some(current);
        self.attempt += 1;
        (self.target, request)
    }

    fn begin(&mut self, now: Timestamp, rng: &mut Rng) -> Current {
        self.operations += 1;
        let name = format!("{}-{}", self.name, self.operations);
        let key = format!("k{}", rng.below(KEYS));
        let known = self.known.get(&key).copied();
        let kind = match rng.below(10) {
            0..4 => OperationKind::Get,
            4..7 => OperationKind::Put,
            7..9 => OperationKind::Cas,
            _ => OperationKind::Delete,
        };
        // Some changes are sent once only, without a key that would make a retry safe.
        let idempotency = (!rng.chance(1, 5)).then(|| name.clone());
        let expect = match (kind, known) {
            (OperationKind::Cas, Some(revision)) => Expect::Revision(revision),
            (OperationKind::Cas, None) => Expect::Absent,
            _ => Expect::Any,
        };
        let safe_to_repeat = kind == OperationKind::Get || idempotency.is_some();
        let space = Space::User;
        let change = |change| Request::Change(Command { change, idempotency });
        let request = match kind {
            OperationKind::Get => {
                Request::Question(Query::Get { space, key: key.clone(), at: None })
            }
            OperationKind::Put | OperationKind::Cas => change(Change::Put {
                space,
                key: key.clone(),
                value: Bytes::from(name.clone()),
                expect,
                lease: None,
            }),
            OperationKind::Delete => change(Change::Delete { space, key: key.clone(), expect }),
        };
        let operation = Operation {
            client: self.name.clone(),
            kind,
            key,
            value: matches!(kind, OperationKind::Put | OperationKind::Cas).then_some(name),
            expect: if kind == OperationKind::Cas { known } else { None },
            intended: now,
            invoked: now,
            returned: now,
            outcome: Outcome::Unknown,
            revision: None,
        };
        Current { operation, request, safe_to_repeat, in_doubt: false }
    }

    /// Takes an answer in; `None` stands for no answer in time.
    pub(crate) fn answered(
        &mut self,
        attempt: u64,
        answer: Option<Answer>,
        now: Timestamp,
        rng: &mut Rng,
    ) -> Next {
        let Some(mut current) = self.current.take_if(|_| attempt == self.attempt) else {
            return Next::Ignore;
        };
        // Whatever else comes for this attempt comes too late.
        self.attempt += 1;
        match answer {
            Some(Answer::NotLeader { leader }) => {
                self.target = leader.map_or_else(|| rng.index(self.hosts), host_of);
                self.retry(current, now, rng)
            }
            Some(Answer::Overloaded) => self.retry(current, now, rng),
            None | Some(Answer::Unknown) => {
                self.target = rng.index(self.hosts);
                current.in_doubt = true;
                self.retry(current, now, rng)
            }
            Some(answer @ (Answer::IdempotencyMismatch | Answer::TooLarge)) => {
                Next::Complain(format!("{} was answered {answer:?}", current.operation))
            }
            Some(answer) => match settle(&mut current.operation, &answer) {
                Some(store_revision) => {
                    self.finish(current.operation, store_revision, now);
                    Next::Wait(think(rng))
                }
                None => Next::Complain(format!("{} was answered {answer:?}", current.operation)),
            },
        }
    }

    /// Takes "nothing was changed" for an answer, instead of trying again.
    pub(crate) fn refused(&mut self, attempt: u64, now: Timestamp, rng: &mut Rng) -> Next {
        let Some(current) = self.current.take_if(|_| attempt == self.attempt) else {
            return Next::Ignore;
        };
        self.attempt += 1;
        self.target = rng.index(self.hosts);
        self.give_up(current, now, rng)
    }

    fn retry(&mut self, current: Current, now: Timestamp, rng: &mut Rng) -> Next {
        let tired = now.since(current.operation.invoked) > PATIENCE;
        if !tired && (current.safe_to_repeat || !current.in_doubt) {
            self.current = Some(current);
            return Next::Wait(Duration::from_micros(1000 + rng.below(50_000)));
        }
        self.give_up(current, now, rng)
    }

    fn give_up(&mut self, current: Current, now: Timestamp, rng: &mut Rng) -> Next {
        let mut operation = current.operation;
        // A read in doubt has no effect.
        let unknown = current.in_doubt && operation.kind != OperationKind::Get;
        operation.outcome = if unknown { Outcome::Unknown } else { Outcome::Fail };
        self.finish(operation, None, now);
        Next::Wait(think(rng))
    }

    fn finish(&mut self, mut operation: Operation, store_revision: Option<u64>, now: Timestamp) {
        operation.returned = now;
        if operation.outcome == Outcome::Ok {
            match operation.revision.filter(|_| operation.value.is_some()) {
                Some(revision) => self.known.insert(operation.key.clone(), revision),
                None => self.known.remove(&operation.key),
            };
        }
        self.finished.push(Finished { operation, store_revision });
    }

    /// Ends the history: what is still open stays in doubt.
    pub(crate) fn hang_up(&mut self, now: Timestamp) {
        if let Some(current) = self.current.take() {
            self.finish(current.operation, None, now);
        }
    }
}

fn host_of(member: MemberId) -> usize {
    usize::try_from(member.0).unwrap_or(usize::MAX).saturating_sub(1)
}

fn think(rng: &mut Rng) -> Duration {
    Duration::from_micros(rng.below(30_000))
}

/// Notes an answer in its operation, and returns the store's revision if the answer names it.
/// `None` if it is no answer to such an operation.
fn settle(operation: &mut Operation, answer: &Answer) -> Option<Option<u64>> {
    let writes = matches!(operation.kind, OperationKind::Put | OperationKind::Cas);
    operation.outcome = Outcome::Ok;
    match answer {
        Answer::Written { revision, .. } if writes => {
            operation.revision = Some(*revision);
            Some(Some(*revision))
        }
        Answer::Deleted { revision, .. } if operation.kind == OperationKind::Delete => {
            operation.revision = Some(*revision);
            Some(Some(*revision))
        }
        Answer::NotFound if operation.kind == OperationKind::Delete => {
            // It saw what a read would have seen.
            operation.kind = OperationKind::Get;
            Some(None)
        }
        Answer::Conflict { .. } if operation.kind == OperationKind::Cas => {
            operation.outcome = Outcome::Fail;
            Some(None)
        }
        Answer::Value { version, store_revision } if operation.kind == OperationKind::Get => {
            operation.value = Some(String::from_utf8_lossy(&version.value).into_owned());
            operation.revision = Some(version.revision);
            Some(Some(*store_revision))
        }
        Answer::Absent { store_revision } if operation.kind == OperationKind::Get => {
            Some(Some(*store_revision))
        }
        Answer::Written { .. }
        | Answer::Deleted { .. }
        | Answer::Conflict { .. }
        | Answer::NotFound
        | Answer::IdempotencyMismatch
        | Answer::Value { .. }
        | Answer::Absent { .. }
        | Answer::Entries { .. }
        | Answer::Transacted { .. }
        | Answer::Granted { .. }
        | Answer::Revoked { .. }
        | Answer::NoLease { .. }
        | Answer::Forgotten { .. }
        | Answer::Refused(_)
        | Answer::Changes { .. }
        | Answer::Compacted { .. }
        | Answer::Future { .. }
        | Answer::Lease { .. }
        | Answer::NotLeader { .. }
        | Answer::Unknown
        | Answer::Overloaded
        | Answer::TooLarge => None,
    }
}
