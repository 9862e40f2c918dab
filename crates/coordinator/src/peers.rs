//! Links between members: one ordered connection in each direction, and one more while a snapshot
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
mod succession;

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_consensus::members::Members;
use evenkeel_consensus::settings::MemberId;
use evenkeel_model::name::{HostName, SystemName};
use evenkeel_trust::tls::Trust;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::options::Voter;
use link::Link;
pub(crate) use succession::Succession;

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
    /// What it proves that with.
    pub(crate) trust: Option<Trust>,
    /// To which lineage its state belongs.
    pub(crate) succession: Arc<Succession>,
}

impl Identity {
    pub(crate) fn new(
        system: &SystemName,
        host: &HostName,
        trust: Option<Trust>,
        succession: Arc<Succession>,
    ) -> Self {
        Self {
            system: system.clone(),
            host: host.clone(),
            member: crate::options::member(host),
            trust,
            succession,
        }
    }
}

/// The links of one member. Ends them when dropped.
#[derive(Debug)]
pub(crate) struct Peers {
    identity: Identity,
    /// Where the others are found.
    others: BTreeMap<MemberId, Voter>,
    /// One to each with whom there is something to speak, and what ends it.
    links: BTreeMap<MemberId, (Link, AbortHandle)>,
    inbox: mpsc::Sender<Incoming>,
    tasks: JoinSet<()>,
}

impl Peers {
    /// Accepts links of any of `others`, and opens one to each that is to be told something. Must be
    /// called within a runtime.
    pub(crate) fn start(
        identity: &Identity,
        others: &[Voter],
        listener: TcpListener,
        inbox: &mpsc::Sender<Incoming>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let others: BTreeMap<MemberId, Voter> =
            others.iter().map(|other| (other.member(), other.clone())).collect();
        let members = others.keys().copied().collect();
        tasks.spawn(accept::run(listener, identity.clone(), members, inbox.clone()));
        let (identity, links) = (identity.clone(), BTreeMap::new());
        Self { identity, others, links, inbox: inbox.clone(), tasks }
    }

    /// Ends the links to those that take part no more.
    pub(crate) fn follow(&mut self, members: &Members) {
        self.links.retain(|member, (_, task)| {
            let stays = members.contains(*member);
            if !stays {
                task.abort();
            }
            stays
        });
    }

    /// Returns the link to a member; `None` when it is not known where that is.
    fn link(&mut self, to: MemberId) -> Option<&Link> {
        if !self.links.contains_key(&to) {
            let other = self.others.get(&to)?.clone();
            let link = Link::new(self.identity.clone(), other);
            let task = self.tasks.spawn(link.clone().run(self.inbox.clone()));
            self.links.insert(to, (link, task));
        }
        self.links.get(&to).map(|(link, _)| link)
    }

    /// Queues a message. Returns whether one had to be dropped for it.
    #[must_use]
    pub(crate) fn send(&mut self, to: MemberId, message: Vec<u8>) -> bool {
        self.link(to).is_none_or(|link| link.push(message))
    }

    /// Sends a snapshot on a connection of its own; its end is told by [`Incoming::BulkSent`].
    pub(crate) fn send_bulk(&mut self, to: MemberId, message: Vec<u8>) {
        let link = self.link(to).cloned();
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
