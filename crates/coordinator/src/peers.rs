//! Links between voters: one ordered connection in each direction, and one more while a snapshot
//! is sent, so that it delays no heartbeat.
//!
//! A link may lose messages, and tells so: the protocol sends again. Everything is bounded: a
//! message, a queue (the oldest message goes), the time until a silent connection is given up.
//!
//! ```text
//! connecting side                            accepting side
//!   TLS, unless both are on one machine: each shows the other its certificate
//!   magic 4 B, hello frame  ─────────────▶
//!                           ◀─────────────   welcome frame: accepted, or why not
//!   message frames          ─────────────▶
//! ```
//! A frame is `length u32 | crc32c u32 | bytes`, little-endian.

mod accept;
mod frame;
mod hello;
mod link;
mod socket;

use std::collections::BTreeMap;

use evenkeel_consensus::settings::MemberId;
use evenkeel_model::name::{HostName, SystemName};
use evenkeel_trust::tls::Trust;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::digest::digest;
use crate::options::Voter;
use link::Link;

/// Something that a link reports.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message from another voter.
    Message(Vec<u8>),
    /// Messages to this voter are being lost.
    Unreachable(MemberId),
    /// A snapshot has arrived at this voter, or was lost on the way.
    BulkSent { to: MemberId, ok: bool },
}

/// Who this voter is, as it introduces itself.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) system: SystemName,
    pub(crate) host: HostName,
    pub(crate) member: MemberId,
    /// Stands for the list of voters.
    pub(crate) voters: u64,
    /// What it proves that with.
    pub(crate) trust: Option<Trust>,
}

impl Identity {
    pub(crate) fn new(
        system: &SystemName,
        host: &HostName,
        voters: &[Voter],
        trust: Option<Trust>,
    ) -> Self {
        let mut hosts: Vec<&str> = voters.iter().map(|voter| voter.host.as_str()).collect();
        hosts.sort_unstable();
        Self {
            system: system.clone(),
            host: host.clone(),
            member: crate::options::member(host),
            voters: digest(hosts),
            trust,
        }
    }
}

/// The links of one voter. Ends them when dropped.
#[derive(Debug)]
pub(crate) struct Peers {
    links: BTreeMap<MemberId, Link>,
    inbox: mpsc::Sender<Incoming>,
    tasks: JoinSet<()>,
}

impl Peers {
    /// Opens a link to each of `others` and accepts theirs. Must be called within a runtime.
    pub(crate) fn start(
        identity: &Identity,
        others: &[Voter],
        listener: TcpListener,
        inbox: &mpsc::Sender<Incoming>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut links = BTreeMap::new();
        for voter in others {
            let link = Link::new(identity.clone(), voter.clone());
            tasks.spawn(link.clone().run(inbox.clone()));
            links.insert(voter.member(), link);
        }
        let members = links.keys().copied().collect();
        tasks.spawn(accept::run(listener, identity.clone(), members, inbox.clone()));
        Self { links, inbox: inbox.clone(), tasks }
    }

    /// Queues a message. Returns whether one had to be dropped for it.
    #[must_use]
    pub(crate) fn send(&self, to: MemberId, message: Vec<u8>) -> bool {
        self.links.get(&to).is_none_or(|link| link.push(message))
    }

    /// Sends a snapshot on a connection of its own; its end is told by [`Incoming::BulkSent`].
    pub(crate) fn send_bulk(&mut self, to: MemberId, message: Vec<u8>) {
        let link = self.links.get(&to).cloned();
        let inbox = self.inbox.clone();
        self.tasks.spawn(async move {
            let ok = match link {
                Some(link) => link.send_bulk(message).await,
                None => false,
            };
            drop(inbox.send(Incoming::BulkSent { to, ok }).await);
        });
        while self.tasks.try_join_next().is_some() {}
    }
}
