//! What a client of the drill asks for: people's profiles, created, read, changed and removed.
//!
//! Two kinds of keys. *Shared* ones are written by every client at any time. *Own* ones are written
//! by one client, one write at a time, so that it knows the revision that a compare-and-set must
//! name and no request fails in a healthy system. Everybody reads everything, and every written
//! value is unique, so that a value read names the write it came from.

use evenkeel_checker::history::{Operation, OperationKind, Outcome};
use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue, IF_MATCH};
use hyper::{Method, StatusCode};

use crate::client::{Answer, Ending, Question};

/// The store's revision: of a change its own, of a read the newest.
const STORE_REVISION: &str = "evenkeel-revision";
/// Keys that everybody writes.
const SHARED_KEYS: usize = 64;
/// Keys that each client has for itself.
const OWN_KEYS: usize = 8;

/// What clients can ask of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Traffic {
    /// The example service: profiles are read and written.
    Profiles,
    /// Any other: a path is read.
    Page(Page),
}

/// A page that is read where nothing is known of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its path.
    pub path: String,
    /// Whether it was there when the system was whole. Then an answer that it is not, such as a
    /// gateway gives that has lost its routes, is a failure; otherwise only a server error is.
    pub exists: bool,
}

/// One thing to do.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) kind: OperationKind,
    pub(crate) key: String,
    pub(crate) value: Option<String>,
    pub(crate) expect: Option<u64>,
    /// Unique over the whole drill; makes a write safe to send again.
    pub(crate) idempotency_key: String,
    /// Index of the client's own key, busy until [`Workload::learn`].
    own: Option<usize>,
    /// What is read, see [`Traffic::Page`].
    page: Option<Page>,
}

/// What a client knows of a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    Absent,
    At(u64),
    /// A write of unknown outcome: the next one must not depend on it.
    Nothing,
}

#[derive(Debug)]
struct OwnKey {
    key: String,
    knowledge: Knowledge,
    busy: bool,
}

/// The choices of one client.
#[derive(Debug)]
pub(crate) struct Workload {
    client: String,
    traffic: Traffic,
    rng: Rng,
    sequence: u64,
    own: Vec<OwnKey>,
    shared: Vec<String>,
    /// Keys of other clients, only read here.
    foreign: Vec<String>,
}

impl Workload {
    /// Prepares `client`, one of `clients`, for an experiment whose keys begin with `prefix`.
    pub(crate) fn new(
        traffic: Traffic,
        prefix: &str,
        client: &str,
        clients: &[String],
        seed: u64,
    ) -> Self {
        let own_key = |client: &str, index: usize| format!("{prefix}-{client}-{index}");
        let own = (0..OWN_KEYS).map(|index| OwnKey {
            key: own_key(client, index),
            knowledge: Knowledge::Absent,
            busy: false,
        });
        let others = clients.iter().filter(|other| *other != client);
        Self {
            client: client.to_owned(),
            traffic,
            rng: Rng::from_seed(seed),
            sequence: 0,
            own: own.collect(),
            shared: (0..SHARED_KEYS).map(|index| format!("{prefix}-shared-{index}")).collect(),
            foreign: others
                .flat_map(|other| (0..OWN_KEYS).map(move |index| own_key(other, index)))
                .collect(),
        }
    }

    /// Chooses the next thing to do: reads and writes take turns, so that a gap in either of them
    /// is the system's and not an accident of choice.
    pub(crate) fn choose(&mut self) -> Intent {
        self.sequence += 1;
        if let Traffic::Page(page) = &self.traffic {
            let read = self.write(OperationKind::Get, page.path.clone(), None);
            return Intent { page: Some(page.clone()), ..read };
        }
        if self.sequence.is_multiple_of(2) {
            return self.read();
        }
        let free: Vec<usize> = (0..self.own.len()).filter(|&index| !self.own[index].busy).collect();
        if free.is_empty() || self.rng.chance(1, 2) {
            let key = self.shared[self.rng.index(self.shared.len())].clone();
            return self.write(OperationKind::Put, key, None);
        }
        let index = free[self.rng.index(free.len())];
        let own = &mut self.own[index];
        own.busy = true;
        let (key, knowledge) = (own.key.clone(), own.knowledge);
        let mut intent = match knowledge {
            Knowledge::At(_) if self.rng.chance(1, 5) => {
                self.write(OperationKind::Delete, key, None)
            }
            Knowledge::At(revision) if self.rng.chance(3, 4) => {
                self.write(OperationKind::Cas, key, Some(revision))
            }
            Knowledge::At(_) | Knowledge::Absent | Knowledge::Nothing => {
                self.write(OperationKind::Put, key, None)
            }
        };
        intent.own = Some(index);
        intent
    }

    fn read(&mut self) -> Intent {
        let sources = [self.shared.len(), self.own.len(), self.foreign.len()];
        let mut index = self.rng.index(sources.iter().sum());
        let key = if index < sources[0] {
            self.shared[index].clone()
        } else if index < sources[0] + sources[1] {
            index -= sources[0];
            self.own[index].key.clone()
        } else {
            index -= sources[0] + sources[1];
            self.foreign[index].clone()
        };
        self.write(OperationKind::Get, key, None)
    }

    fn write(&self, kind: OperationKind, key: String, expect: Option<u64>) -> Intent {
        let id = format!("{}-{}", self.client, self.sequence);
        let has_value = matches!(kind, OperationKind::Put | OperationKind::Cas);
        let idempotency_key = format!("{key}-{id}");
        let value = has_value.then_some(id);
        Intent { kind, key, value, expect, idempotency_key, own: None, page: None }
    }

    /// Takes in how an intent ended.
    pub(crate) fn learn(&mut self, intent: &Intent, operation: &Operation) {
        let Some(own) = intent.own.and_then(|index| self.own.get_mut(index)) else { return };
        own.busy = false;
        own.knowledge = match (operation.outcome, operation.kind, operation.revision) {
            (Outcome::Ok, OperationKind::Delete, _) => Knowledge::Absent,
            (Outcome::Ok, _, Some(revision)) => Knowledge::At(revision),
            _ => Knowledge::Nothing,
        };
    }
}

/// When an operation was meant to start, and did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) intended: Timestamp,
    pub(crate) invoked: Timestamp,
    pub(crate) returned: Timestamp,
}

impl Intent {
    /// Returns the request of the profiles service that does this.
    pub(crate) fn question(&self) -> Question {
        if self.page.is_some() {
            return Question::get(self.key.clone());
        }
        let mut question = Question::get(format!("/profiles/{}", self.key));
        question.method = match self.kind {
            OperationKind::Get => return question,
            OperationKind::Put | OperationKind::Cas => Method::PUT,
            OperationKind::Delete => Method::DELETE,
        };
        if let Ok(key) = HeaderValue::from_str(&self.idempotency_key) {
            question.headers.insert(HeaderName::from_static("idempotency-key"), key);
        }
        if let Some(Ok(tag)) = self.expect.map(|at| HeaderValue::from_str(&format!("\"{at}\""))) {
            question.headers.insert(IF_MATCH, tag);
        }
        if let Some(value) = &self.value {
            let profile = serde_json::json!({"name": "drill", "about": value});
            question.body = Bytes::from(profile.to_string());
        }
        question
    }

    /// Returns what the history says about how it ended.
    pub(crate) fn operation(&self, client: &str, times: Times, ending: &Ending) -> Operation {
        let (outcome, value, revision) = self.judge(ending);
        Operation {
            client: client.to_owned(),
            kind: self.kind,
            key: self.key.clone(),
            value,
            expect: self.expect,
            intended: times.intended,
            invoked: times.invoked,
            returned: times.returned,
            outcome,
            revision,
        }
    }

    fn judge(&self, ending: &Ending) -> (Outcome, Option<String>, Option<u64>) {
        let silent = || {
            // A read changes nothing, so there is nothing to be in doubt about.
            let in_doubt = ending.in_doubt && self.kind != OperationKind::Get;
            (if in_doubt { Outcome::Unknown } else { Outcome::Fail }, self.value.clone(), None)
        };
        let Some(answer) = &ending.answer else { return silent() };
        if let Some(page) = &self.page {
            let is_gone = page.exists && answer.status == StatusCode::NOT_FOUND;
            let is_bad = answer.status.is_server_error() || is_gone;
            return (if is_bad { Outcome::Fail } else { Outcome::Ok }, None, None);
        }
        let revision = match self.kind {
            // What is gone has no entity tag; the store says the revision of a change anyway.
            OperationKind::Delete => answer.header(STORE_REVISION).and_then(|at| at.parse().ok()),
            OperationKind::Get | OperationKind::Put | OperationKind::Cas => {
                answer.header("etag").and_then(parse_tag)
            }
        };
        match (self.kind, answer.status) {
            (OperationKind::Get, StatusCode::OK) => match read_value(answer) {
                Some(value) => (Outcome::Ok, Some(value), revision),
                None => (Outcome::Fail, None, None),
            },
            (OperationKind::Get, StatusCode::NOT_FOUND) if is_from_store(answer) => {
                (Outcome::Ok, None, None)
            }
            (OperationKind::Get, _) => (Outcome::Fail, None, None),
            (_, status) if status.is_success() => (Outcome::Ok, self.value.clone(), revision),
            // Of several tries this may be the answer to another one than that whose answer was lost:
            // it then says nothing about the key at a time between invocation and return.
            (OperationKind::Cas, StatusCode::PRECONDITION_FAILED)
            | (OperationKind::Delete, StatusCode::NOT_FOUND)
                if is_from_store(answer) && !ending.in_doubt =>
            {
                (Outcome::Refused, self.value.clone(), None)
            }
            // Revisions are never used again: a condition that failed once can never hold later,
            // not even for an earlier try that is still under way.
            (OperationKind::Cas, StatusCode::PRECONDITION_FAILED) => {
                (Outcome::Fail, self.value.clone(), None)
            }
            _ => silent(),
        }
    }
}

/// Only the store knows that a key is absent; a gateway without a route also says 404.
fn is_from_store(answer: &Answer) -> bool {
    answer.header(STORE_REVISION).is_some()
}

/// Reads the revision out of an entity tag.
fn parse_tag(tag: &str) -> Option<u64> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

fn read_value(answer: &Answer) -> Option<String> {
    let profile: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    Some(profile.get("about")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderMap;
    use std::collections::BTreeSet;

    fn workload() -> Workload {
        let clients = ["fra-1".to_owned(), "ams-1".to_owned(), "waw-1".to_owned()];
        Workload::new(Traffic::Profiles, "x1", "fra-1", &clients, 7)
    }

    fn answer(status: u16, etag: Option<&'static str>, body: &'static str) -> Ending {
        let mut headers = HeaderMap::new();
        headers.insert("evenkeel-revision", HeaderValue::from_static("9"));
        if let Some(etag) = etag {
            headers.insert("etag", HeaderValue::from_static(etag));
        }
        let status = StatusCode::from_u16(status).unwrap();
        let body = Bytes::from_static(body.as_bytes());
        Ending { answer: Some(Answer { status, headers, body }), in_doubt: false }
    }

    /// An answer that did not come from the store.
    fn by_gateway(status: u16) -> Ending {
        let mut ending = answer(status, None, "");
        ending.answer.as_mut().unwrap().headers.clear();
        ending
    }

    #[test]
    fn a_page_that_was_there_must_not_be_gone() {
        let check = |exists, status, expected| {
            let page = Page { path: "/".to_owned(), exists };
            let mut workload = Workload::new(Traffic::Page(page), "x1", "fra-1", &[], 7);
            let (outcome, ..) = workload.choose().judge(&by_gateway(status));
            assert_eq!(outcome, expected, "{exists} {status}");
        };
        check(true, 200, Outcome::Ok);
        check(true, 404, Outcome::Fail);
        check(true, 503, Outcome::Fail);
        check(false, 404, Outcome::Ok);
        check(false, 503, Outcome::Fail);
    }

    #[test]
    fn a_lost_write_of_an_own_key_is_found() {
        let mut workload = workload();
        let at = |nanos| Timestamp::from_nanos(nanos);
        let mut told = |kind, expect, from: u64, ending: &Ending| {
            workload.sequence += 1;
            let intent = workload.write(kind, "x1-fra-1-0".to_owned(), expect);
            let times = Times { intended: at(from), invoked: at(from), returned: at(from + 5) };
            intent.operation("fra-1", times, ending)
        };
        let written = told(OperationKind::Put, None, 0, &answer(201, Some("\"5\""), ""));
        for refused in [
            told(OperationKind::Cas, Some(5), 10, &answer(412, Some("\"3\""), "")),
            told(OperationKind::Delete, None, 10, &answer(404, None, "")),
        ] {
            let history = [written.clone(), refused];
            let verdict = evenkeel_checker::linearizability::check(&history, 1000);
            let rules: Vec<_> = verdict.violations.iter().map(|found| found.rule).collect();
            assert_eq!(rules, [evenkeel_checker::history::Rule::FalseRefusal]);
        }
    }

    #[test]
    fn half_are_writes_of_unique_values_over_many_keys() {
        let mut workload = workload();
        let (mut values, mut keys, mut writes) = (BTreeSet::new(), BTreeSet::new(), 0);
        for _ in 0..2000 {
            let intent = workload.choose();
            keys.insert(intent.key.clone());
            writes += u32::from(intent.kind != OperationKind::Get);
            if let Some(value) = &intent.value {
                assert!(values.insert(value.clone()), "{value} was written before");
            }
            let times = Times {
                intended: Timestamp::ZERO,
                invoked: Timestamp::ZERO,
                returned: Timestamp::ZERO,
            };
            let operation = intent.operation("fra-1", times, &answer(200, Some("\"3\""), ""));
            workload.learn(&intent, &operation);
        }
        assert_eq!(writes, 1000);
        assert_eq!(keys.len(), SHARED_KEYS + 3 * OWN_KEYS);
    }

    #[test]
    fn an_own_key_has_one_write_at_a_time() {
        let mut workload = workload();
        let mut under_way = BTreeSet::new();
        for _ in 0..500 {
            let intent = workload.choose();
            if intent.own.is_some() {
                assert!(under_way.insert(intent.key.clone()), "{} is busy", intent.key);
            }
        }
        assert_eq!(under_way.len(), OWN_KEYS);
    }

    #[test]
    fn an_outcome_says_only_what_is_known() {
        let workload = workload();
        let key = || "x1-shared-0".to_owned();
        let check = |kind, ending: &Ending, expected| {
            assert_eq!(workload.write(kind, key(), None).judge(ending).0, expected, "{ending:?}");
        };
        let doubt = |ending| Ending { in_doubt: true, ..ending };
        let silence = Ending { answer: None, in_doubt: false };
        check(OperationKind::Put, &answer(201, Some("\"4\""), ""), Outcome::Ok);
        check(OperationKind::Put, &silence, Outcome::Fail);
        check(OperationKind::Put, &doubt(silence.clone()), Outcome::Unknown);
        check(OperationKind::Put, &answer(503, None, ""), Outcome::Fail);
        check(OperationKind::Put, &doubt(answer(503, None, "")), Outcome::Unknown);
        check(OperationKind::Cas, &doubt(answer(412, Some("\"4\""), "")), Outcome::Fail);
        check(OperationKind::Cas, &answer(412, Some("\"4\""), ""), Outcome::Refused);
        check(OperationKind::Delete, &answer(404, None, ""), Outcome::Refused);
        check(OperationKind::Delete, &by_gateway(404), Outcome::Fail);
        check(OperationKind::Get, &by_gateway(404), Outcome::Fail);
        check(OperationKind::Delete, &doubt(answer(404, None, "")), Outcome::Unknown);
        check(OperationKind::Get, &doubt(silence), Outcome::Fail);
        check(OperationKind::Get, &answer(404, None, ""), Outcome::Ok);
        check(OperationKind::Get, &answer(200, Some("\"4\""), r#"{"about":"v"}"#), Outcome::Ok);
        check(OperationKind::Get, &answer(200, None, "<html>"), Outcome::Fail);
    }
}
