//! Clients on their way to a lock against a slow, obvious model: a list of who came when.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::time::Duration;

use evenkeel_consensus::answer::{Answer, KeyEntry};
use evenkeel_consensus::command::{Bytes, Change, Command, LeaseId, Query, Space};
use evenkeel_consensus::keys::KeySpace;
use evenkeel_consensus::locks::acquisition::{Acquisition, Action, Ending, Terms, Wish};
use evenkeel_consensus::locks::{LockName, Place, Queue};
use evenkeel_consensus::settings::StateLimits;
use evenkeel_model::time::Timestamp;
use proptest::prelude::*;

const CLIENTS: usize = 5;
const TTL: Duration = Duration::from_secs(6);
const WAIT: Duration = Duration::from_secs(20);

/// Something that happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A client takes a step. The answers of members are so many changes old where they may be, and
    /// the first answer to what may be sent again is lost.
    Go { client: usize, behind: usize, twice: bool },
    /// A client's lease ends.
    Expire(usize),
    /// A client is done with the lock, or asks no longer, and comes again.
    Leave { client: usize, own_lease: bool },
    /// Time passes.
    Pass(u64),
    /// The past is forgotten.
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        12 => (client.clone(), 0..4_usize, any::<bool>())
            .prop_map(|(client, behind, twice)| Step::Go { client, behind, twice }),
        1 => client.clone().prop_map(Step::Expire),
        3 => (client, any::<bool>())
            .prop_map(|(client, own_lease)| Step::Leave { client, own_lease }),
        2 => (1..4000_u64).prop_map(Step::Pass),
        1 => Just(Step::Compact),
    ]
}

struct Client {
    acquisition: Acquisition,
    lease: Option<LeaseId>,
    held: Option<Place>,
}

struct World {
    /// The store after each change, the present last.
    keys: Vec<KeySpace>,
    now: Timestamp,
    clients: Vec<Client>,
    names: u64,
    /// Who came when.
    model: Vec<LeaseId>,
    last: Option<Place>,
}

impl World {
    fn new() -> Self {
        let keys = vec![KeySpace::new(StateLimits::STANDARD)];
        let (now, clients, model) = (Timestamp::ZERO, Vec::new(), Vec::new());
        let mut world = Self { keys, now, clients, names: 0, model, last: None };
        for number in 0..CLIENTS {
            let client = world.arrive(number % 2 == 0);
            world.clients.push(client);
        }
        world
    }

    fn apply(&mut self, command: Command) -> Answer {
        let mut keys = self.keys.last().unwrap().clone();
        let answer = keys.apply(command);
        self.keys.push(keys);
        answer
    }

    fn arrive(&mut self, own_lease: bool) -> Client {
        let mut lease = None;
        let mut terms = Terms::Ttl(TTL);
        if own_lease {
            let granted = self.apply(Command::once(Change::GrantLease { ttl: TTL }));
            let Answer::Granted { lease: made, .. } = granted else { panic!("{granted:?}") };
            (lease, terms) = (Some(made), Terms::Lease(made));
        }
        self.names += 1;
        let (name, idempotency) = (LockName::parse("l").unwrap(), Some(self.names.to_string()));
        let wish = Wish { name, value: Bytes::new(), terms, wait: WAIT, idempotency };
        Client { acquisition: Acquisition::new(wish, self.now), lease, held: None }
    }

    fn expire(&mut self, lease: LeaseId) {
        self.apply(Command::once(Change::RevokeLease { lease }));
        self.model.retain(|other| *other != lease);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Go { client, behind, twice } => self.go(client, behind, twice),
            Step::Expire(client) => {
                if let Some(lease) = self.clients[client].lease {
                    self.expire(lease);
                }
            }
            Step::Leave { client, own_lease } => self.leave(client, own_lease),
            Step::Pass(millis) => self.now = self.now + Duration::from_millis(millis),
            Step::Compact => {
                let through = self.keys.last().unwrap().revision();
                self.apply(Command::once(Change::Compact { through }));
            }
        }
        self.check();
    }

    fn leave(&mut self, client: usize, own_lease: bool) {
        let Client { lease, held, .. } = &self.clients[client];
        if let Some(place) = held.clone() {
            self.apply(Command::once(place.release()));
            self.model.retain(|lease| *lease != place.lease);
        } else if let Some(lease) = *lease {
            self.expire(lease);
        }
        self.clients[client] = self.arrive(own_lease);
    }

    fn go(&mut self, client: usize, behind: usize, twice: bool) {
        let action = self.clients[client].acquisition.poll_action();
        let present = self.keys.last().unwrap();
        let answer = match action {
            Action::End(ending) => return self.end(client, ending),
            Action::Ask(Query::KeepAlive { lease }) => present.query(&Query::Lease { lease }),
            Action::Ask(query) => present.query(&query),
            Action::Await { query, .. } => {
                let old = self.keys.len().saturating_sub(1 + behind);
                self.keys[old].query(&query)
            }
            Action::Change(command) => {
                let first = self.apply(command.clone());
                self.note(client, &command.change, &first);
                if twice && command.idempotency.is_some() { self.apply(command) } else { first }
            }
        };
        let acquisition = &mut self.clients[client].acquisition;
        acquisition.handle_answer(answer, self.now);
        acquisition.handle_timeout(self.now);
    }

    /// Writes into the model what a client's change has done.
    fn note(&mut self, client: usize, change: &Change, answer: &Answer) {
        match (change, answer) {
            (_, Answer::Granted { lease, .. }) => self.clients[client].lease = Some(*lease),
            (_, Answer::Transacted { succeeded: true, replayed: false, .. }) => {
                self.model.push(self.clients[client].lease.unwrap());
            }
            (Change::RevokeLease { lease }, _) => self.model.retain(|other| other != lease),
            _ => {}
        }
    }

    fn end(&mut self, client: usize, ending: Ending) {
        match ending {
            Ending::Held(place) => {
                // It may have been lost since.
                let is_there = self.model.contains(&place.lease);
                assert!(!is_there || self.model.first() == Some(&place.lease), "{place:?}");
                if let Some(last) = self.last.as_ref().filter(|_| is_there) {
                    let rises = place.token() > last.token() || place.key == last.key;
                    assert!(rises, "{place:?} after {last:?}");
                }
                if is_there {
                    self.last = Some(place.clone());
                }
                self.clients[client].held = Some(place);
            }
            Ending::InVain { ahead, .. } => assert!(ahead > 0),
            Ending::NoLease(lease) => assert!(!self.model.contains(&lease)),
            Ending::Refused(answer) => panic!("{answer:?}"),
        }
    }

    fn queue(&self) -> Queue {
        let entries = self.keys.last().unwrap().prefix(Space::User, "locks/");
        let entries = entries
            .map(|(key, version)| KeyEntry { key: key.to_owned(), version: version.clone() });
        Queue::of(&LockName::parse("l").unwrap(), entries.collect::<Vec<_>>())
    }

    fn check(&self) {
        let queue = self.queue();
        let found: Vec<LeaseId> = queue.places().iter().map(|place| place.lease).collect();
        assert_eq!(found, self.model);
    }

    /// With nothing in the way, everybody gets the lock or learns why not.
    fn settle(&mut self) {
        let mut left: Vec<usize> = (0..CLIENTS).collect();
        for _ in 0..400 {
            for client in left.clone() {
                self.take(Step::Go { client, behind: 0, twice: false });
                let ended =
                    matches!(self.clients[client].acquisition.poll_action(), Action::End(_));
                if ended {
                    self.take(Step::Go { client, behind: 0, twice: false });
                    self.take(Step::Leave { client, own_lease: false });
                    left.retain(|other| *other != client);
                }
            }
        }
        assert!(left.is_empty(), "{left:?} wait for ever");
    }
}

proptest! {
    #[test]
    fn one_after_the_other(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle();
    }
}
