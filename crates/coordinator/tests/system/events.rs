//! Reads server-sent events, and checks that a watcher is told what it was promised.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::timeout;

use crate::support::System;

/// Time for an event to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<u64>,
    pub(crate) data: Value,
}

/// A stream of them.
pub(crate) struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    pub(crate) const fn new(body: Incoming) -> Self {
        Self { body, text: String::new() }
    }

    /// Returns the next event that is no progress, `None` at the end of the stream.
    pub(crate) fn next(&mut self, system: &System) -> Option<Event> {
        loop {
            let event = system.block_on(self.read())?;
            if event.name != "progress" {
                return Some(event);
            }
        }
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = parse(event);
                self.text = rest.to_owned();
                return Some(event);
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?;
            // A host that dies cuts the stream off.
            let data = frame.ok()?.into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
}

fn parse(text: &str) -> Event {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    Event {
        name: field("event").unwrap().to_owned(),
        id: field("id").map(|id| id.parse().unwrap()),
        data: serde_json::from_str(field("data").unwrap()).unwrap(),
    }
}

/// What one watcher was told, over all its connections.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) last: u64,
    /// Revision, key and value (none: deleted) of each change.
    pub(crate) changes: Vec<(u64, String, Option<String>)>,
}

impl Told {
    /// Takes a change in: revisions only rise, and none is split.
    pub(crate) fn take(&mut self, event: &Event) {
        let revision = event.data["revision"].as_u64().unwrap();
        assert_eq!(event.id, Some(revision));
        assert!(revision > self.last, "{revision} after {}", self.last);
        self.last = revision;
        for change in event.data["changes"].as_array().unwrap() {
            let text = |name: &str| change[name].as_str().map(str::to_owned);
            let value = text("value");
            assert_eq!(value.is_none(), change["type"] == "delete", "{change}");
            self.changes.push((revision, text("key").unwrap(), value));
        }
    }
}
