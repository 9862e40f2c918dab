//! What really happened: which writes must never be missing again, and who served when.

use evenkeel_model::time::Timestamp;
use evenkeel_postgres_core::position::Epoch;

use super::postgres::Postgres;

/// One write, by its number.
#[derive(Debug, Clone, Copy, Default)]
struct Write {
    acknowledged: bool,
    /// Whether somebody was told of it: then it must never be missing again.
    known: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Truth {
    writes: Vec<Write>,
    /// The acknowledged writes, in order.
    acknowledged: Vec<usize>,
    reads: usize,
    /// The epochs whose primaries began to serve, with when first.
    opened: Vec<(Epoch, Timestamp)>,
}

impl Truth {
    /// Numbers a write.
    pub(super) fn begin_write(&mut self) -> usize {
        self.writes.push(Write::default());
        self.writes.len() - 1
    }

    pub(super) const fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(super) const fn reads(&self) -> usize {
        self.reads
    }

    pub(super) const fn primaries(&self) -> usize {
        self.opened.len()
    }

    pub(super) fn opened(&mut self, epoch: Epoch, now: Timestamp) {
        if self.opened.last().is_none_or(|(last, _)| *last < epoch) {
            self.opened.push((epoch, now));
        }
    }

    /// A write that was sent at `sent` is acknowledged by the primary of an epoch.
    pub(super) fn acknowledge(
        &mut self,
        write: usize,
        epoch: Epoch,
        sent: Timestamp,
    ) -> Result<(), String> {
        if let Some((later, _)) =
            self.opened.iter().find(|(later, opened)| *later > epoch && *opened < sent)
        {
            return Err(format!(
                "two primaries: write {write} was sent after the primary of epoch {later} began to \
                 serve, and acknowledged by that of epoch {epoch}"
            ));
        }
        (self.writes[write].acknowledged, self.writes[write].known) = (true, true);
        self.acknowledged.push(write);
        Ok(())
    }

    /// A read that began when `before` writes were acknowledged is answered with what was seen.
    pub(super) fn read(
        &mut self,
        seen: &[usize],
        before: usize,
        fresh: bool,
    ) -> Result<(), String> {
        self.reads += 1;
        let mut present = vec![false; self.writes.len()];
        for write in seen {
            present[*write] = true;
            self.writes[*write].known = true;
        }
        let missing = self.acknowledged[..before].iter().find(|write| !present[**write]);
        match missing {
            Some(write) if fresh => Err(format!(
                "stale read: it began after write {write} was acknowledged, and does not show it"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that a log has all that anybody was told of.
    pub(super) fn check_holds(&self, postgres: &Postgres, whose: &str) -> Result<(), String> {
        let mut present = vec![false; self.writes.len()];
        for write in postgres.log.iter().filter_map(|entry| entry.write) {
            present[write] = true;
        }
        for (number, write) in self.writes.iter().enumerate() {
            if write.known && !present[number] {
                let what = if write.acknowledged { "acknowledged" } else { "shown to a reader" };
                return Err(format!("lost: {whose} lacks write {number}, which was {what}"));
            }
        }
        Ok(())
    }
}
