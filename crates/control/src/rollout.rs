//! Decides how a changed definition reaches the replicas of one service: a few at a time, each new
//! replica ready for a while before an old one goes, and back again when the new ones fail.
//!
//! ```text
//!                 canary beside an old replica       proven             no old replica left
//!  definition ──▶ Deploying ──────────────────▶ old one drains ─▶ … ──────────────────▶ current
//!  changed            │ a new replica fails
//!                     ▼
//!                 Failed: the definition before is deployed in the same way
//! ```

use std::collections::BTreeSet;

use evenkeel_model::instance::{Instance, InstanceId, InstancePhase};
use evenkeel_model::name::HostName;
use evenkeel_model::service::{Service, ServicePort};

use crate::declaration::Wanted;
use crate::plan::{Plan, Release, Rollout};
use crate::planner::Inventory;
use crate::report::{InstanceReport, InstanceState};

/// A new replica that failed this often is no accident.
const FAILURES_MAX: u64 = 3;

/// Writes into the plan which definition of a service is current and which is on its way. A file
/// that is applied again tries a definition again that has failed.
pub(crate) fn declare(wanted: &Wanted, service: &Service, plan: &mut Plan) {
    let newest = wanted.declaration.revision;
    let name = &service.name;
    let same = |plan: &Plan, revision: u64| {
        plan.defined_at(name, revision).is_some_and(|known| known.runs_the_same_as(service))
    };
    let release = match plan.releases.get(name) {
        None => Release { current: newest, next: None },
        Some(release) if same(plan, release.current) => Release { current: newest, next: None },
        Some(Release { current, next: Some(next) })
            if next.revision == newest || (next.failed.is_none() && same(plan, next.revision)) =>
        {
            let next = Rollout { revision: newest, failed: next.failed.clone() };
            Release { current: *current, next: Some(next) }
        }
        Some(Release { current, .. }) => {
            let next = Rollout { revision: newest, failed: None };
            Release { current: *current, next: Some(next) }
        }
    };
    // A replica that runs what the newest file says belongs to it: the older one can be forgotten.
    let relabelled: BTreeSet<InstanceId> = plan
        .of_service(name)
        .filter(|instance| instance.revision != newest && same(plan, instance.revision))
        .map(|instance| instance.id.clone())
        .collect();
    for instance in plan.instances.iter_mut().filter(|known| relabelled.contains(&known.id)) {
        instance.revision = newest;
    }
    plan.releases.insert(name.clone(), release);
}

/// How far the deploy of a service is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Serving replicas on hosts in reach that run what new replicas run.
    pub(crate) fresh: Vec<Instance>,
    /// The others.
    pub(crate) outdated: Vec<Instance>,
    /// Those of `outdated` in whose place a fresh one stands already.
    pub(crate) superseded: BTreeSet<InstanceId>,
}

impl Progress {
    /// Looks at a service.
    pub(crate) fn of(service: &Service, plan: &Plan, inventory: &Inventory<'_>) -> Self {
        let revision = plan.releases.get(&service.name).map(Release::target);
        let target = revision.and_then(|revision| plan.defined_at(&service.name, revision));
        let serving = plan.of_service(&service.name).filter(|instance| {
            instance.phase == InstancePhase::Serving && inventory.is_up(&instance.host)
        });
        let is_fresh = |instance: &Instance| match (target, plan.definition(instance)) {
            _ if Some(instance.revision) == revision => true,
            (Some(target), Some(runs)) => target.runs_the_same_as(runs),
            (None, _) | (_, None) => true,
        };
        let (fresh, mut outdated): (Vec<Instance>, Vec<Instance>) =
            serving.cloned().partition(is_fresh);
        let beside = |instance: &Instance| fresh.iter().any(|other| other.host == instance.host);
        outdated.sort_by_key(|instance| {
            (inventory.is_ready(instance), !beside(instance), instance.id.serial)
        });
        let wanted = usize::try_from(service.replicas).unwrap_or(usize::MAX);
        let extra = (fresh.len() + outdated.len()).saturating_sub(wanted).min(fresh.len());
        let superseded = outdated.iter().take(extra).map(|instance| instance.id.clone()).collect();
        Self { fresh, outdated, superseded }
    }

    /// Returns whether nothing is left to be replaced.
    pub(crate) const fn is_complete(&self) -> bool {
        self.outdated.is_empty()
    }

    /// Returns whether every fresh replica has been ready for as long as the policy says.
    fn is_proven(&self, service: &Service, inventory: &Inventory<'_>) -> bool {
        let healthy_for = service.deploy.healthy_for;
        self.fresh.iter().all(|instance| {
            let ready_for = inventory.ready_for(&instance.id);
            inventory.is_ready(instance) && ready_for.is_some_and(|time| time >= healthy_for)
        })
    }
}

/// Gives up a definition whose replicas fail, if the policy says so.
pub(crate) fn judge(service: &Service, plan: &mut Plan, inventory: &Inventory<'_>) {
    let Some(Rollout { revision, failed: None }) =
        plan.releases.get(&service.name).and_then(|release| release.next.clone())
    else {
        return;
    };
    if !service.deploy.rollback {
        return;
    }
    let Progress { fresh, .. } = Progress::of(service, plan, inventory);
    let failing = fresh.iter().find_map(|instance| {
        let report = inventory.report(&instance.host)?.instance(&instance.id)?;
        fails(report).then(|| reason(instance, report))
    });
    if let Some(reason) = failing
        && let Some(release) = plan.releases.get_mut(&service.name)
    {
        release.next = Some(Rollout { revision, failed: Some(reason) });
    }
}

fn fails(report: &InstanceReport) -> bool {
    match report.state {
        InstanceState::Ready | InstanceState::Stopping => false,
        InstanceState::NotReady => true,
        InstanceState::Starting | InstanceState::BackingOff | InstanceState::Failed => {
            report.crash_looping || report.restarts >= FAILURES_MAX
        }
    }
}

fn reason(instance: &Instance, report: &InstanceReport) -> String {
    let (id, host) = (&instance.id, &instance.host);
    let why = report.last_error.as_deref().unwrap_or("it is not ready");
    let mut text = format!("replica `{id}` on host `{host}`: {why}");
    for line in &report.last_lines {
        text.push_str("\n  | ");
        text.push_str(line);
    }
    text
}

/// Brings a deploy forward by one step: lets superseded replicas go once the fresh ones are
/// proven, then begins the next batch. `hosts` are those that may take a replica now, `places` counts
/// them as if all were up. Returns the hosts of the replicas to begin.
pub(crate) fn advance(
    service: &Service,
    hosts: &[&HostName],
    places: usize,
    plan: &mut Plan,
    inventory: &Inventory<'_>,
) -> Vec<HostName> {
    let progress = Progress::of(service, plan, inventory);
    if progress.is_complete() {
        finish(service, &progress, plan, inventory);
        return Vec::new();
    }
    if !progress.is_proven(service, inventory) {
        return Vec::new();
    }
    if !progress.superseded.is_empty() {
        drain(&progress.superseded, plan);
        return Vec::new();
    }
    let step = if progress.fresh.is_empty() { service.deploy.canary } else { service.deploy.batch };
    let step = usize::try_from(step.max(1)).unwrap_or(usize::MAX);
    let victims = progress.outdated.iter().filter(|victim| hosts.contains(&&victim.host));
    if service.port == ServicePort::FromRange {
        return beside(service, hosts, victims.take(step), &progress, plan);
    }
    let victims: Vec<&Instance> = victims.collect();
    let occupied: BTreeSet<&HostName> =
        plan.of_service(&service.name).map(|instance| &instance.host).collect();
    let free = hosts.iter().filter(|host| !occupied.contains(**host));
    let free = free.filter(|host| !plan.avoids(&service.name, host)).take(step);
    let free: Vec<HostName> = free.map(|host| (*host).clone()).collect();
    if !free.is_empty() {
        return free;
    }
    // With a fixed port and no empty host an old replica must go before a new one can come.
    let leaving =
        plan.of_service(&service.name).any(|instance| instance.phase == InstancePhase::Draining);
    // Not while a failure has taken one away already.
    let wanted = usize::try_from(service.replicas).unwrap_or(usize::MAX).min(places);
    let serving = progress.fresh.iter().chain(&progress.outdated);
    let whole = serving.filter(|instance| inventory.is_ready(instance)).count() >= wanted;
    let victim =
        victims.first().filter(|victim| !leaving && (whole || !inventory.is_ready(victim)));
    let victim = victim.map(|victim| victim.id.clone());
    drain(&victim.into_iter().collect(), plan);
    Vec::new()
}

/// Chooses a host for each replica that replaces one of `victims`: that of the victim, so that the
/// spread stays as it is, unless a fresh one stands there already or the service keeps failing there.
fn beside<'a>(
    service: &Service,
    hosts: &[&HostName],
    victims: impl Iterator<Item = &'a Instance>,
    progress: &Progress,
    plan: &Plan,
) -> Vec<HostName> {
    let mut renewed: BTreeSet<HostName> =
        progress.fresh.iter().map(|instance| instance.host.clone()).collect();
    let mut chosen = Vec::new();
    for victim in victims {
        let best = hosts.iter().min_by_key(|host| {
            let own = **host != &victim.host;
            let taken = progress.outdated.iter().any(|other| other.host == ***host);
            (renewed.contains(**host), plan.avoids(&service.name, host), own && taken, own)
        });
        let host = best.map_or_else(|| victim.host.clone(), |host| (*host).clone());
        renewed.insert(host.clone());
        chosen.push(host);
    }
    chosen
}

/// Makes a deployed definition the current one.
fn finish(service: &Service, progress: &Progress, plan: &mut Plan, inventory: &Inventory<'_>) {
    let wanted = usize::try_from(service.replicas).unwrap_or(usize::MAX);
    if progress.fresh.len() < wanted || !progress.is_proven(service, inventory) {
        return;
    }
    if let Some(release) = plan.releases.get_mut(&service.name)
        && let Some(Rollout { revision, failed: None }) = release.next
    {
        *release = Release { current: revision, next: None };
    }
}

fn drain(replicas: &BTreeSet<InstanceId>, plan: &mut Plan) {
    for instance in plan.instances.iter_mut().filter(|known| replicas.contains(&known.id)) {
        instance.phase = InstancePhase::Draining;
    }
}

/// Says how a deploy stands; `None` when there is none.
pub(crate) fn describe(
    service: &Service,
    plan: &Plan,
    inventory: &Inventory<'_>,
) -> Option<String> {
    let release = plan.releases.get(&service.name)?;
    let name = &service.name;
    match &release.next {
        Some(Rollout { revision, failed: Some(reason) }) => Some(format!(
            "the deploy of service `{name}` from revision {revision} has failed and was rolled \
             back: {reason}"
        )),
        Some(Rollout { revision, failed: None }) => {
            let progress = Progress::of(service, plan, inventory);
            let (fresh, wanted) = (progress.fresh.len(), service.replicas);
            Some(format!(
                "service `{name}` is being deployed from revision {revision}: {fresh} of {wanted} \
                 replicas run it"
            ))
        }
        None => None,
    }
}
