//! The durable log: what was acknowledged is there again, what was damaged is refused.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use evenkeel_consensus::command::{self, Bytes, Change, Command, Expect};
use evenkeel_consensus::keys::KeySpace;
use evenkeel_consensus::log::{Entry, EntryKind, Snapshot, State, Vote};
use evenkeel_consensus::members::Members;
use evenkeel_consensus::replica::Persist;
use evenkeel_consensus::restore::Restored;
use evenkeel_consensus::settings::{MemberId, StateLimits};
use evenkeel_coordinator::log::{Event, Log, OpenError, Options, Recovered, SEGMENT_MIN, Space};

const SECTOR: usize = 512;
const PATIENCE: Duration = Duration::from_secs(30);

/// A log in a folder of its own, which goes when the test ends.
struct Fixture {
    folder: PathBuf,
    folder_bytes_max: u64,
    persists: u64,
}

struct Opened {
    log: Log,
    events: Receiver<Event>,
    restored: Restored,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("evenkeel-log-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        Self { folder, folder_bytes_max: u64::MAX, persists: 0 }
    }

    fn options(&self) -> Options {
        Options {
            folder: self.folder.clone(),
            owner: 7,
            segment_bytes: SEGMENT_MIN,
            folder_bytes_max: self.folder_bytes_max,
        }
    }

    fn try_open(&mut self) -> Result<(Log, Receiver<Event>, Recovered), OpenError> {
        self.persists = 0;
        let (sender, events) = channel();
        let (log, recovered) = Log::open(&self.options(), move |event| _ = sender.send(event))?;
        Ok((log, events, recovered))
    }

    fn open(&mut self) -> Opened {
        let (log, events, recovered) = self.try_open().unwrap();
        assert_eq!(recovered.cut, None);
        Opened { log, events, restored: recovered.restored }
    }

    fn refusal(&mut self) -> OpenError {
        let before = contents(&self.folder);
        let error = self.try_open().map(|_| ()).unwrap_err();
        assert_eq!(contents(&self.folder), before, "a refused log was changed");
        assert!(!error.help().is_empty());
        error
    }

    /// Writes and waits until it is durable.
    fn persist(&mut self, opened: &Opened, vote: Option<Vote>, entries: Vec<Entry>) {
        self.queue(opened, vote, entries);
        let number = self.persists;
        wait_for(&opened.events, &Event::Persisted { number });
    }

    fn queue(&mut self, opened: &Opened, vote: Option<Vote>, entries: Vec<Entry>) {
        self.persists += 1;
        let number = self.persists;
        opened.log.persist(Persist { number, vote, entries, snapshot: None, must_sync: true });
    }

    fn segments(&self) -> Vec<PathBuf> {
        contents(&self.folder)
            .into_keys()
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("segment-"))
            .collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn wait_for(events: &Receiver<Event>, wanted: &Event) {
    while events.recv_timeout(PATIENCE).expect("the log tells nothing more") != *wanted {}
}

fn entry(index: u64, term: u64, length: usize) -> Entry {
    let data = vec![u8::try_from(index % 251).unwrap() + 1; length];
    Entry { index, term, kind: EntryKind::Command, data: Bytes::from(data) }
}

fn vote(term: u64, commit: u64) -> Option<Vote> {
    Some(Vote { term, member: Some(MemberId(3)), commit })
}

fn snapshot(index: u64) -> Snapshot {
    state(index, 3000).snapshot()
}

/// A state with a value of `length` bytes.
fn state(index: u64, length: usize) -> State {
    let mut keys = KeySpace::new(StateLimits::STANDARD);
    keys.apply(Command::once(Change::Put {
        space: command::Space::User,
        key: "k".to_owned(),
        value: Bytes::from(vec![5; length]),
        expect: Expect::Any,
        lease: None,
    }));
    let members = Members::of_voters([1, 2, 3].map(MemberId));
    State { index, term: 1, members, keys }
}

/// What a crash does to the bytes of a segment.
type Tear<'a> = &'a dyn Fn(&mut Vec<u8>);

/// Changes a file in place.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn everything_durable_is_there_again() {
    let mut fixture = Fixture::new("again");
    let opened = fixture.open();
    assert_eq!(opened.restored, Restored::default());
    // Over several segments, one of them with an entry that is larger than a segment.
    for index in 1..=100 {
        let length = if index == 50 { 200 << 10 } else { 3000 };
        fixture.persist(&opened, vote(1, index - 1), vec![entry(index, 1, length)]);
    }
    // A new leader replaces what was not committed.
    fixture.persist(&opened, vote(2, 90), vec![entry(95, 2, 10), entry(96, 2, 10)]);
    opened.log.close();
    assert!(fixture.segments().len() > 4);

    let opened = fixture.open();
    let restored = &opened.restored;
    assert_eq!(restored.vote, vote(2, 90));
    assert_eq!(restored.snapshot, None);
    let mut expected: Vec<Entry> =
        (1..95).map(|index| entry(index, 1, if index == 50 { 200 << 10 } else { 3000 })).collect();
    expected.extend([entry(95, 2, 10), entry(96, 2, 10)]);
    assert_eq!(restored.entries, expected);
    opened.log.close();
}

#[test]
fn an_incomplete_last_write_is_cut() {
    let mut fixture = Fixture::new("torn");
    let opened = fixture.open();
    fixture.persist(&opened, vote(1, 0), vec![entry(1, 1, 100)]);
    fixture.persist(&opened, None, vec![entry(2, 1, 3000)]);
    opened.log.close();
    let path = fixture.segments().remove(0);
    let whole = fs::read(&path).unwrap();
    let end = used(&whole);

    let tears: [Tear<'_>; 5] = [
        &|bytes| bytes[end / SECTOR * SECTOR..].fill(0),
        &|bytes| bytes[end - 3000..end - 3000 + 2 * SECTOR].fill(0),
        &|bytes| bytes[2 * SECTOR..3 * SECTOR].fill(0),
        &|bytes| bytes.truncate(end - 10),
        &|bytes| bytes.truncate(2 * SECTOR + 20),
    ];
    for (case, tear) in tears.iter().enumerate() {
        fs::write(&path, &whole).unwrap();
        edit(&path, tear);
        let (log, events, recovered) = fixture.try_open().unwrap();
        assert_eq!(recovered.restored.entries, [entry(1, 1, 100)], "case {case}");
        assert_eq!(recovered.cut.unwrap().bytes.start, 2 * SECTOR, "case {case}");
        // The log goes on in the place of what was cut, and the cut is made once.
        let opened = Opened { log, events, restored: recovered.restored };
        fixture.persist(&opened, None, vec![entry(2, 1, 5)]);
        opened.log.close();
        let opened = fixture.open();
        assert_eq!(opened.restored.entries, [entry(1, 1, 100), entry(2, 1, 5)]);
        opened.log.close();
    }
}

/// A value may hold as many zeros as it likes: they are not taken for sectors that were never
/// written.
#[test]
fn news_of_what_is_committed_costs_no_write_of_its_own() {
    let mut fixture = Fixture::new("news");
    let opened = fixture.open();
    fixture.persist(&opened, vote(1, 0), vec![entry(1, 1, 100)]);
    let before = contents(&fixture.folder);
    fixture.persists += 1;
    let number = fixture.persists;
    let (vote_of_news, entries) = (vote(1, 1), Vec::new());
    let news = Persist { number, vote: vote_of_news, entries, snapshot: None, must_sync: false };
    opened.log.persist(news);
    wait_for(&opened.events, &Event::Persisted { number });
    let segments = |contents: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<Vec<u8>> {
        let of_log = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with("seg");
        contents.iter().filter(|(path, _)| of_log(path)).map(|(_, bytes)| bytes.clone()).collect()
    };
    assert_eq!(segments(&contents(&fixture.folder)), segments(&before));
    // It goes with the next write, or with the end.
    opened.log.close();
    let opened = fixture.open();
    assert_eq!(opened.restored.vote, vote(1, 1));
    opened.log.close();
}

#[test]
fn zeros_in_a_value_hide_no_damage() {
    let mut fixture = Fixture::new("zeros");
    let opened = fixture.open();
    fixture.persist(&opened, vote(1, 0), vec![entry(1, 1, 100)]);
    let zeros = Entry { data: Bytes::from(vec![0; 2048]), ..entry(2, 1, 0) };
    fixture.persist(&opened, None, vec![zeros.clone()]);
    opened.log.close();
    let opened = fixture.open();
    assert_eq!(opened.restored.entries, [entry(1, 1, 100), zeros]);
    opened.log.close();
    let path = fixture.segments().remove(0);
    let whole = fs::read(&path).unwrap();
    let end = used(&whole);
    assert!(end > 2 * SECTOR + 2000, "the last write ends at {end}");

    // A flipped bit in the head, in the record, in a sector of zeros, in such a sector's mark.
    for at in [2 * SECTOR + 5, 2 * SECTOR + 30, 3 * SECTOR + 100, 4 * SECTOR] {
        edit(&path, |bytes| bytes[at] ^= 8);
        assert!(matches!(fixture.refusal(), OpenError::SegmentDamaged { .. }), "at {at}");
        fs::write(&path, &whole).unwrap();
    }
    // A torn write: the same bytes, but for one sector that did not reach the disk.
    for sector in 2..end.div_ceil(SECTOR) {
        edit(&path, |bytes| bytes[sector * SECTOR..(sector + 1) * SECTOR].fill(0));
        let (log, _events, recovered) = fixture.try_open().unwrap();
        assert_eq!(recovered.restored.entries, [entry(1, 1, 100)], "sector {sector}");
        assert_eq!(recovered.cut.unwrap().bytes.start, 2 * SECTOR, "sector {sector}");
        log.close();
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn any_other_damage_is_refused() {
    let mut fixture = Fixture::new("damage");
    let opened = fixture.open();
    for index in 1..=60 {
        fixture.persist(&opened, vote(1, index - 1), vec![entry(index, 1, 2500)]);
    }
    opened.log.close();
    let segments = fixture.segments();
    assert_eq!(segments.len(), 3);
    let whole = contents(&fixture.folder);
    let last_end = used(&whole[&segments[2]]);

    // One flipped bit: in a first sector, in the middle of a segment, in the last whole write.
    for (segment, at) in [
        (0, 20),
        (1, 0),
        (0, 2 * SECTOR),
        (0, 5000),
        (1, 30_000),
        (2, SECTOR + 6),
        (2, last_end - 2000),
        (2, (last_end - 2500) / SECTOR * SECTOR + 13),
    ] {
        edit(&segments[segment], |bytes| bytes[at] ^= 8);
        let error = fixture.refusal();
        assert!(
            matches!(&error, OpenError::SegmentDamaged { path, .. } if *path == segments[segment]),
            "segment {segment} at {at}: {error}"
        );
        fs::write(&segments[segment], &whole[&segments[segment]]).unwrap();
    }
    // Zeros where a segment that is followed by another one had its end.
    edit(&segments[1], |bytes| bytes[60_000..].fill(0));
    assert!(matches!(fixture.refusal(), OpenError::SegmentDamaged { .. }));
    fs::write(&segments[1], &whole[&segments[1]]).unwrap();
    // A file that is gone.
    fs::remove_file(&segments[1]).unwrap();
    assert!(matches!(fixture.refusal(), OpenError::SegmentMissing { .. }));
    fs::remove_file(&segments[0]).unwrap();
    assert!(matches!(fixture.refusal(), OpenError::SnapshotMissing { first, .. } if first > 40));
}

#[test]
fn files_of_another_owner_are_refused() {
    let mut fixture = Fixture::new("foreign");
    fixture.open().log.close();
    let options = Options { owner: 8, ..fixture.options() };
    let error = Log::open(&options, |_| ()).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

#[test]
fn snapshots_let_the_log_go_and_a_damaged_one_is_refused() {
    let mut fixture = Fixture::new("snapshots");
    let opened = fixture.open();
    for index in 1..=100 {
        fixture.persist(&opened, vote(1, index - 1), vec![entry(index, 1, 3000)]);
        if index % 30 == 0 {
            opened.log.save_snapshot(state(index, 3000));
            wait_for(&opened.events, &Event::SnapshotSaved { index });
            opened.log.compact(index);
        }
    }
    opened.log.close();
    let names: Vec<String> = contents(&fixture.folder)
        .keys()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let newest = "snapshot-00000000000000000090";
    assert!(names.contains(&newest.to_owned()), "{names:?}");
    assert!(names.contains(&"snapshot-00000000000000000060".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with("30") || name.ends_with("000001")));

    let opened = fixture.open();
    assert_eq!(opened.restored.snapshot, Some(snapshot(90)));
    assert_eq!(opened.restored.entries.last(), Some(&entry(100, 1, 3000)));
    assert!(opened.restored.entries.first().unwrap().index <= 61);
    opened.log.close();

    // The cure in the message works: the older snapshot and the log hold the same state.
    let newest = fixture.folder.join(newest);
    edit(&newest, |bytes| bytes[1000] ^= 1);
    let error = fixture.refusal();
    assert!(matches!(error, OpenError::SnapshotDamaged { spare: true, .. }), "{error}");
    assert!(error.help().contains("move"), "{}", error.help());
    fs::remove_file(&newest).unwrap();
    let opened = fixture.open();
    assert_eq!(opened.restored.snapshot, Some(snapshot(60)));
    assert_eq!(opened.restored.entries.last(), Some(&entry(100, 1, 3000)));
    opened.log.close();
}

#[test]
fn a_snapshot_from_the_leader_replaces_the_log() {
    let mut fixture = Fixture::new("install");
    let opened = fixture.open();
    for index in 1..=5 {
        fixture.persist(&opened, vote(1, 1), vec![entry(index, 1, 10)]);
    }
    fixture.persists += 1;
    opened.log.persist(Persist {
        number: fixture.persists,
        vote: vote(4, 500),
        entries: Vec::new(),
        snapshot: Some(snapshot(500)),
        must_sync: true,
    });
    fixture.persist(&opened, None, vec![entry(501, 4, 10)]);
    opened.log.close();
    let opened = fixture.open();
    let expected = Restored {
        vote: vote(4, 500),
        snapshot: Some(snapshot(500)),
        entries: vec![entry(501, 4, 10)],
        rejoining: false,
    };
    assert_eq!(opened.restored, expected);
    opened.log.close();
    // Nothing else holds what this snapshot holds.
    edit(&fixture.folder.join("snapshot-00000000000000000500"), |bytes| bytes[60] ^= 1);
    assert!(matches!(fixture.refusal(), OpenError::SnapshotDamaged { spare: false, .. }));
}

#[test]
fn a_crash_between_a_snapshot_and_its_record_loses_nothing() {
    let mut fixture = Fixture::new("between");
    let opened = fixture.open();
    for index in 1..=5 {
        fixture.persist(&opened, vote(1, 1), vec![entry(index, 1, 10)]);
    }
    opened.log.close();
    // The log of another fixture lends a snapshot file that this log knows nothing about.
    let mut lender = Fixture::new("between-lender");
    let opened = lender.open();
    opened.log.save_snapshot(state(500, 3000));
    wait_for(&opened.events, &Event::SnapshotSaved { index: 500 });
    opened.log.close();
    let name = "snapshot-00000000000000000500";
    fs::copy(lender.folder.join(name), fixture.folder.join(name)).unwrap();

    for _ in 0..2 {
        let opened = fixture.open();
        assert_eq!(opened.restored.snapshot, Some(snapshot(500)));
        assert_eq!(opened.restored.entries, []);
        assert_eq!(opened.restored.vote, vote(1, 1));
        opened.log.close();
    }
    let opened = fixture.open();
    fixture.persist(&opened, None, vec![entry(501, 4, 10)]);
    opened.log.close();
    let opened = fixture.open();
    assert_eq!(opened.restored.entries, [entry(501, 4, 10)]);
    opened.log.close();
}

#[test]
fn a_full_disk_is_told_and_votes_still_fit() {
    let mut fixture = Fixture::new("full");
    fixture.folder_bytes_max = 3 * SEGMENT_MIN + 10_000;
    let opened = fixture.open();
    let mut index = 0;
    loop {
        index += 1;
        assert!(index < 100, "the log grows beyond its bound");
        fixture.queue(&opened, None, vec![entry(index, 1, 3000)]);
        if is_full_after(&fixture, &opened.events) {
            break;
        }
    }
    fixture.persist(&opened, vote(9, index), Vec::new());
    // A snapshot lets the log go; the space is back.
    for index in [index - 1, index] {
        opened.log.save_snapshot(state(index, 3000));
        wait_for(&opened.events, &Event::SnapshotSaved { index });
    }
    opened.log.compact(index);
    wait_for(&opened.events, &Event::Space(Space::Free));
    fixture.persist(&opened, None, vec![entry(index + 1, 9, 3000)]);
    opened.log.close();
}

/// Waits until what was queued is durable and the housekeeper has done its work. Returns whether
/// the disk was told to be full meanwhile.
fn is_full_after(fixture: &Fixture, events: &Receiver<Event>) -> bool {
    let spare = fixture.folder.join("spare");
    let mut full = false;
    let mut durable = false;
    while !durable || !(full || spare.exists()) {
        if let Ok(event) = events.recv_timeout(Duration::from_millis(1)) {
            full |= event == Event::Space(Space::Full);
            durable |= event == (Event::Persisted { number: fixture.persists });
        }
    }
    full
}

#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
fn skip(reason: &str) {
    // Only an ordinary user may do without: as root, something is missing.
    assert!(!nix::unistd::geteuid().is_root(), "{reason}");
    println!("skipped: {reason}");
}

/// Runs a test on a file system of its own with 1 MiB; says so when that needs more rights.
fn on_small_disk(name: &str, test: impl FnOnce(&Path) + Send + 'static) {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    let folder = std::env::temp_dir().join(format!("evenkeel-disk-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mounted = folder.clone();
    // Mounts of this thread, and of the threads that it starts, are seen by no other.
    let thread = std::thread::spawn(move || {
        const NONE: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let made = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(NONE, "/", NONE, private, NONE))
            .and_then(|()| {
                mount(Some("disk"), &mounted, Some("tmpfs"), MsFlags::empty(), Some("size=1M"))
            });
        match made {
            Ok(()) => test(&mounted),
            Err(error) => skip(&format!("cannot mount a small disk: {error}")),
        }
    });
    let result = thread.join();
    fs::remove_dir(&folder).unwrap();
    result.unwrap();
}

#[test]
fn a_disk_that_others_fill_is_waited_for() {
    on_small_disk("filled", |disk| {
        let folder = disk.join("log");
        let mut fixture = Fixture { folder, folder_bytes_max: u64::MAX, persists: 0 };
        let opened = fixture.open();
        fixture.persist(&opened, vote(1, 0), vec![entry(1, 1, 100)]);
        fixture.persist(&opened, None, vec![entry(2, 1, 100)]);
        while !fixture.folder.join("spare").exists() {
            std::thread::yield_now();
        }
        let ballast = disk.join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        while io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}

        let mut index = 2;
        loop {
            index += 1;
            assert!(index < 100, "the disk never runs full");
            fixture.queue(&opened, None, vec![entry(index, 1, 3000)]);
            if is_full_after(&fixture, &opened.events) {
                break;
            }
        }
        // A vote still fits; a snapshot larger than what is left waits until there is space.
        fixture.persist(&opened, vote(7, index), Vec::new());
        opened.log.save_snapshot(state(index, 100 << 10));
        fs::remove_file(&ballast).unwrap();
        drop(file);
        let mut awaited = vec![Event::Space(Space::Free), Event::SnapshotSaved { index }];
        while !awaited.is_empty() {
            let event = opened.events.recv_timeout(PATIENCE).unwrap();
            awaited.retain(|awaited| *awaited != event);
        }
        for index in index + 1..index + 60 {
            fixture.persist(&opened, None, vec![entry(index, 7, 3000)]);
        }
        opened.log.close();
        let opened = fixture.open();
        assert_eq!(opened.restored.vote, vote(7, index));
        assert_eq!(opened.restored.entries.last(), Some(&entry(index + 59, 7, 3000)));
        opened.log.close();
    });
}
