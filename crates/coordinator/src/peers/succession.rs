//! Of which lineage this member's state is, and whether it has heard of a later one.

use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_consensus::lineage::{Lineage, Meeting, meet};
use tokio::sync::watch;

/// What the links and the driver of a member share of its lineage.
#[derive(Debug)]
pub(crate) struct Succession {
    own: Mutex<Option<Lineage>>,
    later: watch::Sender<Option<Lineage>>,
}

impl Succession {
    pub(crate) fn new(own: Option<Lineage>) -> Arc<Self> {
        Arc::new(Self { own: Mutex::new(own), later: watch::Sender::new(None) })
    }

    /// Returns the lineage of this member's state; `None` while it has none.
    pub(crate) fn own(&self) -> Option<Lineage> {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that this member has a state, of this lineage.
    pub(crate) fn adopt(&self, lineage: Lineage) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(lineage);
    }

    /// Takes note of the lineage of another member of this system. Returns whether the two may
    /// speak.
    pub(crate) fn hear(&self, theirs: Option<Lineage>) -> bool {
        let meeting = meet(self.own(), theirs);
        if meeting == Meeting::Later {
            self.later.send_replace(theirs);
        }
        meeting == Meeting::Kin
    }

    /// Returns a later lineage than this member's own, once it has heard of one.
    pub(crate) fn later(&self) -> watch::Receiver<Option<Lineage>> {
        self.later.subscribe()
    }
}
