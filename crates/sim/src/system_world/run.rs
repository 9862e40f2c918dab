//! The course of a run: storm, healing, calm, verdict.

use std::time::Duration;

use evenkeel_consensus::replica::{Event, Replica};
use evenkeel_consensus::settings::MemberId;
use evenkeel_model::instance::InstancePhase;
use evenkeel_model::time::Timestamp;

use super::happening::Happening;
use super::{NAME, Report, World, member_of};
use crate::agreement;
use crate::clients::Finished;
use crate::failure::Failure;

/// How long things break.
const STORM: Duration = Duration::from_secs(12);

/// How soon after healing every client must have been served, and the leader must report full
/// redundancy. What has failed ten times in a row waits for up to 30 s.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// How long what is left over then has to go: replicas that drain, then late messages.
const DRAINING_MAX: Duration = Duration::from_secs(20);
const SETTLING: Duration = Duration::from_secs(2);

/// How often the leader changes in the calm, and the time between two changes.
const CALM_ELECTIONS: usize = 2;
const CALM_TERM: Duration = Duration::from_secs(3);

/// How long requests under way have to end, and members to catch up.
const QUIET: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn run(mut self) -> Result<Report, Box<Failure>> {
        self.unfold().map_err(|violation| {
            let run = (NAME, self.seed, self.options);
            Failure::new(run, self.now, violation, self.transcript)
        })
    }

    fn unfold(&mut self) -> Result<Report, String> {
        self.begin();
        self.run_until(Timestamp::ZERO + STORM)?;
        self.heal();
        let recovery = self.recover()?;
        self.drain()?;
        self.run_until(self.now + SETTLING)?;
        self.check_spread();
        let plan = self.newest_plan();
        for _ in 0..CALM_ELECTIONS {
            self.hand_over();
            self.run_until(self.now + CALM_TERM)?;
        }
        if self.newest_plan() != plan && self.habits.clocks_hold() {
            return Err("a change of leader alone made a new plan".to_owned());
        }
        self.closed = true;
        self.run_until(self.now + QUIET)?;
        self.judge(recovery)
    }

    /// Starts every host and everybody who wants something of it.
    pub(super) fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            let wait = self.draw_millis(0, 800);
            self.after(wait, Happening::Boot { host });
        }
        for client in 0..self.clients.len() + self.holders.len() {
            let wait = self.draw_millis(500, 2500);
            self.after(wait, Happening::Send { client });
        }
        let wait = self.draw_millis(1500, 4000);
        self.after(wait, Happening::Break);
    }

    /// Lets everything happen that is due until `end`, or until something must not have happened.
    pub(super) fn run_until(&mut self, end: Timestamp) -> Result<(), String> {
        while let Some((at, happening)) = self.agenda.next(end) {
            self.now = at;
            self.transcript.digest_number(at.as_nanos());
            self.happen(happening);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
        }
        self.now = self.now.max(end);
        self.violation.take().map_or(Ok(()), Err)
    }

    /// Goes on until all is as it was wanted, and returns how long that took.
    fn recover(&mut self) -> Result<Duration, String> {
        let healed = self.now;
        loop {
            let finished: Vec<&[Finished]> =
                self.clients.iter().map(|client| client.finished.as_slice()).collect();
            let served = agreement::progress(&finished, healed);
            let count = self.clients.len();
            if served == count && self.is_whole() {
                return Ok(self.now.since(healed));
            }
            if self.now >= healed + RECOVERY_MAX {
                return Err(if served < count {
                    format!(
                        "{served} of {count} clients were served {RECOVERY_MAX:?} after healing"
                    )
                } else {
                    let missing = self.missing();
                    format!("no full redundancy {RECOVERY_MAX:?} after healing: {missing}")
                });
            }
            self.run_until(self.now + Duration::from_millis(100))?;
        }
    }

    /// Goes on until nothing drains any more.
    fn drain(&mut self) -> Result<(), String> {
        let whole = self.now;
        let drains = |world: &Self| {
            let plan = world.plans.last_key_value().map(|(_, plan)| plan);
            let mut instances = plan.into_iter().flat_map(|plan| &plan.instances);
            instances.any(|instance| instance.phase == InstancePhase::Draining)
        };
        while drains(self) {
            if self.now >= whole + DRAINING_MAX {
                return Err(format!("replicas drain for more than {DRAINING_MAX:?}"));
            }
            self.run_until(self.now + Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Asks whoever leads to let another voter lead.
    pub(super) fn hand_over(&mut self) {
        let Some(leader) = self.leading_host() else { return };
        let place = self.voters.iter().position(|voter| *voter == leader).unwrap_or(0);
        let to = self.voters[(place + 1) % self.voters.len()];
        let name = &self.names[to];
        self.transcript.line(self.now, format_args!("{name}: is to lead"));
        self.arrive(leader, Event::TransferLeadership { to: member_of(to) });
    }

    /// Returns the host whose member leads.
    pub(super) fn leading_host(&self) -> Option<usize> {
        self.voters
            .iter()
            .copied()
            .find(|voter| self.hosts[*voter].replica().is_some_and(Replica::is_leader))
    }

    pub(super) fn newest_plan(&self) -> u64 {
        self.plans.last_key_value().map_or(0, |(number, _)| *number)
    }

    fn replicas(&self) -> Vec<(MemberId, &Replica)> {
        let replica = |host: &usize| Some((member_of(*host), self.hosts[*host].replica()?));
        self.voters.iter().filter_map(replica).collect()
    }

    fn judge(&mut self, recovery: Duration) -> Result<Report, String> {
        let now = self.now;
        let mut finished = Vec::new();
        for client in &mut self.clients {
            client.hang_up(now);
            finished.append(&mut client.finished);
        }
        let replicas = self.replicas();
        let committed = self.invariants.committed();
        if let Some((member, replica)) =
            replicas.iter().find(|(_, replica)| replica.applied() < committed)
        {
            let applied = replica.applied();
            return Err(format!("{member} stays at entry {applied} of {committed}"));
        }
        if replicas.len() < self.voters.len() {
            return Err("a voter is down after healing".to_owned());
        }
        agreement::judge(&finished, &replicas)?;
        let acknowledged = finished
            .iter()
            .filter(|done| done.operation.outcome == evenkeel_checker::history::Outcome::Ok);
        Ok(Report {
            digest: self.transcript.digest(),
            operations: finished.len(),
            acknowledged: acknowledged.count(),
            plans: self.plans.len(),
            terms: self.invariants.terms(),
            faults: self.faults,
            problems: self.problems,
            holds: self.holds,
            recovery,
        })
    }
}
