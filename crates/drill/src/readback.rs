//! Reads what every member of the store holds, after everything has healed.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_checker::survival::{Contents, Entry};
use evenkeel_model::name::HostName;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::bench::Apis;
use crate::client::Client;
use crate::load::EnterNetwork;
use crate::network::run_in;

/// Time for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Time for a member to catch up with what was acknowledged.
const CATCH_UP_MAX: Duration = Duration::from_secs(20);
/// Most keys of one experiment.
const KEYS_MAX: usize = 1000;

/// Where the example service keeps its profiles.
const FOLDER: &str = "profiles/";

/// What the members hold.
#[derive(Debug, Default)]
pub(crate) struct ReadBack {
    /// Every member that has caught up.
    pub(crate) members: Vec<Contents>,
    /// Why others are missing.
    pub(crate) unseen: Vec<String>,
}

#[derive(Deserialize)]
struct Page {
    revision: u64,
    keys: Vec<Item>,
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
struct Item {
    key: String,
    value: String,
    revision: u64,
}

/// Reads every profile whose id begins with `prefix` from every host, each from its own state, once
/// that state is as new as what the system as a whole answers now.
pub(crate) fn read_back(enter: &EnterNetwork, apis: &Apis, prefix: &str) -> io::Result<ReadBack> {
    let path = format!("/v1/kv?prefix={FOLDER}{prefix}-&limit={KEYS_MAX}");
    let (apis, trust) = (apis.addresses.clone(), apis.trust.clone());
    run_in(enter, trust, async move |client| {
        let mut found = ReadBack::default();
        let Some(newest) = newest(&client, &apis, &path).await else {
            found.unseen.push("the store answered no linearizable read afterwards".to_owned());
            return found;
        };
        for (host, address) in &apis {
            match catch_up(&client, *address, &path, newest).await {
                Ok(page) => found.members.push(contents(host, page)),
                Err(why) => found.unseen.push(format!("`{host}` could not be read back: {why}")),
            }
        }
        found
    })
}

/// Returns the revision that the whole store has reached, asked of any host.
async fn newest(client: &Client, apis: &BTreeMap<HostName, SocketAddr>, path: &str) -> Option<u64> {
    let deadline = Instant::now() + CATCH_UP_MAX;
    while Instant::now() < deadline {
        for address in apis.values() {
            if let Some(page) = read_page(client, *address, path).await {
                return Some(page.revision);
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    None
}

async fn catch_up(
    client: &Client,
    address: SocketAddr,
    path: &str,
    newest: u64,
) -> Result<Page, String> {
    let deadline = Instant::now() + CATCH_UP_MAX;
    let mut reached = None;
    while Instant::now() < deadline {
        if let Some(page) = read_page(client, address, &format!("{path}&stale")).await {
            if page.more {
                return Err(format!("it holds more than {KEYS_MAX} keys"));
            }
            if page.revision >= newest {
                return Ok(page);
            }
            reached = Some(page.revision);
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(match reached {
        Some(reached) => format!("it stays at revision {reached}, the store is at {newest}"),
        None => "it does not answer".to_owned(),
    })
}

async fn read_page(client: &Client, address: SocketAddr, path: &str) -> Option<Page> {
    let answer = client.ask(address, path, ANSWER_MAX).await?;
    answer.status.is_success().then(|| serde_json::from_slice(&answer.body).ok())?
}

fn contents(host: &HostName, page: Page) -> Contents {
    let entries = page.keys.into_iter().map(|item| {
        let Item { key, value, revision } = item;
        let key = key.strip_prefix(FOLDER).map_or_else(|| key.clone(), str::to_owned);
        // What is no profile was written by nobody: it stays in, so that it is found.
        let value = about(&value).unwrap_or_else(|| format!("not a profile: {value}"));
        (key, Entry { value, revision })
    });
    Contents { member: host.to_string(), entries: entries.collect() }
}

/// Returns what a profile holds.
fn about(value: &str) -> Option<String> {
    let profile: serde_json::Value = serde_json::from_str(value).ok()?;
    Some(profile.get("about")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_profile_is_not_dropped() {
        let page = r#"{"revision":9,"keys":[
            {"key":"profiles/x1-a","value":"{\"about\":\"fra-1-2\"}","revision":7},
            {"key":"profiles/x1-b","value":"fra-1-4","revision":8},
            {"key":"profiles/x1-c","value":"{\"name\":\"drill\"}","revision":9}]}"#;
        let page: Page = serde_json::from_str(page).unwrap();
        let contents = contents(&HostName::parse("fra-1").unwrap(), page);
        let values: Vec<&str> = contents.entries.values().map(|e| e.value.as_str()).collect();
        let garbled = "not a profile: {\"name\":\"drill\"}";
        assert_eq!(values, ["fra-1-2", "not a profile: fra-1-4", garbled]);
        let survival = evenkeel_checker::survival::check(&[], &[contents]);
        assert_eq!(survival.violations.len(), 3, "{survival:?}");
    }
}
