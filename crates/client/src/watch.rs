//! Watches keys: every change once and in order, across connections and hosts.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::http::response::Parts;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::effort::{Tried, pause};
use crate::error::{Error, Refusal};
use crate::events::{Event, Parser};
use crate::keys::KeyValue;
use crate::response::parse_refusal;
use crate::target::Target;
use crate::transport::{Request, Transport};
use crate::value::KeyWire;

/// Time without a word after which a host is taken for dead: it says how far it is every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Least time for a host to begin: it asks a quorum how far the store is.
const OPEN_MAX: Duration = Duration::from_secs(4);
/// The refusal of a revision that is forgotten.
const COMPACTED: &str = "compacted";

/// Which keys are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    target: String,
}

impl Wanted {
    /// One key.
    #[must_use]
    pub fn key(key: &str) -> Self {
        Self { target: Target::key(key).flag("watch", true).into_text() }
    }

    /// All keys that begin so.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        Self {
            target: Target::new("/v1/kv")
                .flag("watch", true)
                .parameter("prefix", prefix)
                .into_text(),
        }
    }

    fn request(&self, since: Option<u64>) -> Result<Request, Error> {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        let request = Request::question(Method::GET, format!("{}{since}", self.target));
        request.header(ACCEPT, "text/event-stream")
    }
}

/// All that changed with one revision, of the keys that are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The revision of the store.
    pub revision: u64,
    /// What changed, in the order in which it was done.
    pub changes: Vec<Change>,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was set.
    Put(KeyValue),
    /// It was removed.
    Delete {
        /// The key.
        key: String,
    },
}

impl Change {
    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(KeyValue { key, .. }) | Self::Delete { key } => key,
        }
    }
}

/// A watch, see [`Client::watch`](crate::Client::watch).
#[derive(Debug)]
pub struct Watch {
    transport: Arc<Transport>,
    wanted: Wanted,
    /// Everything up to this revision was told.
    revision: Option<u64>,
    /// The host that is asked, or asked next.
    place: usize,
    stream: Option<Stream>,
    /// Tries since a host was last heard.
    tries: u32,
    try_at: Instant,
    trouble: Option<Error>,
    ended: Option<Error>,
}

#[derive(Debug)]
struct Stream {
    body: Incoming,
    parser: Parser,
    heard: Instant,
}

/// What a server tells.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Open(u64),
    Changes(Changes),
    Progress(u64),
    End(Refusal),
    /// Something that this client does not know.
    Other,
}

/// Why there is no stream.
enum Failed {
    /// Another host may do better.
    Again(Error),
    /// None will.
    Ended(Error),
}

#[derive(Deserialize)]
struct ChangesWire {
    revision: u64,
    #[serde(default)]
    changes: Vec<ChangeWire>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ChangeWire {
    Put(KeyWire),
    Delete { key: String },
}

impl Watch {
    pub(crate) async fn begin(
        transport: Arc<Transport>,
        wanted: Wanted,
        since: Option<u64>,
    ) -> Result<Self, Error> {
        let (now, place) = (Instant::now(), transport.preferred());
        let deadline = now + transport.options.request_max;
        let mut watch = Self {
            transport,
            wanted,
            revision: since,
            place,
            stream: None,
            tries: 0,
            try_at: now,
            trouble: None,
            ended: None,
        };
        while watch.stream.is_none() {
            watch.connect().await;
            if let Some(ended) = watch.ended {
                return Err(ended);
            }
            if let Some(trouble) = watch.trouble.take_if(|_| watch.try_at >= deadline) {
                return Err(trouble);
            }
        }
        Ok(watch)
    }

    /// Returns the revision up to which everything was told: a watch that begins there goes on
    /// where this one is.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.unwrap_or_default()
    }

    /// Returns why no host is connected, while that is so.
    #[must_use]
    pub const fn trouble(&self) -> Option<&Error> {
        self.trouble.as_ref()
    }

    /// Returns the next revision with changes, and waits for as long as it takes: when a host is
    /// lost, it asks one after another until one goes on where it stopped. Nothing is left out or
    /// told twice, also when the waiting is given up and begun again.
    ///
    /// # Errors
    /// When no host can go on. The code is `compacted` when the revision was forgotten while none
    /// was connected: then the keys must be read anew.
    pub async fn next(&mut self) -> Result<Changes, Error> {
        loop {
            if let Some(ended) = &self.ended {
                return Err(ended.clone());
            }
            if self.stream.is_none() {
                self.connect().await;
                continue;
            }
            match self.read().await {
                Ok(Some(changes)) => return Ok(changes),
                Ok(None) => {}
                Err(failed) => self.fail(failed),
            }
        }
    }

    /// Tries one host, not before it is time to.
    async fn connect(&mut self) {
        sleep_until(self.try_at).await;
        match self.open().await {
            Ok(stream) => {
                self.stream = Some(stream);
                self.trouble = None;
            }
            Err(failed) => self.fail(failed),
        }
    }

    /// Leaves the host, and plans to ask the next one.
    fn fail(&mut self, failed: Failed) {
        self.stream = None;
        match failed {
            Failed::Ended(error) => self.ended = Some(error),
            Failed::Again(error) => {
                self.trouble = Some(error);
                self.place = self.transport.move_on(self.place);
                self.tries = self.tries.saturating_add(1);
                let hosts = u32::try_from(self.transport.hosts()).unwrap_or(u32::MAX);
                self.try_at = Instant::now() + pause(self.tries, hosts);
            }
        }
    }

    async fn open(&mut self) -> Result<Stream, Failed> {
        let request = self.wanted.request(self.revision).map_err(Failed::Ended)?;
        let until = Instant::now() + self.transport.options.question_max.max(OPEN_MAX);
        let opened = self.transport.open(self.place, &request, until).await;
        let (head, body) = opened.map_err(refused)?;
        if !is_stream(&head) {
            let answered = self.transport.read(self.place, &head, body, until).await;
            return Err(refused(answered));
        }
        let mut stream = Stream { body, parser: Parser::default(), heard: Instant::now() };
        loop {
            let told = stream.hear(until).await;
            match told.map_err(|what| self.broken(&what))? {
                Told::Open(revision) => {
                    self.revision.get_or_insert(revision);
                    return Ok(stream);
                }
                Told::End(refusal) => return Err(ended(refusal)),
                Told::Other => {}
                Told::Changes(_) | Told::Progress(_) => {
                    return Err(self.broken("the watch does not begin with `open`"));
                }
            }
        }
    }

    /// Takes in what the host says next.
    async fn read(&mut self) -> Result<Option<Changes>, Failed> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let until = stream.heard + SILENCE_MAX;
        let told = stream.hear(until).await;
        let told = told.map_err(|what| self.broken(&what))?;
        let known = self.revision();
        match told {
            Told::Changes(changes) if changes.revision > known => {
                self.heard(changes.revision);
                Ok(Some(changes))
            }
            Told::Progress(revision) => {
                self.heard(revision.max(known));
                Ok(None)
            }
            Told::End(refusal) => Err(ended(refusal)),
            Told::Open(_) | Told::Changes(_) | Told::Other => Ok(None),
        }
    }

    const fn heard(&mut self, revision: u64) {
        self.revision = Some(revision);
        self.tries = 0;
    }

    fn broken(&self, what: &str) -> Failed {
        Failed::Again(Error::Unreachable { cause: self.transport.at(self.place, what) })
    }
}

impl Stream {
    /// Returns what the host says next. Giving up loses nothing.
    async fn hear(&mut self, until: Instant) -> Result<Told, String> {
        loop {
            if let Some(event) = self.parser.next() {
                self.heard = Instant::now();
                return told(&event);
            }
            let frame = match timeout_at(until, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(format!("the watch broke off: {error}")),
                Ok(None) => return Err("the watch ended".to_owned()),
                Err(_) => return Err("the host has fallen silent".to_owned()),
            };
            if let Ok(data) = frame.into_data() {
                let taken = self.parser.push(&data);
                taken.map_err(|_too_long| "an event is longer than 16 MiB".to_owned())?;
            }
        }
    }
}

fn is_stream(head: &Parts) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    head.status.is_success()
        && content_type.is_some_and(|content_type| content_type.starts_with("text/event-stream"))
}

/// Judges an answer that is no stream: only a request that makes no sense is hopeless everywhere.
fn refused(tried: Tried) -> Failed {
    match tried {
        Tried::Answered(response) if (400..500).contains(&response.status) => {
            Failed::Ended(Error::Refused(response.refusal()))
        }
        Tried::Answered(response) => Failed::Again(Error::Refused(response.refusal())),
        Tried::NotSent(cause) | Tried::Lost(cause) => Failed::Again(Error::Unreachable { cause }),
    }
}

/// Judges why a host ended a watch.
fn ended(refusal: Refusal) -> Failed {
    let is_final = refusal.code == COMPACTED;
    let error = Error::Refused(refusal);
    if is_final { Failed::Ended(error) } else { Failed::Again(error) }
}

/// Reads an event.
fn told(event: &Event) -> Result<Told, String> {
    let bad = |error: serde_json::Error| format!("event `{}` can't be read: {error}", event.name);
    let read = || serde_json::from_str::<ChangesWire>(&event.data).map_err(bad);
    Ok(match event.name.as_str() {
        "open" => Told::Open(read()?.revision),
        "progress" => Told::Progress(read()?.revision),
        "change" => {
            let ChangesWire { revision, changes } = read()?;
            let changes = changes.into_iter().map(change).collect::<Result<_, _>>();
            let changes = changes.map_err(|error| error.to_string())?;
            Told::Changes(Changes { revision, changes })
        }
        "end" => {
            let refusal = parse_refusal(event.data.as_bytes());
            Told::End(refusal.ok_or("the watch ended without a reason")?)
        }
        _ => Told::Other,
    })
}

fn change(wire: ChangeWire) -> Result<Change, Error> {
    Ok(match wire {
        ChangeWire::Put(key) => Change::Put(key.read()?),
        ChangeWire::Delete { key } => Change::Delete { key },
    })
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::*;

    fn check(name: &str, data: &str, expected: Option<Told>) {
        let event = Event { name: name.to_owned(), data: data.to_owned() };
        assert_eq!(told(&event).ok(), expected, "{name}: {data}");
    }

    #[test]
    fn events_are_understood() {
        check("open", r#"{"revision": 7}"#, Some(Told::Open(7)));
        check("progress", r#"{"revision": 9}"#, Some(Told::Progress(9)));
        check("news", "whatever", Some(Told::Other));
        check("open", "{", None);
        check("end", "{}", None);
        let data = r#"{"revision": 8, "changes": [
            {"type": "delete", "key": "a"},
            {"type": "put", "key": "b", "value": "/w==", "encoding": "base64", "revision": 8,
             "created": 3, "version": 2}
        ]}"#;
        let put = KeyValue {
            key: "b".to_owned(),
            value: Bytes::from_static(b"\xff"),
            revision: 8,
            created: 3,
            version: 2,
            lease: None,
        };
        let changes = vec![Change::Delete { key: "a".to_owned() }, Change::Put(put)];
        check("change", data, Some(Told::Changes(Changes { revision: 8, changes })));
    }

    #[test]
    fn only_a_forgotten_revision_ends_a_watch_for_good() {
        let ends = |code: &str| {
            let data = format!(r#"{{"error": {{"code": "{code}", "message": "m"}}}}"#);
            let event = Event { name: "end".to_owned(), data };
            let Ok(Told::End(refusal)) = told(&event) else { return None };
            Some(matches!(ended(refusal), Failed::Ended(_)))
        };
        assert_eq!(
            ["compacted", "no-quorum", "overloaded"].map(ends),
            [Some(true), Some(false), Some(false)]
        );
    }

    #[test]
    fn a_watch_asks_for_what_is_wanted() {
        let target = |wanted: Wanted| wanted.target;
        assert_eq!(target(Wanted::key("a b")), "/v1/kv/a%20b?watch");
        assert_eq!(target(Wanted::prefix("a/")), "/v1/kv?watch&prefix=a/");
        assert_eq!(target(Wanted::prefix("")), "/v1/kv?watch");
    }
}
