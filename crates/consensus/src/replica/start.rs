//! How a member starts: what its disk holds, checked and handed to Raft.

use std::collections::VecDeque;

use evenkeel_model::time::Timestamp;
use raft::eraftpb::HardState;
use raft::{Config, RawNode, ReadOnlyOption};

use super::lease_clock::LeaseClock;
use super::members::Heard;
use super::ready::CommitNews;
use super::rejoin::Rejoin;
use super::{Action, Counters, Replica, Role, Saves};
use crate::cache::{LogCache, Position, into_raft};
use crate::keys::KeySpace;
use crate::log::{Snapshot, Vote};
use crate::members::Members;
use crate::pending::{Proposals, Reads};
use crate::restore::{Joined, RestoreError, Restored, join_log, restore_keys};
use crate::settings::{Defect, MemberId, Settings, StateLimits};
use crate::timer::{TICKS, Timer};

/// The most bytes of entries in one message, unless a single entry is longer.
pub(super) const MESSAGE_BYTES: u32 = 1 << 20;

/// How many messages with entries may be under way to one follower.
const INFLIGHT_MAX: usize = 64;

pub(super) fn start(
    settings: Settings,
    restored: Restored,
    now: Timestamp,
) -> Result<Replica, RestoreError> {
    check_settings(&settings)?;
    let first = Members::of_voters(settings.voters.iter().copied());
    let is_new = restored == Restored::default() && first.is_voter(settings.member);
    let genesis = is_new.then(|| genesis(&first, settings.limits.state));
    let Restored { vote, snapshot, entries, rejoining } = restored;
    let snapshot = snapshot.or_else(|| genesis.clone());
    let (keys, base) = restore_keys(snapshot.as_ref(), settings.limits.state)?;
    let known = snapshot.as_ref().map(|snapshot| snapshot.members.clone());
    let forgotten = settings.defect == Some(Defect::MembersForgotten) && !first.voters.is_empty();
    let members = known.filter(|_| !forgotten).unwrap_or_else(|| first.clone());
    let Joined { before, entries, void } = join_log(base, entries)?;
    let last =
        entries.last().map_or(before, |entry| Position { index: entry.index, term: entry.term });
    let hard_state = restore_vote(vote, base, last)?;
    let cache = LogCache::new(before, entries.into_iter().map(into_raft), hard_state, &members);
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut raft = RawNode::new(&config(settings.member, base.index), cache, &logger)
        .map_err(|_| RestoreError::Settings("raft refuses the settings"))?;
    let mut timer = Timer::new(&settings, now);
    timer.after_step(&mut raft.raft, now);
    // A lone voter has nobody who could fill it.
    let alone = members.voters == [settings.member];
    let actions = rejoining.then_some(Action::Rejoined).filter(|_| alone);
    let ignored = settings.defect == Some(Defect::VotesWhileRejoining);
    let rejoin = Rejoin::new(rejoining && !alone && !ignored);
    Ok(Replica {
        told: Role { leader: None, term: raft.raft.term, is_leader: false },
        durable_term: raft.raft.term,
        member: settings.member,
        first,
        limits: settings.limits,
        defect: settings.defect,
        raft,
        timer,
        keys,
        applied: base,
        proposals: Proposals::default(),
        news: CommitNews::default(),
        reads: Reads::default(),
        leases: LeaseClock::default(),
        now,
        actions: actions.into_iter().collect(),
        held: VecDeque::new(),
        passing: None,
        installing: None,
        received: Vec::new(),
        encoding: false,
        unfinished: genesis.or(snapshot.filter(|_| void)),
        saves: Saves { index: base.index, begun: base.index, ..Saves::default() },
        told_members: Members::default(),
        heard: Heard::default(),
        rejoin,
        counters: Counters::default(),
    })
}

/// Returns what a new group begins with: nothing, and who its first voters are.
fn genesis(first: &Members, limits: StateLimits) -> Snapshot {
    let Position { index, term } = Position::GENESIS;
    let data = KeySpace::new(limits).encode().into();
    Snapshot { index, term, members: first.clone(), data }
}

fn check_settings(settings: &Settings) -> Result<(), RestoreError> {
    let mut voters = settings.voters.clone();
    voters.sort_unstable();
    let fault = if settings.member.0 == 0 || voters.contains(&MemberId(0)) {
        "a member's identity must not be zero"
    } else if voters.windows(2).any(|pair| pair[0] == pair[1]) {
        "a voter stands twice among the voters"
    } else if settings.heartbeat.as_millis() == 0 || settings.election_min <= settings.heartbeat {
        "heartbeats must be at least 1 ms apart and come before the election timeout"
    } else {
        return Ok(());
    };
    Err(RestoreError::Settings(fault))
}

fn config(member: MemberId, applied: u64) -> Config {
    Config {
        election_tick: TICKS,
        // The timer sends heartbeats; Raft's own would come so late that they never do.
        heartbeat_tick: TICKS - 1,
        applied,
        max_size_per_msg: u64::from(MESSAGE_BYTES),
        max_inflight_msgs: INFLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        // See `Replica::tell_committed`.
        skip_bcast_commit: true,
        read_only_option: ReadOnlyOption::Safe,
        ..Config::new(member.0)
    }
}

/// Returns what Raft must remember about elections.
fn restore_vote(
    vote: Option<Vote>,
    base: Position,
    last: Position,
) -> Result<HardState, RestoreError> {
    let vote = vote.unwrap_or(Vote { term: 0, member: None, commit: 0 });
    if vote.commit > last.index {
        return Err(RestoreError::Lost { commit: vote.commit, last: last.index });
    }
    // A crash may have come after the entries of a term were written and before the term was.
    let seen = base.term.max(last.term);
    let (term, member) = if vote.term < seen { (seen, None) } else { (vote.term, vote.member) };
    Ok(HardState {
        term,
        vote: member.map_or(raft::INVALID_ID, |member| member.0),
        commit: vote.commit.max(base.index),
        ..HardState::default()
    })
}
