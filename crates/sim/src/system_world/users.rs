//! Those who use the system: replicas that keep their state in the key-value API, clients that send
//! requests through any gateway, and clients of the API that want a lease.

use std::time::Duration;

use evenkeel_consensus::answer::Answer;
use evenkeel_gateway_core::health::Identity;

use super::World;
use super::act::CONNECT_MAX;
use super::calls::{CallId, Caller, Outcome, Question, Refusal, Reply, Target};
use super::happening::{Happening, ProcessLife};
use crate::clients::{Next, Request};
use crate::holders::{self, Holder};

/// How long a client waits for one answer, a holder for one, and a replica for its own.
const CLIENT_MAX: Duration = Duration::from_secs(3);
const HOLDER_MAX: Duration = Duration::from_millis(700);
const REPLICA_MAX: Duration = Duration::from_secs(6);

/// Longest pause of a client between two requests, in ms.
const THINK_MAX: u64 = 250;

impl World {
    /// A replica asks the key-value API through the gateway of its own host.
    pub(super) fn serve(&mut self, at: ProcessLife, call: CallId, request: Request) {
        let caller = Caller::Replica { at, call };
        let question = Question::Execute { request, hops: 0 };
        let target = Target::Gateway { public: false };
        self.call(caller, at.host, at.host, target, question, CONNECT_MAX, REPLICA_MAX);
    }

    /// The API has answered a replica, which answers in turn.
    pub(super) fn served(&mut self, at: ProcessLife, call: CallId, outcome: Outcome) {
        if self.hosts[at.host].process(at.pid).is_none() {
            return;
        }
        self.reply(call, Reply::Store(result_of(outcome), Identity::Same));
    }

    /// Lets a client send its request, or a new one.
    pub(super) fn send(&mut self, client: usize) {
        let now = self.now;
        let holder = client.checked_sub(self.clients.len());
        let (to, request, attempt) = match holder {
            Some(number) => {
                let holder = &mut self.holders[number];
                let (to, request) = holder.send(now);
                (to, request, holder.attempt)
            }
            None => {
                let asker = &mut self.clients[client];
                if self.closed && asker.is_idle() {
                    return;
                }
                let (to, request) = asker.send(now, &mut self.rng);
                (to, request, asker.attempt)
            }
        };
        let name = &self.names[to];
        self.transcript.line(now, format_args!("c{client} asks {name}: {request:?}"));
        let question = Question::Execute { request, hops: 0 };
        let caller = Caller::Client { client, attempt };
        // Clients stand beside the host that they ask.
        if holder.is_some() {
            self.call(caller, to, to, Target::Node, question, CONNECT_MAX, HOLDER_MAX);
        } else {
            let target = Target::Gateway { public: true };
            self.call(caller, to, to, target, question, CONNECT_MAX, CLIENT_MAX);
        }
    }

    /// A client hears how its request went.
    pub(super) fn answer_client(&mut self, client: usize, attempt: u64, outcome: Outcome) {
        let answer = match outcome {
            // Surely not applied: another host may do better.
            Outcome::NotSent => Some(Answer::NotLeader { leader: None }),
            Outcome::Answered(_) | Outcome::Broken | Outcome::TimedOut => {
                match result_of(outcome) {
                    Ok(answer) => Some(answer),
                    Err(Refusal::NotApplied | Refusal::NotLeader(_)) => {
                        Some(Answer::NotLeader { leader: None })
                    }
                    Err(Refusal::Unknown) => None,
                }
            }
        };
        self.transcript.line(self.now, format_args!("c{client} is answered: {answer:?}"));
        let refused = matches!(answer, Some(Answer::NotLeader { .. }));
        let believes = refused && self.rng.chance(1, 3);
        let next = match client.checked_sub(self.clients.len()) {
            Some(number) => self.answer_holder(number, attempt, answer),
            None if believes => self.clients[client].refused(attempt, self.now, &mut self.rng),
            None => self.clients[client].answered(attempt, answer, self.now, &mut self.rng),
        };
        match next {
            // Nobody begins anything new.
            Next::Wait(_) if self.closed && client >= self.clients.len() => {}
            Next::Wait(wait) => {
                let think = Duration::from_micros(self.rng.below(THINK_MAX * 1000));
                let think = if client < self.clients.len() { think } else { Duration::ZERO };
                self.after(wait + think, Happening::Send { client });
            }
            Next::Ignore => {}
            Next::Complain(_) if client >= self.clients.len() && !self.habits.clocks_hold() => {
                // On clocks that are far off nobody can be sure of a lease.
                self.after(Duration::from_secs(1), Happening::Send { client });
            }
            Next::Complain(complaint) => self.violate(complaint),
        }
    }

    fn answer_holder(&mut self, number: usize, attempt: u64, answer: Option<Answer>) -> Next {
        let token = |holder: &Holder| holder.hold.map(|hold| hold.token);
        let before = token(&self.holders[number]);
        let next = self.holders[number].answered(attempt, answer, self.now, &mut self.rng);
        self.holds += usize::from(token(&self.holders[number]) != before);
        if self.habits.clocks_hold()
            && let Err(violation) = holders::check(&self.holders)
        {
            self.violate(violation);
        }
        next
    }
}

/// Returns what a call to the API came to.
fn result_of(outcome: Outcome) -> Result<Answer, Refusal> {
    match outcome {
        Outcome::Answered(reply) => match *reply {
            Reply::Store(result, _) => result,
            Reply::Heartbeat(_) | Reply::Leader(_) => Err(Refusal::Unknown),
        },
        Outcome::NotSent => Err(Refusal::NotApplied),
        Outcome::Broken | Outcome::TimedOut => Err(Refusal::Unknown),
    }
}
