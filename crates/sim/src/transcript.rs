//! What happened in a run: a digest of all of it, and the last lines in words.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use evenkeel_model::time::Timestamp;

/// How many lines are kept.
const LINES_MAX: usize = 600;

/// The record of one run.
///
/// Words are only made when they are asked for: they cost more than the run itself. Since a seed
/// replays exactly, a run that failed is simply run again, in words.
#[derive(Debug)]
pub struct Transcript {
    digest: u64,
    lines: Option<VecDeque<String>>,
}

impl Transcript {
    /// Starts a record, in words or without.
    #[must_use]
    pub fn new(in_words: bool) -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, lines: in_words.then(VecDeque::new) }
    }

    /// Takes something into the digest: runs that differ anywhere differ in it.
    pub fn digest_number(&mut self, number: u64) {
        self.digest = (self.digest ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// Takes bytes into the digest.
    pub fn digest_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.digest_number(u64::from_le_bytes(word));
        }
        self.digest_number(bytes.len() as u64);
    }

    /// Returns whether lines are kept.
    #[must_use]
    pub const fn is_in_words(&self) -> bool {
        self.lines.is_some()
    }

    /// Writes a line, if there are words.
    pub fn line(&mut self, now: Timestamp, line: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            let micros = now.as_nanos() / 1000;
            let mut text = String::new();
            let written =
                write!(text, "{:>4}.{:06} {line}", micros / 1_000_000, micros % 1_000_000);
            debug_assert!(written.is_ok(), "writing to a string cannot fail");
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(text);
        }
    }

    /// Returns the digest of everything so far.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Returns the last lines.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default().into()
    }
}
