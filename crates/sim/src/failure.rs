//! A run in which something happened that must never happen.

use std::fmt;

use evenkeel_model::time::Timestamp;

use crate::options::Options;
use crate::transcript::Transcript;

/// Everything that is needed to see it again.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which world.
    pub world: &'static str,
    /// Its seed.
    pub seed: u64,
    /// The options that differ from the standard ones, as arguments of the command.
    pub arguments: String,
    /// When it was seen, in the world's time.
    pub at: Timestamp,
    /// What must never happen.
    pub violation: String,
    /// The last lines of the transcript.
    pub transcript: Vec<String>,
}

impl Failure {
    /// Tells what a run came to that ended with a violation.
    pub(crate) fn new<D: fmt::Debug>(
        (world, seed, options): (&'static str, u64, Options<D>),
        at: Timestamp,
        violation: String,
        transcript: Transcript,
    ) -> Box<Self> {
        let (arguments, transcript) = (options.to_string(), transcript.into_lines());
        Box::new(Self { world, seed, arguments, at, violation, transcript })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.transcript {
            writeln!(formatter, "{line}")?;
        }
        let Self { world, seed, arguments, at, violation, .. } = self;
        let millis = at.as_nanos() / 1_000_000;
        writeln!(formatter, "violation after {millis} ms of virtual time: {violation}")?;
        write!(formatter, "replay: cargo xtask sim --world {world} --seed {seed}{arguments}")
    }
}

impl std::error::Error for Failure {}

/// Runs what a seed decides wholly; once more, in words, if it fails.
pub(crate) fn replayed<R>(
    run: impl Fn(Transcript) -> Result<R, Box<Failure>>,
) -> Result<R, Box<Failure>> {
    match run(Transcript::new(false)) {
        Ok(report) => Ok(report),
        Err(_) => match run(Transcript::new(true)) {
            Err(failure) => Err(failure),
            Ok(_) => unreachable!("a seed replays its run exactly"),
        },
    }
}
