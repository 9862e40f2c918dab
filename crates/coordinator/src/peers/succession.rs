//! Who is of the same lineage, and whether there is a later one.

use std::sync::Arc;

use evenkeel_consensus::lineage::Lineage;
use tokio::sync::watch;

/// To which lineage this member's state belongs, and the latest one that it has heard of.
#[derive(Debug)]
pub(crate) struct Succession {
    own: watch::Sender<Option<Lineage>>,
    later: watch::Sender<Option<Lineage>>,
}

impl Succession {
    pub(crate) fn new(own: Option<Lineage>) -> Arc<Self> {
        Arc::new(Self { own: watch::Sender::new(own), later: watch::Sender::new(None) })
    }

    /// Returns the lineage of this member's state; `None` while it has none.
    pub(crate) fn own(&self) -> Option<Lineage> {
        *self.own.borrow()
    }

    /// Takes note that this member has a state, of this lineage.
    pub(crate) fn adopt(&self, lineage: Lineage) {
        self.own.send_if_modified(|own| own.replace(lineage) != Some(lineage));
    }

    /// Takes note of another member's lineage. Returns whether the two may speak: one that has no
    /// state yet takes it from anybody.
    pub(crate) fn hear(&self, theirs: Option<Lineage>) -> bool {
        let (Some(own), Some(theirs)) = (self.own(), theirs) else { return true };
        if theirs > own {
            self.later.send_if_modified(|later| {
                let news = Some(theirs) > *later;
                *later = (*later).max(Some(theirs));
                news
            });
        }
        theirs == own
    }

    /// Returns the latest lineage behind this member's own, and its changes.
    pub(crate) fn later(&self) -> watch::Receiver<Option<Lineage>> {
        self.later.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_lineage_is_noted_and_an_earlier_one_refused() {
        let succession = Succession::new(None);
        let later = succession.later();
        assert!(succession.hear(Some(Lineage(7))), "it has no state and takes any");
        succession.adopt(Lineage(5));
        assert!(succession.hear(Some(Lineage(5))) && succession.hear(None));
        assert!(!succession.hear(Some(Lineage(4))));
        assert_eq!(*later.borrow(), None);
        assert!(!succession.hear(Some(Lineage(9))) && !succession.hear(Some(Lineage(8))));
        assert_eq!(*later.borrow(), Some(Lineage(9)));
    }
}
