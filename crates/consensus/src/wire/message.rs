//! What members say to each other.

use prost::bytes::{Buf as _, Bytes};
use prost::encoding::{DecodeContext, decode_key, skip_field};
use raft::eraftpb::{self, MessageType};

use super::members::{members_of, snapshot};
use super::{decode, encode};
use crate::cache::{from_raft, into_raft};
use crate::log::{DecodeError, Entry};
use crate::settings::MemberId;

const WHAT: &str = "message";

/// The tags of what takes room on the receiver's disk.
const ENTRIES_TAG: u32 = 7;
const SNAPSHOT_TAG: u32 = 10;

#[derive(Clone, PartialEq, prost::Message)]
struct WireMessage {
    #[prost(enumeration = "Kind", tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    to: u64,
    #[prost(uint64, tag = "3")]
    from: u64,
    #[prost(uint64, tag = "4")]
    term: u64,
    #[prost(uint64, tag = "5")]
    log_term: u64,
    #[prost(uint64, tag = "6")]
    index: u64,
    #[prost(message, repeated, tag = "7")]
    entries: Vec<super::Entry>,
    #[prost(uint64, tag = "8")]
    commit: u64,
    #[prost(uint64, tag = "9")]
    commit_term: u64,
    #[prost(message, optional, tag = "10")]
    snapshot: Option<super::Snapshot>,
    #[prost(bool, tag = "11")]
    reject: bool,
    #[prost(uint64, tag = "12")]
    reject_hint: u64,
    #[prost(bytes = "bytes", tag = "13")]
    context: Bytes,
}

/// What Raft sends over the network. Proposals and reads are never forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    Unset = 0,
    Append = 1,
    AppendResponse = 2,
    Vote = 3,
    VoteResponse = 4,
    PreVote = 5,
    PreVoteResponse = 6,
    Heartbeat = 7,
    HeartbeatResponse = 8,
    Snapshot = 9,
    TimeoutNow = 10,
}

impl Kind {
    const fn from_raft(kind: MessageType) -> Option<Self> {
        match kind {
            MessageType::MsgAppend => Some(Self::Append),
            MessageType::MsgAppendResponse => Some(Self::AppendResponse),
            MessageType::MsgRequestVote => Some(Self::Vote),
            MessageType::MsgRequestVoteResponse => Some(Self::VoteResponse),
            MessageType::MsgRequestPreVote => Some(Self::PreVote),
            MessageType::MsgRequestPreVoteResponse => Some(Self::PreVoteResponse),
            MessageType::MsgHeartbeat => Some(Self::Heartbeat),
            MessageType::MsgHeartbeatResponse => Some(Self::HeartbeatResponse),
            MessageType::MsgSnapshot => Some(Self::Snapshot),
            MessageType::MsgTimeoutNow => Some(Self::TimeoutNow),
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp => None,
        }
    }

    const fn into_raft(self) -> Option<MessageType> {
        match self {
            Self::Unset => None,
            Self::Append => Some(MessageType::MsgAppend),
            Self::AppendResponse => Some(MessageType::MsgAppendResponse),
            Self::Vote => Some(MessageType::MsgRequestVote),
            Self::VoteResponse => Some(MessageType::MsgRequestVoteResponse),
            Self::PreVote => Some(MessageType::MsgRequestPreVote),
            Self::PreVoteResponse => Some(MessageType::MsgRequestPreVoteResponse),
            Self::Heartbeat => Some(MessageType::MsgHeartbeat),
            Self::HeartbeatResponse => Some(MessageType::MsgHeartbeatResponse),
            Self::Snapshot => Some(MessageType::MsgSnapshot),
            Self::TimeoutNow => Some(MessageType::MsgTimeoutNow),
        }
    }
}

/// Encodes a message; `None` for one that never leaves a member.
pub(crate) fn encode_message(message: eraftpb::Message) -> Option<Vec<u8>> {
    let kind = Kind::from_raft(message.msg_type)?;
    let snapshot = (kind == Kind::Snapshot).then(|| {
        let found = message.get_snapshot();
        let metadata = found.get_metadata();
        let members = metadata.get_conf_state();
        snapshot(metadata.index, metadata.term, members, found.data.clone())
    });
    let entries = message.entries.iter().map(|entry| super::Entry::from(from_raft(entry)));
    Some(encode(&WireMessage {
        kind: kind.into(),
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: entries.collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
    }))
}

/// Decodes a message to `me`, and checks that its parts agree. It may come from somebody of whom
/// this member knows nothing: one that joins knows nobody, and one that was away does not know
/// those that have joined. The shell sees to it that they are of this system.
pub(crate) fn decode_message(
    bytes: Vec<u8>,
    me: MemberId,
) -> Result<eraftpb::Message, DecodeError> {
    let wire: WireMessage = decode(&bytes.into(), WHAT)?;
    let kind = Kind::try_from(wire.kind).unwrap_or(Kind::Unset);
    let from = MemberId(wire.from);
    let kind = kind
        .into_raft()
        .filter(|_| wire.to == me.0 && from != me && from.0 != 0)
        .filter(|_| wire.term > 0 && entries_agree(&wire))
        .filter(|_| (kind == Kind::Snapshot) == wire.snapshot.is_some())
        .ok_or(DecodeError::Malformed(WHAT))?;
    let mut message = eraftpb::Message {
        msg_type: kind,
        to: wire.to,
        from: wire.from,
        term: wire.term,
        log_term: wire.log_term,
        index: wire.index,
        commit: wire.commit,
        commit_term: wire.commit_term,
        reject: wire.reject,
        reject_hint: wire.reject_hint,
        context: wire.context,
        ..eraftpb::Message::default()
    };
    let entries = wire.entries.into_iter().map(|entry| Entry::try_from(entry).map(into_raft));
    message.set_entries(entries.collect::<Result<Vec<_>, _>>()?.into());
    if let Some(snapshot) = wire.snapshot {
        message.set_snapshot(raft_snapshot(snapshot)?);
    }
    Ok(message)
}

/// Returns whether the entries follow the position that the message names, in index and term.
fn entries_agree(wire: &WireMessage) -> bool {
    let mut last = (wire.index, wire.log_term);
    let follow = wire.entries.iter().all(|entry| {
        let follows = Some(entry.index) == last.0.checked_add(1) && entry.term >= last.1;
        last = (entry.index, entry.term);
        follows
    });
    follow && (wire.entries.is_empty() || last.1 <= wire.term)
}

fn raft_snapshot(wire: super::Snapshot) -> Result<eraftpb::Snapshot, DecodeError> {
    if wire.index == 0 || wire.term == 0 {
        return Err(DecodeError::Malformed(WHAT));
    }
    let members = members_of(&wire)?;
    let mut snapshot = eraftpb::Snapshot { data: wire.data, ..eraftpb::Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = wire.index;
    metadata.term = wire.term;
    metadata.set_conf_state(members.to_raft());
    Ok(snapshot)
}

/// Returns whether a message holds entries or a snapshot, without copying them. Foreign bytes hold
/// nothing: they are refused where they are decoded.
pub(crate) fn carries_entries(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(1..).unwrap_or_default();
    while rest.has_remaining() {
        let Ok((tag, wire_type)) = decode_key(&mut rest) else { return false };
        if matches!(tag, ENTRIES_TAG | SNAPSHOT_TAG) {
            return true;
        }
        if skip_field(wire_type, tag, &mut rest, DecodeContext::default()).is_err() {
            return false;
        }
    }
    false
}

/// Puts a message into words, for a person who reads a transcript.
pub(crate) fn describe_message(bytes: &[u8]) -> String {
    let Ok(wire) = decode::<WireMessage>(&Bytes::copy_from_slice(bytes), WHAT) else {
        return format!("{} foreign bytes", bytes.len());
    };
    let WireMessage { term, log_term, index, commit, reject_hint, .. } = wire;
    let kind = Kind::try_from(wire.kind).unwrap_or(Kind::Unset);
    let verdict = if wire.reject { "refused" } else { "granted" };
    match kind {
        Kind::Append => {
            let count = wire.entries.len();
            format!("term {term}: append {count} behind {index}@{log_term}, commit {commit}")
        }
        Kind::AppendResponse if wire.reject => {
            format!(
                "term {term}: append behind {index} refused, last match {reject_hint}@{log_term}"
            )
        }
        Kind::AppendResponse => format!("term {term}: appended up to {index}, commit {commit}"),
        Kind::Vote => format!("term {term}: vote? with {index}@{log_term}"),
        Kind::PreVote => format!("term {term}: would you vote? with {index}@{log_term}"),
        Kind::VoteResponse => format!("term {term}: vote {verdict}"),
        Kind::PreVoteResponse => format!("term {term}: pre-vote {verdict}"),
        Kind::Heartbeat => format!("term {term}: heartbeat, commit {commit}"),
        Kind::HeartbeatResponse => format!("term {term}: heartbeat answered, commit {commit}"),
        Kind::Snapshot => {
            let (index, at) = wire.snapshot.map_or((0, 0), |found| (found.index, found.term));
            format!("term {term}: snapshot {index}@{at}")
        }
        Kind::TimeoutNow => format!("term {term}: call an election now"),
        Kind::Unset => format!("term {term}: unknown kind {}", wire.kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: MessageType, entries: usize, expected: bool) {
        let entry = eraftpb::Entry { index: 8, term: 3, ..eraftpb::Entry::default() };
        let mut message = eraftpb::Message {
            msg_type: kind,
            // Names of real members are long, an entry may be shorter than one of them.
            to: u64::MAX,
            from: u64::MAX - 1,
            term: 3,
            index: 7,
            commit: 7,
            context: Bytes::from(vec![1; 200]),
            ..eraftpb::Message::default()
        };
        message.set_entries(vec![entry; entries].into());
        let bytes = encode_message(message).unwrap();
        assert_eq!(carries_entries(&bytes), expected, "{}", describe_message(&bytes));
    }

    #[test]
    fn what_takes_room_is_told_by_its_kind_and_not_by_its_length() {
        check(MessageType::MsgAppend, 0, false);
        check(MessageType::MsgAppend, 1, true);
        check(MessageType::MsgAppend, 30, true);
        check(MessageType::MsgSnapshot, 0, true);
        for kind in [
            MessageType::MsgAppendResponse,
            MessageType::MsgRequestVote,
            MessageType::MsgRequestVoteResponse,
            MessageType::MsgRequestPreVote,
            MessageType::MsgHeartbeat,
            MessageType::MsgHeartbeatResponse,
            MessageType::MsgTimeoutNow,
        ] {
            check(kind, 0, false);
        }
        for foreign in [&[][..], &[1], &[1, 0xff], &[1, 2]] {
            assert!(!carries_entries(foreign), "{foreign:?}");
        }
    }
}
