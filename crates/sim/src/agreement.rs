//! What must never happen, watched from outside at every step.

use std::collections::BTreeMap;
use std::ops::Bound;

use evenkeel_checker::history::Operation;
use evenkeel_checker::survival::{Contents, Entry as Held};
use evenkeel_checker::{linearizability, survival};
use evenkeel_consensus::command::Space;
use evenkeel_consensus::log::{Entry, State};
use evenkeel_consensus::members::Members;
use evenkeel_consensus::replica::{Persist, Replica};
use evenkeel_consensus::settings::MemberId;
use evenkeel_model::time::Timestamp;

use crate::clients::Finished;

/// How many operations the search for an order tries on each key.
const SEARCH_STEPS: usize = 200_000;

/// States are compared at every so many entries: encoding them takes longer than applying them.
const STATE_EVERY: u64 = 8;

/// What is known of all members together.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    /// Who led in each term.
    leaders: BTreeMap<u64, MemberId>,
    /// Every entry that some member has applied: its term and a hash of its data.
    committed: BTreeMap<u64, (u64, u64)>,
    /// A hash of the key space after some of them.
    states: BTreeMap<u64, u64>,
    /// Who took part after some of them.
    members: BTreeMap<u64, Members>,
}

/// One member's log, as it has told its shell to write it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogView {
    entries: BTreeMap<u64, (u64, u64)>,
    applied: u64,
}

impl LogView {
    pub(crate) fn restored(entries: &[Entry], applied: u64) -> Self {
        let entries = entries.iter().map(|entry| (entry.index, summary(entry))).collect();
        Self { entries, applied }
    }

    pub(crate) fn persist(&mut self, persist: &Persist) {
        if persist.snapshot.is_some() {
            self.entries.clear();
        }
        if let Some(first) = persist.entries.first() {
            drop(self.entries.split_off(&first.index));
        }
        self.entries.extend(persist.entries.iter().map(|entry| (entry.index, summary(entry))));
    }
}

fn summary(entry: &Entry) -> (u64, u64) {
    (entry.term, hash(&entry.data))
}

/// Returns a number that differs for other bytes.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut transcript = crate::transcript::Transcript::new(false);
    transcript.digest_bytes(bytes);
    transcript.digest()
}

impl Invariants {
    /// Checks one member after it has moved.
    pub(crate) fn check(
        &mut self,
        member: MemberId,
        replica: &Replica,
        log: &mut LogView,
    ) -> Result<(), String> {
        if replica.leader() == Some(member) {
            self.check_leader(member, replica.term(), log)?;
        }
        let applied = replica.applied();
        if applied < log.applied {
            return Err(format!("{member} went back from entry {} to {applied}", log.applied));
        }
        let new = (Bound::Excluded(log.applied), Bound::Included(applied));
        for (index, found) in log.entries.range(new) {
            let known = self.committed.entry(*index).or_insert(*found);
            if known != found {
                let terms = format!("of term {}, others of term {}", found.0, known.0);
                return Err(format!("{member} applied another entry {index}: {terms}"));
            }
        }
        if applied > log.applied && applied.is_multiple_of(STATE_EVERY) {
            let state = hash(&replica.keys().encode());
            if *self.states.entry(applied).or_insert(state) != state {
                return Err(format!("{member} holds another state after entry {applied}"));
            }
        }
        log.applied = applied;
        Ok(())
    }

    /// Who takes part at a position is the same for all, and one step at most is under way.
    pub(crate) fn check_members(&mut self, state: &State) -> Result<(), String> {
        let State { index, members, .. } = state;
        let known = self.members.entry(*index).or_insert_with(|| members.clone());
        if known != members {
            return Err(format!("two groups after entry {index}: {known:?} and {members:?}"));
        }
        let new = members.voters.iter().filter(|voter| !members.outgoing.contains(voter)).count();
        let old = members.outgoing.iter().filter(|voter| !members.voters.contains(voter)).count();
        if members.is_joint() && (new > 1 || old > 1) {
            return Err(format!("more than one change at once after entry {index}: {members:?}"));
        }
        Ok(())
    }

    /// There is one leader a term, and it has every committed entry.
    fn check_leader(&mut self, member: MemberId, term: u64, log: &LogView) -> Result<(), String> {
        match self.leaders.insert(term, member) {
            Some(other) if other == member => return Ok(()),
            Some(other) => return Err(format!("{other} and {member} both lead in term {term}")),
            None => {}
        }
        for (index, known) in self.committed.range(log.applied + 1..) {
            // An entry of the leader's own term was committed by itself, since.
            if known.0 < term && log.entries.get(index) != Some(known) {
                return Err(format!("{member} leads in term {term} without entry {index}"));
            }
        }
        Ok(())
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.last_key_value().map_or(0, |(index, _)| *index)
    }

    pub(crate) fn terms(&self) -> usize {
        self.leaders.len()
    }
}

/// Judges what the clients saw, after the end.
pub(crate) fn judge(
    finished: &[Finished],
    replicas: &[(MemberId, &Replica)],
) -> Result<(), String> {
    check_store_revisions(finished)?;
    let operations: Vec<Operation> =
        finished.iter().map(|finished| finished.operation.clone()).collect();
    let verdict = linearizability::check(&operations, SEARCH_STEPS);
    if let Some(violation) = verdict.violations.first() {
        return Err(violation.to_string());
    }
    let members: Vec<Contents> = replicas
        .iter()
        .map(|(member, replica)| {
            let entries = replica.keys().prefix(Space::User, "").map(|(key, version)| {
                let value = String::from_utf8_lossy(&version.value).into_owned();
                (key.to_owned(), Held { value, revision: version.revision })
            });
            Contents { member: member.to_string(), entries: entries.collect() }
        })
        .collect();
    match survival::check(&operations, &members).violations.first() {
        Some(violation) => Err(violation.to_string()),
        None => Ok(()),
    }
}

/// The store counts its changes over all keys: an operation that begins after another one ended
/// cannot have seen an older store, on whichever keys they were.
fn check_store_revisions(finished: &[Finished]) -> Result<(), String> {
    let mut by_return: Vec<&Finished> =
        finished.iter().filter(|finished| finished.store_revision.is_some()).collect();
    let mut by_invocation = by_return.clone();
    by_return.sort_by_key(|finished| finished.operation.returned);
    by_invocation.sort_by_key(|finished| finished.operation.invoked);
    let mut returned = by_return.into_iter().peekable();
    let mut newest: Option<&Finished> = None;
    for later in by_invocation {
        let ended = |earlier: &&Finished| earlier.operation.returned < later.operation.invoked;
        while let Some(earlier) = returned.next_if(ended) {
            if newest.is_none_or(|newest| newest.store_revision < earlier.store_revision) {
                newest = Some(earlier);
            }
        }
        let Some(earlier) = newest else { continue };
        let own_change = later.operation.is_write();
        if later.store_revision < earlier.store_revision
            || own_change && later.store_revision == earlier.store_revision
        {
            let (key, other) = (&later.operation.key, &earlier.operation.key);
            return Err(format!(
                "[{}] on `{key}` saw revision {:?} of the store, but [{}] on `{other}`, which had \
                 ended before, saw {:?}",
                later.operation, later.store_revision, earlier.operation, earlier.store_revision,
            ));
        }
    }
    Ok(())
}

/// Returns how many operations were acknowledged after `since`, by how many clients.
pub(crate) fn progress(finished: &[&[Finished]], since: Timestamp) -> usize {
    let active = |finished: &&&[Finished]| {
        finished.iter().any(|finished| {
            finished.operation.invoked > since
                && finished.operation.outcome == evenkeel_checker::history::Outcome::Ok
        })
    };
    finished.iter().filter(active).count()
}
