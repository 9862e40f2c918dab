//! Which processes belong to a shim, and how they are ended when the shim can no longer do it.
//!
//! A process id alone proves nothing: it may have been given to another process since. A process
//! is a shim's if its environment says so ([`MARKER`]), or if it is in the process group and
//! session recorded in `child.json` and cannot have been put there by anyone else.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::folder::ChildRecord;
use crate::raw::PidFd;

/// The environment variable that every process of a shim inherits: the shim's folder.
pub const MARKER: &str = "EVENKEEL_SHIM";

/// Time for killed processes to be gone.
const END_MAX: Duration = Duration::from_secs(5);

/// Looks in a row that must find nobody. One is not enough: a process that starts another and
/// ends, both during the look, hides it.
const CLEAN_LOOKS: u32 = 3;

/// What the kernel says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessStat {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// When it started, in clock ticks since the machine did.
    pub start_time: u64,
    /// It has ended and waits for its parent to notice.
    pub is_zombie: bool,
}

impl ProcessStat {
    /// Reads `/proc/PID/stat`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(pid, &text).ok_or_else(|| io::Error::other("an unknown form of /proc/PID/stat"))
    }

    /// proc(5): the second field is the name in parentheses, which may contain anything.
    fn parse(pid: u32, text: &[u8]) -> Option<Self> {
        let name_end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(name_end + 2..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            is_zombie: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Returns which life of the machine, or of this container, this is: start times and process ids
/// of another one mean nothing.
///
/// # Errors
/// When `/proc` is not there.
pub fn read_boot() -> io::Result<String> {
    let machine = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let first = ProcessStat::read(1)?;
    Ok(format!("{}:{}", machine.trim(), first.start_time))
}

/// Returns every process that can be seen, zombies included.
pub(crate) fn list() -> Vec<ProcessStat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| ProcessStat::read(pid).ok())
        .collect()
}

/// Whose processes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Those of the shim with this folder.
    Shim(&'a Path),
    /// Those of all shims whose folders are in this one.
    AllIn(&'a Path),
}

/// Returns the ids of the processes whose environment names a shim folder of `scope`: the shims
/// themselves and all that they started. Zombies have no environment, and are not among them.
#[must_use]
pub fn list_marked(scope: Scope<'_>) -> Vec<u32> {
    let marker = Marker::new(scope);
    list().iter().filter(|stat| marker.is_on(stat)).map(|stat| stat.pid).collect()
}

/// Ends every process of a shim that is no more, and returns those that could not be ended.
///
/// Blocks, in the worst case for 5 s.
pub(crate) fn end_left_behind(folder: &Path, child: Option<&ChildRecord>) -> Vec<u32> {
    let marker = Marker::new(Scope::Shim(folder));
    let child = child.filter(|child| read_boot().is_ok_and(|boot| boot == child.boot));
    end_all(|all, stat| marker.is_on(stat) || child.is_some_and(|child| is_of(child, all, stat)))
}

/// Ends every process that [`list_marked`] returns, and returns those that could not be ended.
///
/// Blocks, in the worst case for 5 s.
pub fn end_marked(scope: Scope<'_>) -> Vec<u32> {
    let marker = Marker::new(scope);
    end_all(|_, stat| marker.is_on(stat))
}

fn end_all(is_ours: impl Fn(&[ProcessStat], &ProcessStat) -> bool) -> Vec<u32> {
    let until = Instant::now() + END_MAX;
    let own = std::process::id();
    let mut clean_looks = 0;
    loop {
        let all = list();
        let ours: Vec<&ProcessStat> = all
            .iter()
            .filter(|stat| stat.pid != own && !stat.is_zombie && is_ours(&all, stat))
            .collect();
        clean_looks = if ours.is_empty() { clean_looks + 1 } else { 0 };
        if clean_looks == CLEAN_LOOKS {
            return Vec::new();
        }
        for stat in &ours {
            end_one(stat);
        }
        if Instant::now() > until {
            return ours.iter().map(|stat| stat.pid).collect();
        }
        // Those that were just killed may have started others that this look has not seen.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends exactly this process: after the pidfd is open its id cannot change hands, and the start
/// time says whether it had before.
fn end_one(stat: &ProcessStat) {
    let Ok(handle) = PidFd::open(stat.pid) else { return };
    let same = ProcessStat::read(stat.pid).is_ok_and(|now| now.start_time == stat.start_time);
    if same && let Err(error) = handle.send(Signal::SIGKILL) {
        tracing::warn!(pid = stat.pid, %error, "a process could not be ended");
    }
}

/// Returns whether the process is in the group that `child` led.
///
/// The kernel does not give a number to a new process as long as a group or session has it, so
/// the pair of both numbers can only be another's if both the group and the session have died
/// out. Then whoever leads the group now started later than `child`.
fn is_of(child: &ChildRecord, all: &[ProcessStat], stat: &ProcessStat) -> bool {
    let leader_is_other =
        all.iter().any(|other| other.pid == child.pid && other.start_time != child.start_time);
    stat.group == child.pid
        && stat.session == child.session
        && stat.start_time >= child.start_time
        && !leader_is_other
}

/// The text to look for in a process's environment.
enum Marker {
    Exactly(OsString),
    BeginningWith(OsString),
}

impl Marker {
    fn new(scope: Scope<'_>) -> Self {
        match scope {
            Scope::Shim(folder) => Self::Exactly(entry(folder)),
            Scope::AllIn(folder) => {
                let mut beginning = entry(folder);
                beginning.push("/");
                Self::BeginningWith(beginning)
            }
        }
    }

    fn is_on(&self, stat: &ProcessStat) -> bool {
        let Ok(environment) = fs::read(format!("/proc/{}/environ", stat.pid)) else { return false };
        environment.split(|byte| *byte == 0).any(|entry| match self {
            Self::Exactly(wanted) => entry == wanted.as_bytes(),
            Self::BeginningWith(wanted) => entry.starts_with(wanted.as_bytes()),
        })
    }
}

/// Returns the environment's entry for the processes of this shim.
pub(crate) fn entry(folder: &Path) -> OsString {
    let mut entry = MARKER.as_bytes().to_vec();
    entry.push(b'=');
    entry.extend_from_slice(folder.as_os_str().as_bytes());
    OsString::from_vec(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat_with_a_nasty_name() {
        let text = b"42 (a) b (c) S 7 40 39 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 9876 1 2 3";
        let stat = ProcessStat::parse(42, text).unwrap();
        let expected = ProcessStat {
            pid: 42,
            parent: 7,
            group: 40,
            session: 39,
            start_time: 9876,
            is_zombie: false,
        };
        assert_eq!(stat, expected);
        assert_eq!(ProcessStat::parse(42, b"42 (x"), None);
    }

    fn stat(pid: u32, start_time: u64) -> ProcessStat {
        ProcessStat { pid, parent: 1, group: 40, session: 39, start_time, is_zombie: false }
    }

    #[test]
    fn tells_a_reused_group_from_the_recorded_one() {
        let child =
            ChildRecord { format: 1, pid: 40, session: 39, start_time: 100, boot: String::new() };
        let leader = stat(40, 100);
        let member = stat(41, 101);
        assert!(is_of(&child, &[leader.clone(), member.clone()], &leader));
        assert!(is_of(&child, &[leader, member.clone()], &member));
        assert!(is_of(&child, std::slice::from_ref(&member), &member), "its leader has ended");
        let other = stat(40, 5000);
        assert!(!is_of(&child, std::slice::from_ref(&other), &other), "a later leader");
        let follower = stat(41, 5001);
        assert!(!is_of(&child, &[other, follower.clone()], &follower));
        assert!(!is_of(&child, &[], &ProcessStat { session: 38, ..member }));
    }
}
