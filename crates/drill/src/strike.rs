//! Carries out one fault on a lab, and ends it.

use std::time::{Duration, Instant};

use evenkeel_chaos::{Effect, InjectError, Injected, Means, Reach, Site};
use evenkeel_lab::ping;
use evenkeel_model::fault::{FaultKind, Target};
use evenkeel_model::name::{HostName, RegionName};
use evenkeel_model::time::Timestamp;

use crate::bench::Bench;
use crate::clock::now;

/// A fault lasts this much longer by itself than it is meant to, so that the drill ends it.
const MARGIN: Duration = Duration::from_secs(5);
/// Time for a host to show that it is reached.
const PING_MAX: Duration = Duration::from_millis(100);

/// A fault in force.
#[derive(Debug)]
pub(crate) struct Strike {
    injected: Injected,
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
    let pids = || bench.lab.pids(target);
    let is_place = matches!(target, Target::Host(_) | Target::Zone(..) | Target::Region(_));
    let mut dark = Vec::new();
    let injected = match (fault, target) {
        (FaultKind::Isolate, Target::Link(..)) => cut(bench, target, hold)?,
        (FaultKind::Isolate, _) => isolate(bench, target, hold)?,
        (FaultKind::Kill, _) => {
            if is_place {
                dark = bench.lab.hosts_of(target);
            }
            bench.chaos.kill(target, &pids())?
        }
        (FaultKind::Pause, Target::Replica(..)) => {
            bench.chaos.pause(target, &pids(), Reach::Descendants, hold)?
        }
        (FaultKind::Pause, _) if is_place => {
            bench.chaos.pause(target, &pids(), Reach::PidNamespaces, hold)?
        }
        (FaultKind::Pause, _) => bench.chaos.pause(target, &pids(), Reach::Exactly, hold)?,
    };
    Ok(Strike { injected, dark })
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
    let lookout = bench.lookout(Some(target));
    let outside = bench.lab.client_namespace(&lookout);
    let mut answers = |index: usize| {
        let place = places.get(index);
        let host = place.and_then(|place| bench.lab.system().hosts.get(&place.host));
        let (Some(outside), Some(host)) = (outside, host) else { return false };
        ping(outside, host.address, PING_MAX).is_ok_and(|answer| answer.is_some())
    };
    bench.chaos.isolate(target, sites, hold, &mut answers)
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
    let one_of =
        |region: &RegionName| bench.lab.system().hosts.values().find(|host| host.region == *region);
    let ends = one_of(left).zip(one_of(right));
    let is_silent = || {
        ends.and_then(|(from, to)| {
            let namespace = bench.lab.host_namespace(&from.name)?;
            Some(ping(namespace, to.address, PING_MAX).ok()?.is_none())
        })
    };
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

    /// Ends the fault: what lost its power gets it back, what was cut is joined.
    pub(crate) fn heal(self, bench: &Bench, target: &Target) -> Result<(), String> {
        let Self { injected, dark } = self;
        if let (Target::Link(left, right), Some(area)) = (target, bench.lab.wide_area()) {
            area.mend(left, right);
        }
        let mut failed: Vec<String> =
            injected.undo().err().iter().map(ToString::to_string).collect();
        for host in dark {
            failed.extend(bench.lab.power_on(&host).err().iter().map(ToString::to_string));
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }
}
