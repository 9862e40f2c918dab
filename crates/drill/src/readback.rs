//! Reads what every member of the store holds, after everything has healed.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_checker::survival::{Contents, Entry};
use evenkeel_model::name::HostName;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::load::EnterNetwork;
use crate::network::run_in;

/// Time for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Time for a member to catch up with what was acknowledged.
const CATCH_UP_MAX: Duration = Duration::from_secs(8);
/// Most keys of one experiment.
const KEYS_MAX: usize = 1000;

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
pub(crate) fn read_back(
    enter: &EnterNetwork,
    apis: &BTreeMap<HostName, SocketAddr>,
    prefix: &str,
) -> io::Result<ReadBack> {
    let path = format!("/v1/kv?prefix=profiles/{prefix}-&limit={KEYS_MAX}");
    let apis = apis.clone();
    run_in(enter, async move |client| {
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
    let entries = page.keys.into_iter().filter_map(|item| {
        let key = item.key.strip_prefix("profiles/")?.to_owned();
        let profile: serde_json::Value = serde_json::from_str(&item.value).ok()?;
        let value = profile.get("about")?.as_str()?.to_owned();
        Some((key, Entry { value, revision: item.revision }))
    });
    Contents { member: host.to_string(), entries: entries.collect() }
}
