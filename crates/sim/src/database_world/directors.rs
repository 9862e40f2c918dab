//! The store, and two coordinators that both believe to lead: the slower one's changes are
//! refused, because the record has changed.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::time::Timestamp;
use evenkeel_postgres_core::director::{Director, Places};
use evenkeel_postgres_core::member::{Report, Seen};
use evenkeel_postgres_core::quorum::Member;
use evenkeel_postgres_core::record::Phase;
use evenkeel_postgres_core::settings::{Defect, Patience};

use super::World;
use super::happening::Happening;

/// Times of the directors, short for a short storm.
const PATIENCE: Patience = Patience {
    missing_after: Duration::from_millis(750),
    start_max: Duration::from_secs(3),
    shrink_after: Duration::from_millis(1200),
};

/// Returns where the members stand: three apart, or five as two, two and one.
pub(super) fn places(count: usize) -> Places {
    let members = || (0..).map(Member).take(count);
    let domain = |Member(number): Member| if count > 3 { number / 2 } else { number };
    Places {
        domains: members().map(|member| (member, domain(member))).collect(),
        ranks: members().map(|member| (member, member.0)).collect(),
    }
}

/// A coordinator with its director.
#[derive(Debug)]
pub(super) struct Site {
    director: Director,
    count: usize,
    defect: Option<Defect>,
    /// What each host was last sent.
    told: BTreeMap<usize, (u64, Timestamp)>,
}

impl Site {
    pub(super) fn new(count: usize, defect: Option<Defect>) -> Self {
        let director = Director::new(PATIENCE, places(count), defect, Timestamp::ZERO);
        Self { director, count, defect, told: BTreeMap::new() }
    }

    pub(super) fn hear(&mut self, member: Member, report: Report, now: Timestamp) {
        self.director.hear(member, report, now);
    }

    /// Another coordinator leads, and knows nothing yet.
    pub(super) fn restart(&mut self, now: Timestamp) {
        self.director = Director::new(PATIENCE, places(self.count), self.defect, now);
        self.told.clear();
    }
}

impl World {
    /// A director looks at the record, and wants it to be another one.
    pub(super) fn direct(&mut self, director: usize) {
        let delay = self.effort(30, 90).max(Duration::from_millis(6));
        self.after(delay, Happening::Direct { director });
        if self.store_until > self.now {
            return;
        }
        self.publish(director);
        let Seen { revision, record } = &self.store;
        let revision = *revision;
        if let Some(record) = self.directors[director].director.decide(record, self.now) {
            let delay = self.millis(1, 6);
            let seen = Seen { revision: revision + 1, record };
            self.after(delay, Happening::Change { director, revision, seen });
        }
    }

    /// A compare-and-set arrives at the store.
    pub(super) fn change(
        &mut self,
        director: usize,
        revision: u64,
        seen: Seen,
    ) -> Result<(), String> {
        if self.store_until > self.now || self.store.revision != revision {
            return Ok(());
        }
        let record = &seen.record;
        self.say(format_args!(
            "the store: epoch {} {:?}, primary {}, writes {:?}, elections {:?}",
            record.epoch, record.phase, record.primary, record.goal.set, record.counted
        ));
        let serves = record.phase == Phase::Running && self.store.record.phase == Phase::Starting;
        (self.store, self.changed_at) = (seen, self.now);
        if serves {
            let primary = &self.hosts[self.index(self.store.record.primary)];
            // It may have lost its disk since it reported.
            if primary.is_in_place(&self.store.record) {
                self.truth.check_holds(&primary.postgres, "the primary that is to serve")?;
            }
        }
        self.publish(director);
        self.lie_in_wait();
        Ok(())
    }

    /// Sends the record to whoever may not have it.
    fn publish(&mut self, director: usize) {
        let (revision, now) = (self.store.revision, self.now);
        for host in 0..self.hosts.len() {
            let told = self.directors[director].told.get(&host).copied();
            let fresh = told.is_some_and(|(known, at)| {
                known == revision && now.since(at) < Duration::from_millis(200)
            });
            if fresh {
                continue;
            }
            if let Some(delay) = self.link_from_site(director, host) {
                self.directors[director].told.insert(host, (revision, now));
                let seen = self.store.clone();
                self.after(delay, Happening::Hear { host, seen });
            }
        }
    }
}
