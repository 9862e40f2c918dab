//! A fault in force: what was seen of it, and its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::fault::Target;

use crate::isolate::Isolation;
use crate::journal::{Journal, JournalError};
use crate::pause::Holder;

/// Time within which the effect of a fault must show.
pub(crate) const VERIFY_MAX: Duration = Duration::from_secs(2);
/// Time between two looks.
const VERIFY_EVERY: Duration = Duration::from_millis(10);

/// Whether a fault was seen to take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It was.
    Verified {
        /// What was seen, for the report.
        evidence: String,
    },
    /// It was not: whatever is observed now says nothing about the target.
    Unverified {
        /// What was missing.
        reason: String,
    },
}

/// Reports that a fault could not be ended early. The kernel ends it at the planned time.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// The mechanism of the fault refused.
    #[error("end the fault on {target}: {reason}")]
    Refused {
        /// What it was injected into.
        target: Target,
        /// Who refused and why.
        reason: String,
    },
    /// The fault is over, but the journal does not say so.
    #[error("write the fault journal")]
    Journal(#[from] JournalError),
}

/// How a fault is ended early.
pub(crate) enum Undo {
    Nothing,
    Release(Holder),
    Restore(Isolation),
    Call(Box<dyn FnOnce() + Send>),
}

/// A fault that was injected. Dropping it ends the fault; so does the end of this process.
pub struct Injected {
    journal: Arc<Journal>,
    number: u64,
    target: Target,
    applied: Instant,
    ends: Option<Instant>,
    effect: Effect,
    undo: Option<Undo>,
}

impl std::fmt::Debug for Injected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = formatter.debug_struct("Injected");
        text.field("number", &self.number).field("target", &self.target);
        text.field("effect", &self.effect).finish_non_exhaustive()
    }
}

impl Injected {
    pub(crate) const fn new(
        journal: Arc<Journal>,
        number: u64,
        target: Target,
        (applied, ends): (Instant, Option<Instant>),
        effect: Effect,
        undo: Undo,
    ) -> Self {
        Self { journal, number, target, applied, ends, effect, undo: Some(undo) }
    }

    /// Returns whether the fault was seen to take effect.
    #[must_use]
    pub const fn effect(&self) -> &Effect {
        &self.effect
    }

    /// Returns when its application began.
    #[must_use]
    pub const fn applied(&self) -> Instant {
        self.applied
    }

    /// Returns when it ends by itself; `None` when it has no duration, as a kill.
    #[must_use]
    pub const fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Ends the fault now. A kill has no end: what was killed is started again by others.
    ///
    /// # Errors
    /// See [`UndoError`].
    pub fn undo(mut self) -> Result<(), UndoError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), UndoError> {
        let Some(undo) = self.undo.take() else { return Ok(()) };
        let ended = match undo {
            Undo::Nothing => Ok(()),
            Undo::Release(holder) => holder.release(),
            Undo::Restore(isolation) => isolation.undo(),
            Undo::Call(call) => {
                call();
                Ok(())
            }
        };
        let target = self.target.clone();
        ended.map_err(|reason| UndoError::Refused { target, reason })?;
        Ok(self.journal.end(self.number)?)
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        // The kernel ends at the planned time what cannot be ended now.
        drop(self.finish());
    }
}

/// Looks for the evidence of a fault until it shows or two seconds have passed.
pub(crate) fn await_evidence(mut evidence: impl FnMut() -> Option<String>) -> Effect {
    let deadline = Instant::now() + VERIFY_MAX;
    loop {
        if let Some(evidence) = evidence() {
            return Effect::Verified { evidence };
        }
        if Instant::now() >= deadline {
            let reason = format!("no effect was seen within {VERIFY_MAX:?}");
            return Effect::Unverified { reason };
        }
        std::thread::sleep(VERIFY_EVERY);
    }
}
