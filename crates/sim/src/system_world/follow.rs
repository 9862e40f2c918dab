//! How a host that does not vote follows who leads: it asks the leader whether it still leads, and
//! every voter when it does not.

use std::time::Duration;

use evenkeel_model::patience::patience;

use super::World;
use super::act::CONNECT_MAX;
use super::calls::{Caller, Outcome, Question, Reply, Target};
use super::happening::{Happening, NodeLife};
use super::host::View;

/// Time for a host near by to say who leads.
const ASK_TIMEOUT: Duration = Duration::from_millis(300);

/// Pause between two questions while a leader says of itself that it leads, and otherwise.
const ASK_EVERY: Duration = Duration::from_millis(500);
const SEARCH_EVERY: Duration = Duration::from_millis(100);

/// The present round of questions.
#[derive(Debug, Default)]
pub(super) struct Follow {
    round: u64,
    waiting: usize,
    /// Whether only the leader was asked.
    direct: bool,
    latest: Option<View>,
}

impl World {
    /// Begins a round.
    pub(super) fn follow(&mut self, at: NodeLife) {
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let leader = node.view.leader;
        match leader {
            Some(leader) => self.ask_who_leads(at, &[leader], true),
            None => self.ask_everyone(at),
        }
    }

    fn ask_everyone(&mut self, at: NodeLife) {
        let voters = self.voters.clone();
        self.ask_who_leads(at, &voters, false);
    }

    fn ask_who_leads(&mut self, at: NodeLife, asked: &[usize], direct: bool) {
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let round = node.follow.round + 1;
        node.follow = Follow { round, waiting: asked.len(), direct, latest: None };
        let limit = patience(ASK_TIMEOUT, Some(self.links.farthest() * 2));
        for voter in asked {
            let caller = Caller::Follow { at, round };
            self.call(caller, at.host, *voter, Target::Node, Question::Leader, CONNECT_MAX, limit);
        }
    }

    /// Takes one answer in.
    pub(super) fn follow_settled(&mut self, at: NodeLife, round: u64, outcome: Outcome) {
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        if node.follow.round != round {
            return;
        }
        let term = node.view.term;
        let follow = &mut node.follow;
        follow.waiting = follow.waiting.saturating_sub(1);
        if let Outcome::Answered(reply) = outcome
            && let Reply::Leader(view) = *reply
            && view.leader.is_some()
        {
            if view.is_self && (follow.direct || view.term >= term) {
                follow.round += 1;
                return self.learn_leader(at, Some(view));
            }
            if follow.latest.is_none_or(|latest| latest.term <= view.term) {
                follow.latest = Some(view);
            }
        }
        if follow.waiting == 0 {
            let (direct, latest) = (follow.direct, follow.latest);
            if direct {
                self.ask_everyone(at);
            } else {
                follow.round += 1;
                self.learn_leader(at, latest);
            }
        }
    }

    fn learn_leader(&mut self, at: NodeLife, report: Option<View>) {
        let confirmed = report.is_some_and(|report| report.is_self);
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let term = report.map_or(0, |report| report.term).max(node.view.term);
        let leader = report.and_then(|report| report.leader);
        self.change_view(at, leader, term, false);
        let pause = if confirmed { ASK_EVERY } else { SEARCH_EVERY };
        self.after(pause, Happening::Follow { at });
    }

    /// Notes who leads, and has everybody look who waits for that.
    pub(super) fn change_view(
        &mut self,
        at: NodeLife,
        leader: Option<usize>,
        term: u64,
        is_self: bool,
    ) {
        let now = self.now;
        let Some(node) = self.hosts[at.host].node_mut(at.life) else { return };
        let before = node.view;
        let since = if before.leader == leader { before.since } else { now };
        node.view = View { leader, term, is_self, since };
        if node.view == before {
            return;
        }
        if !node.announcing {
            node.announcing = true;
            let wait = self.draw_millis(0, 2);
            self.after(wait, Happening::Announce { at });
        }
        self.leader_changed(at);
    }
}
