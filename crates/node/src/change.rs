//! What a change of the system would do, and whether it may be made: compared with what is wanted
//! now, and carried to its end by the planner itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use evenkeel_audit::assessment::{Assessment, assess};
use evenkeel_control::declaration::{Declaration, Wanted};
use evenkeel_control::plan::Plan;
use evenkeel_diagnostic::Severity;
use evenkeel_model::instance::{Instance, InstancePhase};
use evenkeel_model::name::{HostName, ServiceName};
use evenkeel_model::place::HostRole;
use serde::{Deserialize, Serialize};

use crate::status::DeployWire;

/// A change, examined. As JSON fields may be added; none changes its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// What has become of it.
    pub verdict: Verdict,
    /// The state that was looked at: a change is made only while it still holds.
    pub state: State,
    /// The state that the change has led to; absent when it was not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<State>,
    /// What would be different, a sentence each; empty when nothing would.
    pub changes: Vec<String>,
    /// How many replicas would be started and stopped.
    pub cost: Cost,
    /// Why the change can't be made as it is; empty when it can.
    pub refusals: Vec<String>,
    /// What the system would not survive any more although it promises to, a sentence each; such a
    /// change is made only by somebody who says that they accept it.
    pub risks: Vec<String>,
    /// What the worst loss of the goal's size would leave of each service, a sentence each.
    pub capacity: Vec<String>,
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// There is nothing to change.
    Nothing,
    /// It can be made.
    Possible,
    /// It was made.
    Made,
    /// Nothing was changed: the state is not the one that was looked at.
    Moved,
    /// Nothing was changed: nobody has accepted what the system would not survive any more.
    Risky,
    /// Nothing was changed: no running system can be changed so.
    Impossible,
}

/// What who wants a change says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// The state that was looked at; any will do when absent.
    pub state: Option<State>,
    /// Whether the risks are accepted.
    pub accept_risk: bool,
    /// Whether nothing is to be changed, only examined.
    pub dry_run: bool,
}

/// The revisions that say what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Of the system file.
    pub system: u64,
    /// Of the list of drained hosts; 0 before there was one.
    pub drained: u64,
}

/// What a change costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Replicas that are started.
    pub started: usize,
    /// Replicas that are stopped.
    pub stopped: usize,
}

impl State {
    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (system, drained) = text.split_once('.')?;
        Some(Self { system: system.parse().ok()?, drained: drained.parse().ok()? })
    }

    /// Returns whether this state came after `other` or is the same.
    #[must_use]
    pub const fn holds(self, other: Self) -> bool {
        self.system >= other.system && self.drained >= other.drained
    }

    /// Returns the state of what is wanted.
    #[must_use]
    pub const fn of(wanted: &Wanted) -> Self {
        Self { system: wanted.declaration.revision, drained: wanted.drained_revision }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.system, self.drained)
    }
}

impl Examination {
    /// Decides what becomes of the change for somebody who wishes it so. [`Verdict::Possible`] is to
    /// be made, unless it is a dry run.
    #[must_use]
    pub fn judge(&self, wish: &Wish) -> Verdict {
        if self.changes.is_empty() {
            Verdict::Nothing
        } else if wish.dry_run {
            Verdict::Possible
        } else if !self.refusals.is_empty() {
            Verdict::Impossible
        } else if wish.state.is_some_and(|state| state != self.state) {
            Verdict::Moved
        } else if !self.risks.is_empty() && !wish.accept_risk {
            Verdict::Risky
        } else {
            Verdict::Possible
        }
    }
}

/// How far a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Something is still missing, or on its way out.
    UnderWay,
    /// Everything is as wanted, but for what had failed before.
    Done,
    /// A definition that it brought was given up.
    Failed,
}

/// Says how far a change of the state `before` is, from what is missing, a sentence each, from the
/// deploys under way or given up, and from how many replicas are leaving.
#[must_use]
pub fn progress(
    missing: &[String],
    deploys: &[DeployWire],
    leaving: usize,
    before: State,
) -> Progress {
    let failed = || deploys.iter().filter(|deploy| deploy.failed.is_some());
    if failed().any(|deploy| deploy.revision > before.system) {
        Progress::Failed
    } else if missing.len() == failed().count() && leaving == 0 {
        // A deploy that was given up is missing for as long as its file is wanted.
        Progress::Done
    } else {
        Progress::UnderWay
    }
}

/// Returns what would be wanted with another system file.
///
/// # Errors
/// When the file has errors.
pub fn with_file(wanted: &Wanted, text: &str) -> Result<Wanted, crate::wire::PlanError> {
    // The store gives the real revision; any higher one stands for it until then.
    let revision = wanted.declaration.revision + 1;
    let declaration = crate::wire::declare(revision, text, &wanted.system().voting())?;
    Ok(Wanted { declaration, ..wanted.clone() })
}

/// Returns what would be wanted with hosts drained, or in use again.
#[must_use]
pub fn with_drained(wanted: &Wanted, hosts: &BTreeSet<HostName>, drained: bool) -> Wanted {
    let mut news = wanted.clone();
    if drained {
        news.drained.extend(hosts.iter().cloned());
    } else {
        news.drained.retain(|host| !hosts.contains(host));
    }
    news
}

/// Examines the change from `wanted` to `news`, which leads from the plan `current` to `after`.
#[must_use]
pub fn examine(wanted: &Wanted, news: &Wanted, current: &Plan, after: &Plan) -> Examination {
    let assessment = on_paper(news);
    let mut changes = file_changes(&wanted.declaration, &news.declaration);
    changes.extend(drain_changes(wanted, news));
    changes.extend(second_tries(wanted, news, current));
    if changes.is_empty() && wanted.declaration.text != news.declaration.text {
        changes.push("the file reads differently and means the same".to_owned());
    }
    // Replicas that move anyway are no part of a change that changes nothing.
    let after = if changes.is_empty() { current } else { after };
    let cost = cost(current, after);
    changes.extend(replica_changes(current, after));
    Examination {
        verdict: if changes.is_empty() { Verdict::Nothing } else { Verdict::Possible },
        state: State::of(wanted),
        stored: None,
        changes,
        cost,
        refusals: refusals(wanted, news, current),
        risks: risks(&assessment),
        capacity: assessment
            .capacity
            .iter()
            .map(|capacity| capacity.sentence(news.system().goal))
            .collect(),
    }
}

/// Judges what is wanted on paper. A drained host votes and balances, but runs nothing.
fn on_paper(wanted: &Wanted) -> Assessment {
    let mut system = wanted.system().clone();
    for host in system.hosts.values_mut() {
        if wanted.drained.contains(&host.name) {
            host.role = HostRole::Witness;
        }
    }
    assess(&system)
}

fn risks(assessment: &Assessment) -> Vec<String> {
    let errors = assessment.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| finding.message.clone()).collect()
}

/// What no running system can change about itself.
fn refusals(wanted: &Wanted, news: &Wanted, current: &Plan) -> Vec<String> {
    let (old, new) = (wanted.system(), news.system());
    let mut found = Vec::new();
    if old.name != new.name {
        found.push(format!("the file is of system `{}`, this is `{}`", new.name, old.name));
    }
    if old.ports != new.ports {
        found.push("[ports] can't change while the system runs".to_owned());
    }
    for (name, host) in &old.hosts {
        match new.hosts.get(name) {
            Some(other) if other.address != host.address => found.push(format!(
                "host `{name}` can't move from {} to {}: add a host under another name",
                host.address, other.address
            )),
            Some(_) => {}
            None if old.takes_part(name) => {
                let to_spare = old.hosts.keys().any(|host| !old.takes_part(host));
                let cure = if to_spare {
                    format!(
                        "`evenkeel drain {name}`, and remove it when another votes in its place"
                    )
                } else {
                    "add a host first that can vote in its place".to_owned()
                };
                found.push(format!("host `{name}` takes part in the coordinator: {cure}"));
            }
            None => {
                let left = current.on_host(name).count();
                if left > 0 {
                    found.push(format!(
                        "host `{name}` still runs {left} replicas: `evenkeel drain {name}` first"
                    ));
                }
            }
        }
    }
    for host in news.drained.difference(&wanted.drained) {
        if !new.hosts.contains_key(host) {
            found.push(format!("there is no host `{host}`"));
        }
    }
    let usable = new.service_hosts().any(|host| !news.drained.contains(&host.name));
    if !usable && !new.services.is_empty() {
        found.push("no host would be left to run a service".to_owned());
    }
    found
}

fn file_changes(old: &Declaration, new: &Declaration) -> Vec<String> {
    let (old, new) = (&*old.system, &*new.system);
    let mut found = Vec::new();
    if old.goal != new.goal {
        found.push(format!("survive: {} becomes {}", old.goal, new.goal));
    }
    compare("host", &old.hosts, &new.hosts, &mut found, |_, _| "changes".to_owned());
    compare("service", &old.services, &new.services, &mut found, |old, new| {
        let mut words = Vec::new();
        if !old.runs_the_same_as(new) {
            words.push("is deployed anew".to_owned());
        }
        if old.replicas != new.replicas {
            words.push(format!("goes from {} to {} replicas", old.replicas, new.replicas));
        }
        if words.is_empty() {
            words.push("changes without touching its replicas".to_owned());
        }
        words.join(" and ")
    });
    compare("gateway", &old.gateways, &new.gateways, &mut found, |old, new| {
        if old.routes == new.routes { "listens elsewhere" } else { "gets other routes" }.to_owned()
    });
    found
}

fn compare<K: Ord + std::fmt::Display, V: PartialEq>(
    what: &str,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    found: &mut Vec<String>,
    describe: impl Fn(&V, &V) -> String,
) {
    for (name, value) in new {
        match old.get(name) {
            None => found.push(format!("{what} `{name}` is added")),
            Some(before) if before != value => {
                found.push(format!("{what} `{name}` {}", describe(before, value)));
            }
            Some(_) => {}
        }
    }
    let removed = old.keys().filter(|name| !new.contains_key(*name));
    found.extend(removed.map(|name| format!("{what} `{name}` is removed")));
}

/// Deploys that have failed are tried again when their definition is applied again.
fn second_tries(wanted: &Wanted, news: &Wanted, current: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    if news.declaration.revision == wanted.declaration.revision {
        return found;
    }
    for (name, release) in &current.releases {
        let failed = release.next.as_ref().filter(|next| next.failed.is_some());
        let failed = failed.and_then(|next| current.defined_at(name, next.revision));
        let again = failed.zip(news.system().services.get(name));
        if again.is_some_and(|(failed, wanted)| failed.runs_the_same_as(wanted)) {
            found.push(format!("service `{name}` is deployed again: it failed the last time"));
        }
    }
    found
}

fn drain_changes(old: &Wanted, new: &Wanted) -> Vec<String> {
    let drained = new.drained.difference(&old.drained);
    let back = old.drained.difference(&new.drained);
    let drained = drained.map(|host| format!("host `{host}` is drained"));
    let back = back.map(|host| format!("host `{host}` is used again"));
    drained.chain(back).collect()
}

/// Replicas that a plan has serving, by name.
fn serving(plan: &Plan) -> BTreeMap<String, &Instance> {
    let serving = plan.instances.iter();
    serving
        .filter(|instance| instance.phase == InstancePhase::Serving)
        .map(|instance| (instance.id.to_string(), instance))
        .collect()
}

fn cost(current: &Plan, after: &Plan) -> Cost {
    let (before, after) = (serving(current), serving(after));
    Cost {
        started: after.keys().filter(|id| !before.contains_key(*id)).count(),
        stopped: before.keys().filter(|id| !after.contains_key(*id)).count(),
    }
}

/// Says per service where replicas come and go. Which replica replaces which means nothing.
fn replica_changes(current: &Plan, after: &Plan) -> Vec<String> {
    let (before, after) = (serving(current), serving(after));
    let mut moves: BTreeMap<&ServiceName, (Vec<&HostName>, Vec<&HostName>)> = BTreeMap::new();
    for (id, instance) in &after {
        if !before.contains_key(id) {
            moves.entry(&instance.id.service).or_default().0.push(&instance.host);
        }
    }
    for (id, instance) in &before {
        if !after.contains_key(id) {
            moves.entry(&instance.id.service).or_default().1.push(&instance.host);
        }
    }
    let list =
        |hosts: &[&HostName]| hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ");
    let describe = |(service, (started, stopped)): (&&ServiceName, &(Vec<_>, Vec<_>))| {
        let mut words = Vec::new();
        if !started.is_empty() {
            words.push(format!("starts on {}", list(started)));
        }
        if !stopped.is_empty() {
            words.push(format!("stops on {}", list(stopped)));
        }
        format!("service `{service}` {}", words.join(" and "))
    };
    moves.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use evenkeel_control::preview::preview;
    use evenkeel_model::name::HostName;

    use evenkeel_model::voting::Voting;

    use super::*;
    use crate::wire::declare;

    fn file(services: &str) -> String {
        format!(
            r#"
            system = "shop"
            survive = "host"
            [region.fra]
            zones = {{ a = {{ a1 = "10.0.0.1", a2 = "10.0.0.2", a3 = "10.0.0.3", a4 = "10.0.0.4" }} }}
            {services}
            [gateway.public]
            listen = ":8080"
            routes = [{{ path = "/", to = "web" }}]
            "#
        )
    }

    fn web(command: &str, replicas: u32) -> String {
        format!("[service.web]\ncommand = [\"{command}\"]\nreplicas = {replicas}\n")
    }

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn wanted() -> Wanted {
        let voters = [host("a1"), host("a2"), host("a3")].into();
        let voting = Voting { voters, learners: Vec::new() };
        let declaration = declare(5, &file(&web("web", 3)), &voting).unwrap();
        Wanted { declaration, drained: BTreeSet::new(), drained_revision: 0 }
    }

    fn up(wanted: &Wanted) -> Vec<HostName> {
        wanted.system().hosts.keys().cloned().collect()
    }

    /// Examines a change of a system that is whole.
    fn change(news: &Wanted) -> Examination {
        let wanted = wanted();
        let current = preview(&wanted, &Plan::empty(), &up(&wanted));
        let after = preview(news, &current, &up(news));
        examine(&wanted, news, &current, &after)
    }

    fn file_change(text: &str) -> Examination {
        change(&with_file(&wanted(), text).unwrap())
    }

    #[test]
    fn a_change_is_told_with_its_cost() {
        let told = file_change(&file(&web("web", 2)));
        assert_eq!(told.changes[0], "service `web` goes from 3 to 2 replicas");
        assert_eq!(told.cost, Cost { started: 0, stopped: 1 });
        let told = file_change(&file(&web("newer", 3)));
        assert_eq!(told.changes[0], "service `web` is deployed anew");
        assert_eq!(told.cost, Cost { started: 3, stopped: 3 });
        let told = file_change(&file(&web("web", 3)));
        assert_eq!((told.verdict, told.changes), (Verdict::Nothing, Vec::new()));
        let told = change(&with_drained(&wanted(), &[host("a1")].into(), true));
        assert_eq!(told.changes[0], "host `a1` is drained");
        assert_eq!(told.refusals, Vec::<String>::new());
    }

    #[test]
    fn replicas_that_move_anyway_are_no_change() {
        let wanted = wanted();
        let current = preview(&wanted, &Plan::empty(), &up(&wanted)[..1]);
        let after = preview(&wanted, &current, &up(&wanted));
        assert_ne!(current.placement(), after.placement());
        let told = examine(&wanted, &wanted, &current, &after);
        assert_eq!((told.changes, told.cost.started), (Vec::new(), 0));
    }

    #[test]
    fn what_no_running_system_can_be_is_refused() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = file(&web("web", 3));
            assert!(text.contains(from), "{from}");
            let told = file_change(&text.replace(from, to));
            assert!(told.refusals.iter().any(|why| why.contains(expected)), "{:?}", told.refusals);
            let wish = Wish { accept_risk: true, ..Wish::default() };
            assert_eq!(told.judge(&wish), Verdict::Impossible);
        };
        check("\"shop\"", "\"blog\"", "this is `shop`");
        check("a2 = \"10.0.0.2\"", "a2 = \"10.0.0.9\"", "can't move");
        check(", a3 = \"10.0.0.3\"", "", "`a3` takes part in the coordinator");
        check("[region.fra]", "[ports]\napi = 9\n[region.fra]", "[ports]");
        let all: BTreeSet<HostName> = ["a1", "a2", "a3", "a4"].map(host).into();
        let told = change(&with_drained(&wanted(), &all, true));
        assert!(told.refusals.iter().any(|why| why.contains("no host would be left")));
    }

    #[test]
    fn a_change_is_made_only_as_it_was_looked_at() {
        let told = file_change(&file(&web("web", 2)));
        assert_eq!(told.judge(&Wish::default()), Verdict::Possible);
        let moved = Wish { state: State::parse("4.0"), ..Wish::default() };
        assert_eq!(told.judge(&moved), Verdict::Moved);
        assert_eq!(told.judge(&Wish { state: Some(told.state), ..moved }), Verdict::Possible);
        let risky = file_change(&file(&web("web", 1)));
        assert_eq!(risky.judge(&Wish::default()), Verdict::Risky);
        let accepted = Wish { accept_risk: true, ..Wish::default() };
        assert_eq!(risky.judge(&accepted), Verdict::Possible);
    }

    #[test]
    fn an_earlier_failure_is_not_this_change_s() {
        let before = State { system: 5, drained: 0 };
        let sentence = || "some sentence".to_owned();
        let deploy = |revision, failed: bool| DeployWire {
            service: "web".to_owned(),
            revision,
            failed: failed.then(sentence),
        };
        let check = |missing: usize, deploys: &[DeployWire], leaving, expected| {
            let missing: Vec<String> = (0..missing).map(|_| sentence()).collect();
            assert_eq!(progress(&missing, deploys, leaving, before), expected);
        };
        check(0, &[], 0, Progress::Done);
        check(0, &[], 1, Progress::UnderWay);
        check(1, &[deploy(6, false)], 0, Progress::UnderWay);
        check(1, &[deploy(6, true)], 0, Progress::Failed);
        // Drained after a deploy has failed.
        check(1, &[deploy(5, true)], 0, Progress::Done);
        check(2, &[deploy(5, true)], 0, Progress::UnderWay);
    }
}
