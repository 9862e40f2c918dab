//! Where a log ends, and which logs are beginnings of which.
//!
//! PostgreSQL numbers timelines by itself, and two standbys that are promoted apart take the same
//! number: a standby of one then follows the other without complaint and acknowledges what it does
//! not have. So the store allots the numbers, one to each epoch that chose a primary, and logs are
//! compared by the store's map alone.

/// The reign of one primary. Every attempt to make somebody primary has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before the first primary.
    pub const NONE: Self = Self(0);

    /// Returns the epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// PostgreSQL's number of a branch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(pub u32);

/// A place in the log, in bytes from its beginning (PostgreSQL manual §30.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl std::fmt::Display for Lsn {
    /// As PostgreSQL writes it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// Where a member's log ends. The order is the one in which a primary is chosen: whoever holds
/// something of a later epoch holds all that was acknowledged before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Whose primary wrote the last of it.
    pub epoch: Epoch,
    /// Its end.
    pub lsn: Lsn,
}

/// The log of one epoch's primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// The epoch.
    pub epoch: Epoch,
    /// The number that was allotted to it, never twice.
    pub timeline: Timeline,
    /// Where it leaves which other branch: the position of the member that was chosen.
    pub from: Position,
}

/// Every branch there ever was, the newest last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History(Vec<Branch>);

impl History {
    /// Begins with the branch of a new cluster.
    #[must_use]
    pub fn begin(epoch: Epoch, timeline: Timeline) -> Self {
        let from = Position { epoch: Epoch::NONE, lsn: Lsn(0) };
        Self(vec![Branch { epoch, timeline, from }])
    }

    /// Returns all branches, the oldest first.
    #[must_use]
    pub fn branches(&self) -> &[Branch] {
        &self.0
    }

    /// Allots a timeline to the epoch whose primary goes on from `from`.
    #[must_use]
    pub fn with(&self, epoch: Epoch, from: Position) -> Self {
        debug_assert!(from.epoch < epoch, "a primary goes on from an earlier one's log");
        let highest = self.0.iter().map(|branch| branch.timeline).max();
        let timeline = highest.map_or(Timeline(1), |Timeline(number)| Timeline(number + 1));
        let mut branches = self.0.clone();
        branches.push(Branch { epoch, timeline, from });
        Self(branches)
    }

    /// Returns the branch of an epoch; `None` if the epoch never had a primary.
    #[must_use]
    pub fn branch(&self, epoch: Epoch) -> Option<Branch> {
        self.0.iter().rev().find(|branch| branch.epoch == epoch).copied()
    }

    /// Returns the epoch that a timeline was allotted to.
    #[must_use]
    pub fn epoch_of(&self, timeline: Timeline) -> Option<Epoch> {
        self.0.iter().rev().find(|branch| branch.timeline == timeline).map(|branch| branch.epoch)
    }

    /// Returns how far a log that ends at `position` is the same as the log of `epoch`'s primary.
    /// `None` if one of the two is unknown, so that nothing can be said.
    #[must_use]
    pub fn shared(&self, position: Position, epoch: Epoch) -> Option<Lsn> {
        let mut own = self.branch(position.epoch)?;
        let mut end = position.lsn;
        // Each step leads to an older epoch, on one side or the other.
        let mut other = self.branch(epoch)?;
        let mut other_end = Lsn(u64::MAX);
        while own.epoch != other.epoch {
            if own.epoch > other.epoch {
                end = end.min(own.from.lsn);
                own = self.branch(own.from.epoch)?;
            } else {
                other_end = other_end.min(other.from.lsn);
                other = self.branch(other.from.epoch)?;
            }
        }
        Some(end.min(other_end))
    }

    /// Returns whether a log that ends at `position` is a beginning of the log of `epoch`'s
    /// primary: then it may follow, else it must be rewound.
    #[must_use]
    pub fn is_beginning(&self, position: Position, epoch: Epoch) -> bool {
        self.shared(position, epoch) == Some(position.lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(epoch: u64, lsn: u64) -> Position {
        Position { epoch: Epoch(epoch), lsn: Lsn(lsn) }
    }

    /// Epoch 1 up to 100; epochs 3 and 4 both leave it; epoch 6 leaves epoch 4 at 150.
    fn history() -> History {
        History::begin(Epoch(1), Timeline(1))
            .with(Epoch(3), at(1, 100))
            .with(Epoch(4), at(1, 90))
            .with(Epoch(6), at(4, 150))
    }

    #[test]
    fn numbers_are_allotted_once() {
        let timelines: Vec<u32> =
            history().branches().iter().map(|branch| branch.timeline.0).collect();
        assert_eq!(timelines, [1, 2, 3, 4]);
        assert_eq!(history().epoch_of(Timeline(3)), Some(Epoch(4)));
        assert_eq!(history().epoch_of(Timeline(9)), None);
    }

    #[test]
    fn logs_are_compared_by_the_store_s_map() {
        let history = history();
        for (position, epoch, shared) in [
            (at(1, 80), 1, Some(80)),
            (at(1, 80), 6, Some(80)),
            (at(1, 95), 3, Some(95)),
            // Behind the fork of epoch 4, on the branch that it left.
            (at(1, 95), 4, Some(90)),
            (at(3, 120), 4, Some(90)),
            (at(3, 120), 6, Some(90)),
            (at(4, 150), 6, Some(150)),
            (at(4, 151), 6, Some(150)),
            (at(6, 400), 6, Some(400)),
            // A primary whose follower went further than it did.
            (at(6, 400), 4, Some(150)),
            // An epoch without a primary has no log.
            (at(5, 100), 6, None),
            (at(1, 80), 5, None),
        ] {
            let found = history.shared(position, Epoch(epoch));
            assert_eq!(found, shared.map(Lsn), "{position:?} in the log of {epoch}");
            let is_beginning = shared == Some(position.lsn.0);
            assert_eq!(history.is_beginning(position, Epoch(epoch)), is_beginning);
        }
    }

    #[test]
    fn a_later_epoch_counts_more_than_a_longer_log() {
        assert!(at(4, 100) > at(3, 900));
        assert!(at(4, 101) > at(4, 100));
        assert_eq!(Lsn(0x1_0000_00AB).to_string(), "1/AB");
    }
}
