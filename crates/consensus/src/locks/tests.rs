//! Clients on their way to a lock, over a key space.

use std::time::Duration;

use evenkeel_model::time::Timestamp;

use super::acquisition::{Acquisition, Action, Ending, Terms, Wish};
use super::*;
use crate::answer::Answer;
use crate::command::{Command, Expect, Query, Space};
use crate::keys::KeySpace;
use crate::settings::StateLimits;

const TTL: Duration = Duration::from_secs(6);
const WAIT: Duration = Duration::from_secs(60);

struct World {
    keys: KeySpace,
    now: Timestamp,
    kept: Vec<LeaseId>,
}

impl World {
    fn new() -> Self {
        let keys = KeySpace::new(StateLimits::STANDARD);
        Self { keys, now: Timestamp::ZERO, kept: Vec::new() }
    }

    fn apply(&mut self, change: Change) -> Answer {
        self.keys.apply(Command::once(change))
    }

    fn begin(&self, terms: Terms, wait: Duration, idempotency: Option<&str>) -> Acquisition {
        let name = LockName::parse("report").unwrap();
        let idempotency = idempotency.map(str::to_owned);
        let wish = Wish { name, value: Bytes::from_static(b"who"), terms, wait, idempotency };
        Acquisition::new(wish, self.now)
    }

    /// Carries out steps until one must wait, or none is left.
    fn run(&mut self, client: &mut Acquisition) -> Option<Ending> {
        for _ in 0..100 {
            let answer = match client.poll_action() {
                Action::End(ending) => return Some(ending),
                Action::Change(command) => self.keys.apply(command),
                Action::Ask(Query::KeepAlive { lease }) => {
                    self.kept.push(lease);
                    self.keys.query(&Query::Lease { lease })
                }
                Action::Ask(query) => self.keys.query(&query),
                Action::Await { query, after } if self.keys.revision() > after => {
                    self.keys.query(&query)
                }
                Action::Await { .. } => {
                    if client.poll_timeout().is_none_or(|at| at > self.now) {
                        return None;
                    }
                    client.handle_timeout(self.now);
                    continue;
                }
            };
            client.handle_answer(answer, self.now);
        }
        panic!("it never ends: {client:?}");
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn queue(&self) -> Queue {
        let name = LockName::parse("report").unwrap();
        let entries = self.keys.prefix(Space::User, "locks/");
        let entry = |(key, version): (&str, &Version)| KeyEntry {
            key: key.to_owned(),
            version: version.clone(),
        };
        Queue::of(&name, entries.map(entry))
    }
}

#[track_caller]
fn held(ending: Option<Ending>) -> Place {
    match ending {
        Some(Ending::Held(place)) => place,
        other => panic!("{other:?}"),
    }
}

#[test]
fn places_are_held_in_the_order_in_which_they_were_taken() {
    let mut world = World::new();
    let mut clients: Vec<Acquisition> =
        (0..12).map(|_| world.begin(Terms::Ttl(TTL), WAIT, None)).collect();
    let first = held(world.run(&mut clients[0]));
    for client in &mut clients[1..] {
        assert_eq!(world.run(client), None);
    }
    // The last but one leaves the queue; nobody but the last is behind it.
    let left = clients.remove(10).own_lease().unwrap();
    world.apply(Change::RevokeLease { lease: left });
    let mut before = first;
    for client in &mut clients[1..] {
        assert_eq!(world.run(client), None);
        world.apply(before.release());
        let place = held(world.run(client));
        assert!(place.token() > before.token());
        before = place;
    }
    assert_eq!(world.queue().places(), [before]);
}

#[test]
fn a_lock_passes_on_when_the_lease_of_its_holder_ends() {
    let mut world = World::new();
    let mut clients = [1, 2].map(|_| world.begin(Terms::Ttl(TTL), WAIT, None));
    let first = held(world.run(&mut clients[0]));
    assert_eq!(world.run(&mut clients[1]), None);
    world.apply(Change::RevokeLease { lease: first.lease });
    let second = held(world.run(&mut clients[1]));
    assert!(second.token() > first.token());
    // What the first one is late to do, with its token as a guard, is not done.
    let late = world.apply(first.proclaim(Bytes::from_static(b"late")));
    assert!(matches!(late, Answer::Transacted { succeeded: false, .. }), "{late:?}");
    let done = world.apply(second.proclaim(Bytes::from_static(b"done")));
    assert!(matches!(done, Answer::Transacted { succeeded: true, .. }), "{done:?}");
    let holder = world.queue().holder().unwrap().clone();
    assert_eq!((holder.token(), &*holder.version.value), (second.token(), &b"done"[..]));
}

#[test]
fn whoever_waits_keeps_its_lease_alive_and_gives_up_in_the_end() {
    let mut world = World::new();
    let holder = held(world.run(&mut world.begin(Terms::Ttl(TTL), WAIT, None)));
    let mut client = world.begin(Terms::Ttl(TTL), Duration::from_secs(11), None);
    assert_eq!(world.run(&mut client), None);
    let lease = client.own_lease().unwrap();
    world.kept.clear();
    for _ in 0..10 {
        world.pass(Duration::from_secs(1));
        assert_eq!(world.run(&mut client), None);
    }
    assert_eq!(world.kept, [lease; 5]);
    world.pass(Duration::from_secs(1));
    let ending = world.run(&mut client);
    assert_eq!(ending, Some(Ending::InVain { holder: holder.clone(), ahead: 1 }));
    assert_eq!(world.queue().places(), [holder]);
    assert!(world.keys.leases().all(|(found, _)| found != lease));
}

#[test]
fn a_place_with_a_lease_of_the_clients_outlasts_the_wait() {
    let mut world = World::new();
    let holder = held(world.run(&mut world.begin(Terms::Ttl(TTL), WAIT, None)));
    let Answer::Granted { lease, .. } = world.apply(Change::GrantLease { ttl: TTL }) else {
        panic!("no lease")
    };
    let terms = Terms::Lease(lease);
    for _ in 0..3 {
        let ending = world.run(&mut world.begin(terms, Duration::ZERO, None));
        assert_eq!(ending, Some(Ending::InVain { holder: holder.clone(), ahead: 1 }));
        assert_eq!(world.queue().places().len(), 2);
    }
    world.apply(holder.release());
    let place = held(world.run(&mut world.begin(terms, Duration::ZERO, None)));
    // Who holds it and asks again still holds it.
    assert_eq!(held(world.run(&mut world.begin(terms, Duration::ZERO, None))), place);
    // The lease is the client's: it stays.
    world.apply(place.release());
    assert!(world.queue().places().is_empty());
    assert!(world.keys.leases().any(|(found, _)| found == lease));
    world.apply(Change::RevokeLease { lease });
    let ending = world.run(&mut world.begin(terms, Duration::ZERO, None));
    assert_eq!(ending, Some(Ending::NoLease(lease)));
}

#[test]
fn a_wish_of_the_same_name_finds_its_place_again() {
    let mut world = World::new();
    let holder = held(world.run(&mut world.begin(Terms::Ttl(TTL), WAIT, Some("a"))));
    for _ in 0..3 {
        assert_eq!(world.run(&mut world.begin(Terms::Ttl(TTL), WAIT, Some("b"))), None);
        let again = held(world.run(&mut world.begin(Terms::Ttl(TTL), WAIT, Some("a"))));
        assert_eq!(again, holder);
    }
    assert_eq!(world.queue().places().len(), 2);
    let other = world.run(&mut world.begin(Terms::Ttl(TTL * 2), WAIT, Some("b")));
    assert_eq!(other, Some(Ending::Refused(Answer::IdempotencyMismatch)));
    world.apply(holder.release());
    // The place of this name is gone, and no other is taken in its stead.
    let again = world.run(&mut world.begin(Terms::Ttl(TTL), WAIT, Some("a")));
    assert_eq!(again, Some(Ending::NoLease(holder.lease)));
}

#[test]
fn a_lost_past_costs_a_look() {
    let mut world = World::new();
    let holder = held(world.run(&mut world.begin(Terms::Ttl(TTL), WAIT, None)));
    let mut client = world.begin(Terms::Ttl(TTL), WAIT, None);
    assert_eq!(world.run(&mut client), None);
    world.apply(holder.release());
    let through = world.keys.revision();
    world.apply(Change::Compact { through });
    held(world.run(&mut client));
}

#[test]
fn other_keys_are_no_places() {
    let mut world = World::new();
    let put = |key: &str, lease| Change::Put {
        space: Space::User,
        key: key.to_owned(),
        value: Bytes::new(),
        expect: Expect::Any,
        lease,
    };
    world.apply(Change::GrantLease { ttl: TTL });
    for (key, lease) in
        [("1", None), ("x", Some(LeaseId(1))), ("77", Some(LeaseId(1))), ("a/1", Some(LeaseId(1)))]
    {
        let put = world.apply(put(&format!("locks/report/{key}"), lease));
        assert!(matches!(put, Answer::Written { .. }), "{put:?}");
    }
    assert!(world.queue().places().is_empty());
    held(world.run(&mut world.begin(Terms::Ttl(TTL), Duration::ZERO, None)));
}

#[test]
fn a_long_queue_is_read_in_pages() {
    let mut world = World::new();
    let mut wait = world.begin(Terms::Ttl(TTL), WAIT, None);
    let first = held(world.run(&mut world.begin(Terms::Ttl(TTL), WAIT, None)));
    let mut leases = Vec::new();
    for _ in 1..600 {
        let Answer::Granted { lease, .. } = world.apply(Change::GrantLease { ttl: TTL }) else {
            panic!("no lease")
        };
        let ending = world.run(&mut world.begin(Terms::Lease(lease), Duration::ZERO, None));
        assert!(matches!(ending, Some(Ending::InVain { .. })), "{ending:?}");
        leases.push(lease);
    }
    assert_eq!(world.run(&mut wait), None);
    world.apply(first.release());
    for lease in leases {
        assert_eq!(world.run(&mut wait), None);
        world.apply(Change::RevokeLease { lease });
    }
    held(world.run(&mut wait));
}

#[test]
fn a_name_is_one_part_of_a_key() {
    let check = |name: &str, expected: bool| {
        assert_eq!(LockName::parse(name).is_some(), expected, "{name}");
    };
    check("report", true);
    check("größe 1.own", true);
    check(&"n".repeat(256), true);
    check(&"n".repeat(257), false);
    check("", false);
    check("a/b", false);
}
