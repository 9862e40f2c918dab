//! What clients ask of a member, and what they are answered.

use std::time::Duration;

use evenkeel_model::time::Timestamp;

use super::{Replica, Role};
use crate::answer::Answer;
use crate::command::{Change, Command, LeaseId, Query, RequestId};
use crate::pending::{Proposal, Read};
use crate::settings::Defect;
use crate::wire::command::encode_command;

impl Replica {
    pub(super) fn answer(&mut self, request: RequestId, answer: Answer) {
        self.actions.push_back(super::Action::Answer { request, answer });
    }

    pub(super) fn take_proposal(&mut self, request: RequestId, command: Command) {
        if !self.leads() {
            let leader = self.leader();
            return self.answer(request, Answer::NotLeader { leader });
        }
        if self.is_too_large(&command) {
            return self.answer(request, Answer::TooLarge);
        }
        let data = encode_command(command).into();
        let proposal = Proposal { request: Some(request), data };
        if self.proposals.push(proposal, &self.limits).is_err() {
            self.answer(request, Answer::Overloaded);
        }
    }

    fn is_too_large(&self, command: &Command) -> bool {
        let (mut bytes, mut key_len) =
            (0_usize, command.idempotency.as_ref().map_or(0, String::len));
        command.for_each_key(|key, value_len| {
            key_len = key_len.max(key.len());
            bytes = bytes.saturating_add(value_len);
        });
        key_len > self.limits.key_max || bytes > self.limits.value_max
    }

    pub(super) fn take_read(&mut self, request: RequestId, query: Query, now: Timestamp) {
        if !self.leads() {
            let leader = self.leader();
            return self.answer(request, Answer::NotLeader { leader });
        }
        if self.defect == Some(Defect::ReadWithoutQuorum) {
            let answer = self.keys.query(&query);
            return self.answer(request, answer);
        }
        if let Query::KeepAlive { lease } = query {
            // It may not run out while a quorum is asked.
            self.keep_alive(lease, now);
        }
        if self.reads.push(Read { request, query, received: now }, &self.limits).is_err() {
            self.answer(request, Answer::Overloaded);
        }
    }

    pub(super) fn answer_reads(&mut self) {
        for Read { request, query, received } in self.reads.take_ready(self.applied.index) {
            let answer = match query {
                Query::KeepAlive { lease } => {
                    self.keep_alive(lease, received);
                    self.lease(lease)
                }
                Query::Lease { lease } => self.lease(lease),
                Query::Get { .. } | Query::Range { .. } | Query::Changes { .. } => {
                    self.keys.query(&query)
                }
            };
            self.answer(request, answer);
        }
    }

    fn keep_alive(&mut self, lease: LeaseId, received: Timestamp) {
        if let Some(ttl) = self.keys.lease_ttl(lease) {
            self.leases.extend(lease, received + ttl);
        }
    }

    /// Answers what is known of a lease. One that has run out is as good as gone.
    fn lease(&self, lease: LeaseId) -> Answer {
        let left = self.leases.left(lease, self.now);
        let found = self.keys.query(&Query::Lease { lease });
        if let Answer::Lease { ttl, keys, .. } = found
            && left.is_some()
        {
            return Answer::Lease { ttl, left, keys };
        }
        Answer::NoLease { lease }
    }

    /// Follows what has become of a lease, while this member leads.
    pub(super) fn follow_leases(&mut self, answer: &Answer, revoked: Option<LeaseId>) {
        if let Answer::Granted { lease, .. } = *answer
            && self.told.is_leader
        {
            self.keep_alive(lease, self.now);
        }
        if let Some(lease) = revoked {
            self.leases.remove(lease);
        }
    }

    /// Takes the leases over from an earlier leader, or leaves them to a later one.
    pub(super) fn lead_leases(&mut self, role: Role) {
        if role.is_leader && (!self.told.is_leader || self.told.term != role.term) {
            let unextended = self.defect == Some(Defect::LeasesNotExtended);
            let ttl = |ttl| if unextended { Duration::ZERO } else { ttl };
            let leases = self.keys.leases().map(|(lease, whole)| (lease, ttl(whole)));
            self.leases.begin(leases, self.now);
        } else if !role.is_leader {
            self.leases.end();
        }
    }

    /// Has the leases revoked that have run out.
    pub(super) fn revoke_expired(&mut self, now: Timestamp) {
        while let Some(lease) = self.leases.take_expired(now) {
            let command = Command::once(Change::RevokeLease { lease });
            let proposal = Proposal { request: None, data: encode_command(command).into() };
            if self.proposals.push(proposal, &self.limits).is_err() {
                return self.leases.retry(lease, now);
            }
        }
    }
}
