//! Requests that wait for their answer.

use std::collections::{BTreeMap, VecDeque};

use evenkeel_model::time::Timestamp;
use prost::bytes::Bytes;

use crate::command::{Query, RequestId};
use crate::settings::Limits;

/// A change that Raft has not taken yet.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// Who waits for the answer; nobody when the leader itself proposed it.
    pub(crate) request: Option<RequestId>,
    /// The encoded command.
    pub(crate) data: Bytes,
}

/// A change that is in the log, but not applied.
#[derive(Debug)]
struct Appended {
    request: Option<RequestId>,
    term: u64,
    bytes: usize,
}

/// All changes that wait.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    waiting: VecDeque<Proposal>,
    /// By index.
    appended: BTreeMap<u64, Appended>,
    bytes: usize,
}

impl Proposals {
    /// Takes a change in, unless too much is waiting.
    pub(crate) fn push(&mut self, proposal: Proposal, limits: &Limits) -> Result<(), Overloaded> {
        if self.waiting.len() + self.appended.len() >= limits.pending_max
            || self.bytes + proposal.data.len() > limits.pending_bytes_max
        {
            return Err(Overloaded);
        }
        self.bytes += proposal.data.len();
        self.waiting.push_back(proposal);
        Ok(())
    }

    /// Returns how many changes wait or are in the log and not applied.
    pub(crate) fn under_way(&self) -> usize {
        self.waiting.len() + self.appended.len()
    }

    /// Takes out changes of at most `bytes_max` together, but at least one if there is any.
    pub(crate) fn take_batch(&mut self, bytes_max: usize) -> Vec<Proposal> {
        let mut batch: Vec<Proposal> = Vec::new();
        let mut bytes = 0;
        while let Some(next) =
            self.waiting.pop_front_if(|next| bytes == 0 || bytes + next.data.len() <= bytes_max)
        {
            bytes += next.data.len();
            batch.push(next);
        }
        self.bytes -= bytes;
        batch
    }

    /// Notes where a change of [`Self::take_batch`] stands in the log.
    pub(crate) fn appended(&mut self, proposal: &Proposal, index: u64, term: u64) {
        let bytes = proposal.data.len();
        self.bytes += bytes;
        self.appended.insert(index, Appended { request: proposal.request, term, bytes });
    }

    /// Takes out the change that was appended at `index`, and its term.
    pub(crate) fn take_applied(&mut self, index: u64) -> Option<(RequestId, u64)> {
        let Appended { request, term, .. } = self.remove(index)?;
        Some((request?, term))
    }

    fn remove(&mut self, index: u64) -> Option<Appended> {
        let appended = self.appended.remove(&index)?;
        self.bytes -= appended.bytes;
        Some(appended)
    }

    /// Takes out the changes that were appended in other terms than `term`. They are either all
    /// of one term or gone: this is called before anything is appended in another one.
    pub(crate) fn take_stale(&mut self, term: Option<u64>) -> Vec<RequestId> {
        let mut stale = Vec::new();
        while let Some((index, appended)) = self.appended.first_key_value()
            && Some(appended.term) != term
        {
            let index = *index;
            stale.extend(self.remove(index).and_then(|appended| appended.request));
        }
        stale
    }
}

/// The bound on what waits is reached.
#[derive(Debug)]
pub(crate) struct Overloaded;

/// A question.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) request: RequestId,
    pub(crate) query: Query,
    /// When it was taken in.
    pub(crate) received: Timestamp,
}

/// Questions that share one heartbeat round.
#[derive(Debug)]
struct Round {
    number: u64,
    term: u64,
    /// What must be applied before they are answered, once the round is over.
    index: Option<u64>,
    reads: Vec<Read>,
}

/// All questions that wait.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    waiting: Vec<Read>,
    rounds: VecDeque<Round>,
    rounds_started: u64,
    len: usize,
}

/// How many rounds may be under way: on long links, a question need not wait for the answers to
/// those before it.
const ROUNDS_MAX: usize = 4;

impl Reads {
    pub(crate) fn push(&mut self, read: Read, limits: &Limits) -> Result<(), Overloaded> {
        if self.len >= limits.pending_max {
            return Err(Overloaded);
        }
        self.len += 1;
        self.waiting.push(read);
        Ok(())
    }

    /// Puts all that wait into a new round, if there may be one, and returns its number.
    pub(crate) fn start_round(&mut self, term: u64) -> Option<u64> {
        if self.waiting.is_empty() || self.rounds.len() >= ROUNDS_MAX {
            return None;
        }
        self.rounds_started += 1;
        let number = self.rounds_started;
        let reads = std::mem::take(&mut self.waiting);
        self.rounds.push_back(Round { number, term, index: None, reads });
        Some(number)
    }

    /// Notes that a quorum has confirmed the leader since round `number` began, and that
    /// everything up to `index` was committed by then.
    pub(crate) fn confirm(&mut self, number: u64, index: u64) {
        for round in &mut self.rounds {
            if round.number == number {
                round.index = Some(index);
            }
        }
    }

    /// Takes out the questions that can be answered once `applied` is applied.
    pub(crate) fn take_ready(&mut self, applied: u64) -> Vec<Read> {
        let mut ready = Vec::new();
        while let Some(round) =
            self.rounds.pop_front_if(|round| round.index.is_some_and(|index| index <= applied))
        {
            ready.extend(round.reads);
        }
        self.len -= ready.len();
        ready
    }

    /// Takes out the questions of rounds of other terms than `term`; all, if there is none.
    pub(crate) fn take_stale(&mut self, term: Option<u64>) -> Vec<RequestId> {
        let mut stale = Vec::new();
        while let Some(round) = self.rounds.pop_front_if(|round| Some(round.term) != term) {
            stale.extend(round.reads);
        }
        if term.is_none() {
            stale.append(&mut self.waiting);
        }
        self.len -= stale.len();
        stale.into_iter().map(|read| read.request).collect()
    }
}
