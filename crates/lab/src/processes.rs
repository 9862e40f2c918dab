//! Reads from `/proc` which processes a host runs, and what each of them is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

/// Set by a shim for everything below it: the shim's folder.
const SHIM_MARK: &[u8] = b"EVENKEEL_SHIM=";

/// One process of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProcess {
    /// Its id in the pid namespace of the lab's user.
    pub pid: i32,
    /// What it is.
    pub role: ProcessRole,
}

/// What a process of a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessRole {
    /// Pid 1 of the host.
    Init,
    /// `evenkeel node`.
    Node,
    /// `evenkeel gateway`.
    Gateway,
    /// `evenkeel shim` of this id: `gateway`, or an instance such as `web-17`.
    Shim(String),
    /// A process below the shim of this id, other than the gateway.
    Child(String),
    /// Anything else.
    Other,
}

/// Lists the processes of the host whose pid 1 is `init`. Those of `program`, which the host keeps
/// running, and of the program of `init` itself are told apart by their arguments.
pub(crate) fn of_host(init: Pid, program: &Path) -> Vec<HostProcess> {
    let own = identify(&executable(init.as_raw()));
    let programs: Vec<(u64, u64)> = own.into_iter().chain(identify(program)).collect();
    let pids = members(init);
    pids.into_iter()
        .map(|pid| {
            let role = if pid == init.as_raw() { ProcessRole::Init } else { role(pid, &programs) };
            HostProcess { pid, role }
        })
        .collect()
}

/// Returns every process below `ancestor`.
pub(crate) fn descendants(ancestor: Pid) -> Vec<Pid> {
    let parents: BTreeMap<i32, i32> =
        all().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let is_below = |mut pid: i32| {
        // The table may be torn, hence the bound.
        for _ in 0..parents.len() {
            match parents.get(&pid) {
                Some(above) if *above == ancestor.as_raw() => return true,
                Some(above) => pid = *above,
                None => return false,
            }
        }
        false
    };
    parents.keys().filter(|pid| is_below(**pid)).map(|pid| Pid::from_raw(*pid)).collect()
}

/// Returns `init` and every process of its pid namespace; those below it when it has none of its
/// own.
fn members(init: Pid) -> BTreeSet<i32> {
    let namespace = pid_namespace(init.as_raw());
    if namespace.is_some() && namespace != pid_namespace(Pid::this().as_raw()) {
        return all().into_iter().filter(|pid| pid_namespace(*pid) == namespace).collect();
    }
    let below = descendants(init).into_iter().map(Pid::as_raw);
    below.chain([init.as_raw()]).collect()
}

fn all() -> Vec<i32> {
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn pid_namespace(pid: i32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/pid")).ok().map(|namespace| namespace.ino())
}

/// Reads the parent from `stat`, whose second field may hold blanks and parentheses (proc(5)).
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn executable(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

/// Identifies a program by its file.
fn identify(program: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(program).ok()?;
    Some((file.dev(), file.ino()))
}

fn role(pid: i32, programs: &[(u64, u64)]) -> ProcessRole {
    if identify(&executable(pid)).is_some_and(|program| programs.contains(&program)) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(1);
        match words.next() {
            Some(b"node") => return ProcessRole::Node,
            Some(b"gateway") => return ProcessRole::Gateway,
            Some(b"shim") => return ProcessRole::Shim(last_component(words.next())),
            _ => {}
        }
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mark = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(SHIM_MARK));
    match mark {
        Some(folder) => ProcessRole::Child(last_component(Some(folder))),
        None => ProcessRole::Other,
    }
}

fn last_component(path: Option<&[u8]>) -> String {
    let path = String::from_utf8_lossy(path.unwrap_or_default()).into_owned();
    let name = Path::new(&path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
