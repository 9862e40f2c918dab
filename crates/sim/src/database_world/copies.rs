//! Rewinding and cloning: what a member that differs takes from the primary.

use std::time::Duration;

use evenkeel_postgres_core::quorum::Member;
use evenkeel_postgres_core::settings::Defect;

use super::World;
use super::postgres::{Data, Entry, Postgres, Server};

impl World {
    /// Begins to copy. Until it is done the folder is worth nothing.
    pub(super) fn begin_copy(&mut self, host: usize, from: Member) -> Duration {
        self.kill_postgres(host);
        let source = self.source(host, from).cloned();
        let it = &mut self.hosts[host];
        it.copies = true;
        it.postgres.run += 1;
        it.postgres.data = Data::Torn;
        if it.defect == Some(Defect::RewindCounts)
            && let Some(source) = source
        {
            half_copy(&mut it.postgres, &source);
        }
        self.effort(200, 1200)
    }

    pub(super) fn copied(&mut self, host: usize, from: Member) {
        let Some(source) = self.source(host, from).cloned() else { return };
        self.copies += 1;
        self.hosts[host].postgres.copy(&source);
    }

    /// Returns the primary from which to copy, if it can be reached and is the one of the epoch.
    fn source(&mut self, host: usize, from: Member) -> Option<&Postgres> {
        let from = self.index(from);
        self.link(host, from)?;
        self.link(from, host)?;
        let epoch = self.hosts[host].kept.as_ref()?.record.epoch;
        let source = &self.hosts[from];
        let leads =
            matches!(&source.postgres.server, Server::Primary(primary) if primary.epoch == epoch);
        (leads && source.stopped_until <= self.now).then_some(&source.postgres)
    }
}

/// What a rewind leaves that ends in its middle: the control file is the source's, the rest not.
fn half_copy(postgres: &mut Postgres, source: &Postgres) {
    let own = postgres.log.len() / 2;
    let hole = |entry: &Entry| Entry { write: None, ..*entry };
    let half = postgres.log.iter().take(own).copied();
    let rest = source.log[..source.flushed].iter().skip(own).map(hole);
    let log: Vec<Entry> = half.chain(rest).collect();
    postgres.copy(source);
    postgres.log = log;
    postgres.flushed = postgres.log.len();
}
