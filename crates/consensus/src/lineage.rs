//! Going on with one member alone, when a majority is gone for good.
//!
//! Nobody can do this by a protocol: it gives up the promise that an acknowledged change is never
//! lost, since a majority may have agreed on changes that the survivor was never sent. So a person
//! says it, once, of one member. From then on that member's state is a *lineage* of its own: no
//! member of an earlier one takes part in it with the log that it has, and each begins anew once it
//! hears of the later one.

use std::cmp::Ordering;
use std::fmt;

use crate::keys::KeySpace;
use crate::log::{EntryKind, Snapshot};
use crate::members::Members;
use crate::restore::{RestoreError, Restored, join_log, restore_keys};
use crate::settings::{MemberId, StateLimits};
use crate::wire::decode_command;

/// Which line of succession a state belongs to. A later one is greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub u64);

impl Lineage {
    /// The one that every system begins with.
    pub const FIRST: Self = Self(0);

    /// Returns one that follows this one. Two survivors that do not know of each other get
    /// different ones if their random numbers differ.
    #[must_use]
    pub const fn next(self, random: u32) -> Self {
        Self((((self.0 >> 32) + 1) << 32) | random as u64)
    }
}

/// What it means to a member that another one is of some lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// They may speak.
    Kin,
    /// The other one's state is given up: it must not be listened to.
    Earlier,
    /// This member's own state is given up: it must take part no more.
    Later,
}

/// Judges a meeting; `None` is the lineage of a member that has no state yet and takes it from
/// anybody.
#[must_use]
pub fn meet(own: Option<Lineage>, theirs: Option<Lineage>) -> Meeting {
    let (Some(own), Some(theirs)) = (own, theirs) else { return Meeting::Kin };
    match theirs.cmp(&own) {
        Ordering::Equal => Meeting::Kin,
        Ordering::Less => Meeting::Earlier,
        Ordering::Greater => Meeting::Later,
    }
}

impl fmt::Display for Lineage {
    /// `2.9c3f01ab`: how many there were before, and what tells it from others of that number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, random) = (self.0 >> 32, self.0 & u64::from(u32::MAX));
        if random == 0 { write!(f, "{count}") } else { write!(f, "{count}.{random:08x}") }
    }
}

/// What a member holds that goes on alone: everything in its log, whether or not it knows that the
/// others agreed. What was acknowledged and has come this far is so kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// The keys, with the whole log applied.
    pub keys: KeySpace,
    /// The last entry of the log.
    pub index: u64,
    /// How many entries at its end this member did not know to be agreed.
    pub unsure: u64,
    /// The latest term that it has seen.
    seen: u64,
}

/// Why a member can't go on alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SurvivorError {
    /// It has nothing to go on from.
    #[error("it holds nothing: it was never sent the store")]
    Empty,
    /// It had lost its log and was not sent everything again.
    #[error("it had lost its log and was not yet sent everything again")]
    Rejoining,
    /// What its disk holds can't be used.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl Survivor {
    /// Puts together what a member holds.
    ///
    /// # Errors
    /// Why it must not go on alone.
    pub fn examine(restored: Restored, limits: StateLimits) -> Result<Self, SurvivorError> {
        let Restored { vote, snapshot, entries, rejoining } = restored;
        if rejoining {
            return Err(SurvivorError::Rejoining);
        }
        if snapshot.is_none() && entries.is_empty() {
            return Err(SurvivorError::Empty);
        }
        let (mut keys, base) = restore_keys(snapshot.as_ref(), limits)?;
        let entries = join_log(base, entries)?.entries;
        let behind = || entries.iter().filter(|entry| entry.index > base.index);
        for entry in behind().filter(|entry| entry.kind == EntryKind::Command) {
            // What is not understood changes nothing, as everywhere.
            if let Ok(command) = decode_command(&entry.data) {
                keys.apply(command);
            }
        }
        let (index, term) =
            behind().last().map_or((base.index, base.term), |last| (last.index, last.term));
        let agreed = vote.map_or(0, |vote| vote.commit).max(base.index);
        if agreed > index {
            return Err(RestoreError::Lost { commit: agreed, last: index }.into());
        }
        let seen = vote.map_or(0, |vote| vote.term).max(term);
        Ok(Self { keys, index, unsure: index - agreed, seen })
    }

    /// Returns what the member goes on from, alone, as the only voter of another lineage.
    #[must_use]
    pub fn succeed(mut self, member: MemberId, lineage: Lineage) -> Snapshot {
        self.keys.begin(lineage);
        Snapshot {
            index: self.index + 1,
            term: self.seen + 1,
            members: Members::of_voters([member]),
            data: self.keys.encode().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Answer;
    use crate::command::{Change, Command, Expect, Query, Space};
    use crate::log::{Entry, Vote};
    use crate::wire::encode_command;
    use prost::bytes::Bytes;

    const LIMITS: StateLimits = StateLimits::STANDARD;

    fn put(index: u64, term: u64, value: &'static str) -> Entry {
        let command = Command::once(Change::Put {
            space: Space::User,
            key: "a".to_owned(),
            value: Bytes::from_static(value.as_bytes()),
            expect: Expect::Any,
            lease: None,
        });
        Entry { index, term, kind: EntryKind::Command, data: encode_command(command).into() }
    }

    fn restored(commit: u64, entries: Vec<Entry>) -> Restored {
        let data = KeySpace::new(LIMITS).encode().into();
        let members = Members::of_voters([1, 2, 3].map(MemberId));
        let snapshot = Snapshot { index: 1, term: 1, members, data };
        let vote = Vote { term: 5, member: None, commit };
        Restored { vote: Some(vote), snapshot: Some(snapshot), entries, rejoining: false }
    }

    #[test]
    fn everything_in_the_log_is_kept() {
        let log = vec![put(2, 2, "1"), put(3, 2, "2"), put(4, 3, "3")];
        let survivor = Survivor::examine(restored(2, log), LIMITS).unwrap();
        assert_eq!((survivor.index, survivor.unsure), (4, 2));
        let before = survivor.keys.revision();
        let lineage = Lineage::FIRST.next(7);
        let snapshot = survivor.succeed(MemberId(2), lineage);
        assert_eq!((snapshot.index, snapshot.term), (5, 6));
        assert_eq!(snapshot.members, Members::of_voters([MemberId(2)]));
        let keys = KeySpace::decode(&snapshot.data, LIMITS).unwrap();
        assert_eq!(keys.get(Space::User, "a").unwrap().value, "3");
        assert_eq!(keys.lineage(), lineage);
        assert!(keys.revision() > before + 1_000_000);
        let changes = Query::Changes { prefix: String::new(), after: before, limit: 9 };
        let forgotten = Answer::Compacted { oldest: keys.revision() };
        assert_eq!(keys.query(&changes), forgotten, "who watched may have seen other changes");
    }

    #[test]
    fn a_member_that_may_lack_what_it_held_does_not_go_on_alone() {
        let check = |restored: Restored, expected: SurvivorError| {
            assert_eq!(Survivor::examine(restored, LIMITS), Err(expected));
        };
        check(Restored::default(), SurvivorError::Empty);
        check(Restored { rejoining: true, ..restored(1, Vec::new()) }, SurvivorError::Rejoining);
        let lost = RestoreError::Lost { commit: 3, last: 2 };
        check(restored(3, vec![put(2, 2, "1")]), lost.into());
        let gap = RestoreError::Gap { last: 1, next: 3 };
        check(restored(1, vec![put(3, 2, "1")]), gap.into());
    }

    #[test]
    fn a_later_lineage_is_greater() {
        let second = Lineage::FIRST.next(9);
        let third = second.next(1);
        assert!(Lineage::FIRST < second && second < third);
        assert_ne!(second, Lineage::FIRST.next(8));
        assert_eq!(meet(Some(second), Some(second)), Meeting::Kin);
        assert_eq!(meet(Some(second), Some(Lineage::FIRST)), Meeting::Earlier);
        assert_eq!(meet(Some(second), Some(third)), Meeting::Later);
        assert_eq!([meet(None, Some(third)), meet(Some(second), None)], [Meeting::Kin; 2]);
        assert_eq!([Lineage::FIRST, second].map(|it| it.to_string()), ["0", "1.00000009"]);
    }
}
