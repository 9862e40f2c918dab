//! Carries out one fault on a lab, and ends it.

use std::fs;
use std::time::{Duration, Instant};

use evenkeel_chaos::{Effect, InjectError, Injected, Means, Reach, Site};
use evenkeel_lab::{ProcessRole, ping};
use evenkeel_model::fault::{FaultKind, Target};
use evenkeel_model::name::{HostName, RegionName};
use evenkeel_model::time::Timestamp;

use crate::bench::Bench;
use crate::clock::now;

/// A fault lasts this much longer by itself than it is meant to, so that the drill ends it.
const MARGIN: Duration = Duration::from_secs(5);
/// Time for a host to show that it is reached.
const PING_MAX: Duration = Duration::from_millis(100);

/// Time for what was struck to be back after the end of its fault. A host's node is started again
/// within a second.
const BACK_MAX: Duration = Duration::from_secs(10);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A fault in force.
#[derive(Debug)]
pub(crate) struct Strike {
    injected: Injected,
    fault: FaultKind,
    /// Processes that are paused.
    paused: Vec<i32>,
    /// Hosts that lost their power.
    dark: Vec<HostName>,
}

/// Injects a fault for about `hold`. Returns when its effect was seen, or was not within 2 s.
pub(crate) fn strike(
    bench: &Bench,
    fault: FaultKind,
    target: &Target,
    hold: Duration,
) -> Result<Strike, InjectError> {
    let hold = (hold + MARGIN).min(evenkeel_chaos::HOLD_MAX);
    let pids = bench.lab.pids(target);
    let is_place = matches!(target, Target::Host(_) | Target::Zone(..) | Target::Region(_));
    let mut dark = Vec::new();
    let injected = match (fault, target) {
        (FaultKind::Isolate, Target::Link(..)) => cut(bench, target, hold)?,
        (FaultKind::Isolate, _) => isolate(bench, target, hold)?,
        (FaultKind::Kill, _) => {
            if is_place {
                dark = bench.lab.hosts_of(target);
            }
            bench.chaos.kill(target, &pids)?
        }
        (FaultKind::Pause, Target::Replica(..)) => {
            bench.chaos.pause(target, &pids, Reach::Descendants, hold)?
        }
        (FaultKind::Pause, _) if is_place => {
            bench.chaos.pause(target, &pids, Reach::PidNamespaces, hold)?
        }
        (FaultKind::Pause, _) => bench.chaos.pause(target, &pids, Reach::Exactly, hold)?,
    };
    let paused = if fault == FaultKind::Pause { pids } else { Vec::new() };
    Ok(Strike { injected, fault, paused, dark })
}

fn isolate(bench: &Bench, target: &Target, hold: Duration) -> Result<Injected, InjectError> {
    let places = bench.lab.sites(target);
    let refused = |error: std::io::Error| InjectError::Refused {
        step: "open the hosts' networks",
        reason: error.to_string(),
    };
    let mut sites = Vec::new();
    for place in &places {
        let network = place.namespace.duplicate().map_err(refused)?;
        sites.push(Site { name: place.host.to_string(), network, kept: place.kept.clone() });
    }
    let mut answers = |index: usize| {
        places.get(index).is_some_and(|place| is_reached(bench, target, &place.host))
    };
    bench.chaos.isolate(target, sites, hold, &mut answers)
}

/// Returns whether a host of `target` answers from outside of it.
fn is_reached(bench: &Bench, target: &Target, host: &HostName) -> bool {
    let outside = bench.lab.client_namespace(&bench.lookout(Some(target)));
    let host = bench.lab.system().hosts.get(host);
    let Some((outside, host)) = outside.zip(host) else { return false };
    ping(outside, host.address, PING_MAX).is_ok_and(|answer| answer.is_some())
}

/// Returns whether two regions reach each other; `None` when that cannot be seen.
fn is_joined(bench: &Bench, left: &RegionName, right: &RegionName) -> Option<bool> {
    let one_of =
        |region: &RegionName| bench.lab.system().hosts.values().find(|host| host.region == *region);
    let (from, to) = one_of(left).zip(one_of(right))?;
    let namespace = bench.lab.host_namespace(&from.name)?;
    Some(ping(namespace, to.address, PING_MAX).ok()?.is_some())
}

/// Returns whether a process is held by a tracer; `None` when it is gone.
fn is_held(pid: i32) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, brackets too (proc(5)).
    let (_, fields) = stat.rsplit_once(')')?;
    match fields.trim_start().chars().next()? {
        'Z' | 'X' => None,
        state => Some(state == 't'),
    }
}

/// Cuts a wide-area link, which the lab's switch owns and mends by itself in time.
fn cut(bench: &Bench, target: &Target, hold: Duration) -> Result<Injected, InjectError> {
    let Target::Link(left, right) = target else {
        return Err(InjectError::NothingThere(target.clone()));
    };
    let Some(area) = bench.lab.wide_area() else {
        return Err(InjectError::NothingThere(target.clone()));
    };
    let dropped = || area.counters(left, right).map_or(0, |counters| counters.cut);
    let before = dropped();
    let is_silent = || Some(!is_joined(bench, left, right)?);
    let means = Means {
        apply: Box::new(|| {
            if area.cut(left, right, hold) { Ok(()) } else { Err("no such link".to_owned()) }
        }),
        evidence: Box::new(|| {
            let silent = is_silent()?;
            let count = dropped() - before;
            (silent && count > 0).then(|| format!("{count} frames dropped, no ping answered"))
        }),
        // The switch belongs to the lab: `heal` mends it.
        undo: Box::new(|| {}),
    };
    bench.chaos.inject(FaultKind::Isolate, target, hold, means)
}

impl Strike {
    /// Returns why the fault proves nothing, `None` when it was seen to take effect.
    pub(crate) fn unverified(&self) -> Option<String> {
        match self.injected.effect() {
            Effect::Verified { .. } => None,
            Effect::Unverified { reason } => Some(reason.clone()),
        }
    }

    /// Returns what was seen of the effect.
    pub(crate) fn evidence(&self) -> Option<&str> {
        match self.injected.effect() {
            Effect::Verified { evidence } => Some(evidence),
            Effect::Unverified { .. } => None,
        }
    }

    /// Returns when the fault was applied.
    pub(crate) fn applied(&self) -> Timestamp {
        now() - Instant::now().saturating_duration_since(self.injected.applied())
    }

    /// Sees that the fault is still in force: it was meant to last until its end.
    pub(crate) fn check_in_force(&self, bench: &Bench, target: &Target) -> Result<(), String> {
        match self.fault {
            // Whatever was killed is started again by the system, as it should be.
            FaultKind::Kill => Ok(()),
            // What the system has killed meanwhile was not resumed.
            FaultKind::Pause => {
                match self.paused.iter().find(|pid| is_held(**pid) == Some(false)) {
                    Some(pid) => Err(format!("process {pid} of {target} runs again")),
                    None => Ok(()),
                }
            }
            FaultKind::Isolate => match self.reached(bench, target).first() {
                Some(reached) => Err(format!("{reached} is reached again")),
                None => Ok(()),
            },
        }
    }

    /// Returns what answers of an isolated target.
    fn reached(&self, bench: &Bench, target: &Target) -> Vec<String> {
        if let Target::Link(left, right) = target {
            let is_joined = is_joined(bench, left, right).unwrap_or(false);
            return is_joined.then(|| target.to_string()).into_iter().collect();
        }
        let hosts = bench.lab.hosts_of(target);
        let reached = hosts.into_iter().filter(|host| is_reached(bench, target, host));
        reached.map(|host| format!("`{host}`")).collect()
    }

    /// Ends the fault: what lost its power gets it back, what was cut is joined. Returns when the
    /// target is seen to be back.
    pub(crate) fn heal(self, bench: &Bench, target: &Target) -> Result<(), String> {
        let Self { injected, fault, paused, dark } = self;
        if let (Target::Link(left, right), Some(area)) = (target, bench.lab.wide_area()) {
            area.mend(left, right);
        }
        let mut failed: Vec<String> =
            injected.undo().err().iter().map(ToString::to_string).collect();
        for host in &dark {
            failed.extend(bench.lab.power_on(host).err().iter().map(ToString::to_string));
        }
        if !failed.is_empty() {
            return Err(failed.join("; "));
        }
        await_none(|| match fault {
            FaultKind::Kill => dark
                .iter()
                .find(|host| !has_node(bench, host))
                .map(|host| format!("no node runs on `{host}`")),
            FaultKind::Pause => paused
                .iter()
                .find(|pid| is_held(**pid) == Some(true))
                .map(|pid| format!("process {pid} of {target} is still held")),
            FaultKind::Isolate => silent(bench, target),
        })
    }
}

fn has_node(bench: &Bench, host: &HostName) -> bool {
    bench.lab.processes(host).iter().any(|process| process.role == ProcessRole::Node)
}

/// Returns what of an isolated target does not answer.
fn silent(bench: &Bench, target: &Target) -> Option<String> {
    if let Target::Link(left, right) = target {
        let is_cut = !is_joined(bench, left, right).unwrap_or(true);
        return is_cut.then(|| format!("{left} and {right} do not reach each other"));
    }
    let hosts = bench.lab.hosts_of(target);
    let silent = hosts.iter().find(|host| !is_reached(bench, target, host));
    silent.map(|host| format!("`{host}` is not reached"))
}

/// Waits until nothing is missing any more, and returns what is after [`BACK_MAX`].
fn await_none(mut missing: impl FnMut() -> Option<String>) -> Result<(), String> {
    let deadline = Instant::now() + BACK_MAX;
    loop {
        match missing() {
            None => return Ok(()),
            Some(what) if Instant::now() >= deadline => {
                return Err(format!("{what} after {} s", BACK_MAX.as_secs()));
            }
            Some(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_is_not_held_and_a_dead_one_is_gone() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(is_held(own), Some(false));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert_eq!(is_held(pid), None);
    }
}
