//! Changes of members as Raft writes them into entries, and groups as they stand in snapshots.

use prost::Message as _;
use prost::bytes::Bytes;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

use crate::log::DecodeError;
use crate::members::Members;

const WHAT: &str = "change of members";

/// Raft's own message: the tags are those of `eraftpb.proto`, and there is no format byte.
#[derive(Clone, PartialEq, prost::Message)]
struct WireChange {
    #[prost(message, repeated, tag = "2")]
    changes: Vec<WireSingle>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSingle {
    #[prost(enumeration = "WireKind", tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    member: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum WireKind {
    AddVoter = 0,
    Remove = 1,
    AddLearner = 2,
}

/// Decodes a change; one without content ends a joint change.
pub(crate) fn decode_change(data: &Bytes) -> Result<ConfChangeV2, DecodeError> {
    let wire = WireChange::decode(data.clone()).map_err(|_| DecodeError::Malformed(WHAT))?;
    let changes = wire.changes.into_iter().map(|single| {
        let kind = match WireKind::try_from(single.kind) {
            Ok(WireKind::AddVoter) => ConfChangeType::AddNode,
            Ok(WireKind::Remove) => ConfChangeType::RemoveNode,
            Ok(WireKind::AddLearner) => ConfChangeType::AddLearnerNode,
            Err(_) => return Err(DecodeError::Malformed(WHAT)),
        };
        let node_id = single.member;
        Ok(ConfChangeSingle { change_type: kind, node_id, ..ConfChangeSingle::default() })
    });
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    Ok(ConfChangeV2 { changes: changes.into(), ..ConfChangeV2::default() })
}

/// Puts a group and a position into a snapshot's form.
pub(crate) fn snapshot(index: u64, term: u64, members: &ConfState, data: Bytes) -> super::Snapshot {
    super::Snapshot {
        index,
        term,
        voters: members.voters.clone(),
        outgoing: members.voters_outgoing.clone(),
        learners: members.learners.clone(),
        data,
    }
}

/// Returns the group of a snapshot.
pub(crate) fn members_of(wire: &super::Snapshot) -> Result<Members, DecodeError> {
    let members = Members::from_raft(&ConfState {
        voters: wire.voters.clone(),
        voters_outgoing: wire.outgoing.clone(),
        learners: wire.learners.clone(),
        ..ConfState::default()
    });
    let sound = members.is_sound();
    sound.then_some(members).ok_or(DecodeError::Malformed("group of members"))
}

#[cfg(test)]
mod tests {
    use raft::RawNode;
    use raft::prelude::Config;

    use super::*;
    use crate::cache::{LogCache, Position};
    use crate::members::MembersChange;
    use crate::settings::MemberId;

    /// Has Raft itself write a change into its log, and reads it from there.
    fn written_by_raft(change: MembersChange) -> Bytes {
        let members = Members::of_voters([MemberId(1)]);
        let hard_state = raft::eraftpb::HardState { term: 1, commit: 1, ..Default::default() };
        let base = Position { index: 1, term: 1 };
        let cache = LogCache::new(base, [], hard_state, &members);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let config = Config { applied: 1, ..Config::new(1) };
        let mut raft = RawNode::new(&config, cache, &logger).unwrap();
        raft.campaign().unwrap();
        let ready = raft.ready();
        raft.mut_store().append(ready.entries());
        raft.advance_append(ready);
        raft.advance_apply_to(2);
        raft.propose_conf_change(Vec::new(), change.to_raft()).unwrap();
        raft.ready().entries().last().unwrap().data.clone()
    }

    #[test]
    fn what_raft_writes_is_read() {
        let (one, two) = (MemberId(1), MemberId(u64::MAX));
        for change in [
            MembersChange::AddLearner(two),
            MembersChange::RemoveLearner(two),
            MembersChange::Promote { learner: two, in_place_of: None },
            MembersChange::Promote { learner: two, in_place_of: Some(one) },
            MembersChange::RemoveVoter(one),
        ] {
            let read = decode_change(&written_by_raft(change)).unwrap();
            assert_eq!(read, change.to_raft(), "{change:?}");
        }
        assert_eq!(decode_change(&Bytes::new()).unwrap(), ConfChangeV2::default());
        assert!(decode_change(&Bytes::from_static(&[0x12, 2, 8, 9])).is_err(), "an unknown kind");
    }
}
