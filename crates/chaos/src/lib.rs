//! Breaks things on purpose, proves that they broke, and lets the kernel mend them.
//!
//! Undo does not live in a process. Each fault is tied to a kernel object whose lifetime ends it:
//!
//! | fault | mechanism | ends when |
//! |---|---|---|
//! | kill | `pidfd_send_signal` | at once; whoever supervises starts the target again |
//! | pause | ptrace hold in a child, the holder | its time is over, or it or the injector dies |
//! | isolate | nft set element with a timeout | the kernel's timer expires |
//! | by other means | given by the caller | the caller's mechanism ends it |
//!
//! Every fault is written to the [`Journal`](journal) before it is applied, lasts at most
//! [`HOLD_MAX`], and says with [`Effect`] whether it was seen to take effect. What a target consists
//! of is decided by the caller, and so is whether a fault may be injected at all.
//!
//! A program that uses this crate calls [`run_hidden`] first in its `main`.

mod hold;
mod injected;
mod isolate;
pub mod journal;
mod kill;
mod pause;
mod proc;
mod sys;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::fault::{FaultKind, Target};

pub use hold::Reach;
use injected::Undo;
pub use injected::{Effect, Injected, UndoError};
pub use isolate::Site;
use journal::{Journal, JournalError, Record};

/// Longest time that a fault may last.
pub const HOLD_MAX: Duration = Duration::from_mins(10);

/// First argument of the process that holds paused processes.
const HOLD_COMMAND: &str = "chaos-hold";

/// Reports why a fault was not injected. Nothing is broken then, unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The target has no process or host now.
    #[error("{0} has nothing to strike now")]
    NothingThere(Target),
    /// It would last too long.
    #[error("{wanted:?} is longer than a fault may last, {HOLD_MAX:?}")]
    TooLong {
        /// The wanted time.
        wanted: Duration,
    },
    /// The journal could not be written, so the fault was not applied.
    #[error("write the fault journal")]
    Journal(#[from] JournalError),
    /// A program is missing.
    #[error("the program `{program}` is not installed (package `{package}`)")]
    ProgramMissing {
        /// Its name.
        program: &'static str,
        /// Where Debian has it.
        package: &'static str,
    },
    /// A step was refused. What the steps before it broke has been mended again.
    #[error("{step}: {reason}")]
    Refused {
        /// The step.
        step: &'static str,
        /// Who refused it and why.
        reason: String,
    },
}

/// Injects faults, one journal for all of them.
#[derive(Debug)]
pub struct Chaos {
    journal: Arc<Journal>,
}

/// How a caller applies, proves and ends a fault of its own, such as the cut of a link that it owns.
/// It must end by itself after the planned time.
pub struct Means<'a> {
    /// Applies the fault.
    pub apply: Box<dyn FnOnce() -> Result<(), String> + 'a>,
    /// Returns the evidence once the fault is seen to take effect. Asked again for two seconds.
    pub evidence: Box<dyn FnMut() -> Option<String> + 'a>,
    /// Ends the fault early.
    pub undo: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Means<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Means").finish_non_exhaustive()
    }
}

impl Chaos {
    /// Opens the journal in `folder`, which is made when it does not exist, and returns with it the
    /// faults of an earlier injector that should still be in force on this boot of the machine.
    ///
    /// # Errors
    /// The journal cannot be read or written.
    pub fn open(folder: &Path) -> Result<(Self, Vec<Record>), JournalError> {
        let (journal, unfinished) = Journal::open(folder)?;
        Ok((Self { journal: Arc::new(journal) }, unfinished))
    }

    /// Kills processes. Returns when they are gone, or after two seconds with an unverified effect.
    ///
    /// # Errors
    /// See [`InjectError`].
    pub fn kill(&self, target: &Target, pids: &[i32]) -> Result<Injected, InjectError> {
        let victims = kill::open(pids);
        if victims.is_empty() {
            return Err(InjectError::NothingThere(target.clone()));
        }
        let number = self.note(FaultKind::Kill, target, Duration::ZERO)?;
        let applied = Instant::now();
        let effect = kill::kill(&victims);
        Ok(self.injected(number, target, applied, None, effect, Undo::Nothing))
    }

    /// Stops processes for `hold`: they keep their sockets and answer nothing. `reach` says which
    /// processes besides `pids` belong to them.
    ///
    /// # Errors
    /// See [`InjectError`].
    pub fn pause(
        &self,
        target: &Target,
        pids: &[i32],
        reach: Reach,
        hold: Duration,
    ) -> Result<Injected, InjectError> {
        if pids.is_empty() {
            return Err(InjectError::NothingThere(target.clone()));
        }
        let number = self.note(FaultKind::Pause, target, hold)?;
        let applied = Instant::now();
        let holder = match pause::start(pids, reach, hold) {
            Ok(holder) => holder,
            Err(reason) => {
                self.journal.end(number)?;
                return Err(InjectError::Refused { step: "hold the processes", reason });
            }
        };
        let effect = pause::verify(holder.reply());
        let ends = Some(applied + hold);
        Ok(self.injected(number, target, applied, ends, effect, Undo::Release(holder)))
    }

    /// Cuts hosts off for `hold`: no packet enters or leaves them except between each other (see
    /// [`Site::kept`]). `answers` asks from outside whether the site with this index is reached.
    ///
    /// # Errors
    /// See [`InjectError`].
    pub fn isolate(
        &self,
        target: &Target,
        sites: Vec<Site>,
        hold: Duration,
        answers: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Injected, InjectError> {
        if sites.is_empty() {
            return Err(InjectError::NothingThere(target.clone()));
        }
        let nft = isolate::find_nft()
            .ok_or(InjectError::ProgramMissing { program: "nft", package: "nftables" })?;
        let answered_before = (0..sites.len()).all(&mut *answers);
        let number = self.note(FaultKind::Isolate, target, hold)?;
        let isolation = isolate::Isolation::new(nft, number, sites);
        let applied = Instant::now();
        if let Err(reason) = isolation.apply(hold) {
            let undone = isolation.undo();
            self.journal.end(number)?;
            let reason = undone.err().map_or(reason.clone(), |rest| format!("{reason}; {rest}"));
            return Err(InjectError::Refused { step: "drop packets with `nft`", reason });
        }
        let effect = if answered_before {
            isolation.verify(answers)
        } else {
            let reason = "the target did not answer from outside even before the fault";
            Effect::Unverified { reason: reason.to_owned() }
        };
        let ends = Some(applied + hold);
        Ok(self.injected(number, target, applied, ends, effect, Undo::Restore(isolation)))
    }

    /// Injects a fault by the caller's own means.
    ///
    /// # Errors
    /// See [`InjectError`].
    pub fn inject(
        &self,
        kind: FaultKind,
        target: &Target,
        hold: Duration,
        means: Means<'_>,
    ) -> Result<Injected, InjectError> {
        let number = self.note(kind, target, hold)?;
        let applied = Instant::now();
        if let Err(reason) = (means.apply)() {
            self.journal.end(number)?;
            return Err(InjectError::Refused { step: "apply the fault", reason });
        }
        let effect = injected::await_evidence(means.evidence);
        let ends = Some(applied + hold);
        Ok(self.injected(number, target, applied, ends, effect, Undo::Call(means.undo)))
    }

    /// Writes a fault to the journal before it is applied.
    fn note(&self, kind: FaultKind, target: &Target, hold: Duration) -> Result<u64, InjectError> {
        if hold > HOLD_MAX {
            return Err(InjectError::TooLong { wanted: hold });
        }
        Ok(self.journal.begin(kind, target, hold)?)
    }

    fn injected(
        &self,
        number: u64,
        target: &Target,
        applied: Instant,
        ends: Option<Instant>,
        effect: Effect,
        undo: Undo,
    ) -> Injected {
        let journal = Arc::clone(&self.journal);
        Injected::new(journal, number, target.clone(), (applied, ends), effect, undo)
    }
}

/// Runs this crate's own part of the program when `arguments` (without the program's name) ask for
/// it. `None` means that the program was called for something else.
#[must_use]
pub fn run_hidden(arguments: &[OsString]) -> Option<ExitCode> {
    (arguments.first()?.to_str()? == HOLD_COMMAND).then(hold::run)
}
