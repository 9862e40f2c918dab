//! Which part of the running system an experiment strikes: a role is resolved to a name, now.

use std::fmt;
use std::str::FromStr;

use evenkeel_model::fault::Target;
use evenkeel_model::instance::InstanceId;
use evenkeel_model::name::{HostName, RegionName, ZoneName};
use evenkeel_model::place::{Host, HostRole};
use evenkeel_model::random::Rng;
use evenkeel_model::system::System;

use crate::status::Status;

/// A part of the system by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A service replica that takes requests.
    Replica,
    /// The gateway of a host that clients use.
    Gateway,
    /// The node of a host that does not lead the coordinator.
    Node,
    /// The shim of a service replica.
    Shim,
    /// The node that leads the coordinator.
    Leader,
    /// A node that votes in the coordinator and does not lead it.
    Follower,
    /// A whole host that runs replicas.
    Host,
    /// A zone with such a host.
    Zone,
    /// A region with such a host.
    Region,
    /// The link between two regions.
    Link,
}

impl Role {
    /// All roles, the smallest first.
    pub const ALL: [Self; 10] = [
        Self::Replica,
        Self::Gateway,
        Self::Node,
        Self::Shim,
        Self::Follower,
        Self::Leader,
        Self::Host,
        Self::Zone,
        Self::Region,
        Self::Link,
    ];

    /// Returns the word for it on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Gateway => "gateway",
            Self::Node => "node",
            Self::Shim => "shim",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Host => "host",
            Self::Zone => "zone",
            Self::Region => "region",
            Self::Link => "link",
        }
    }

    /// Returns whether this is a process and not a place.
    #[must_use]
    pub const fn is_process(self) -> bool {
        match self {
            Self::Replica
            | Self::Gateway
            | Self::Node
            | Self::Shim
            | Self::Leader
            | Self::Follower => true,
            Self::Host | Self::Zone | Self::Region | Self::Link => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Reports a word that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is none of replica, gateway, node, shim, follower, leader, host, zone, region, link"
)]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or_else(|| RoleError(text.to_owned()))
    }
}

/// A role, and if wanted the place at which it is struck: `host`, `host:fra-1`, `zone:fra/a`,
/// `region:fra`, `link:fra+ams`, `replica:fra-1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The role.
    pub role: Role,
    /// The place; chosen by seed when absent.
    pub place: Option<String>,
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(formatter, "{}:{place}", self.role),
            None => write!(formatter, "{}", self.role),
        }
    }
}

impl FromStr for Selector {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text.split_once(':') {
            Some((role, place)) => Ok(Self { role: role.parse()?, place: Some(place.to_owned()) }),
            None => Ok(Self { role: text.parse()?, place: None }),
        }
    }
}

/// Reports that nothing in the running system fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchTarget {
    /// Nothing has the role, or not at that place.
    #[error("the running system has no {0}")]
    Absent(Selector),
    /// The named host has the other role of leader and follower.
    #[error(
        "{}; leave the host out, so that the {role} is struck wherever it is",
        leads(leader.as_ref(), host)
    )]
    RoleMoved {
        /// The role.
        role: Role,
        /// The named host.
        host: String,
        /// The host that leads.
        leader: Option<HostName>,
    },
}

fn leads(leader: Option<&HostName>, named: &str) -> String {
    match leader {
        Some(leader) if leader.as_str() == named => format!("`{named}` leads the coordinator now"),
        Some(leader) => format!("`{named}` does not lead the coordinator now, `{leader}` does"),
        None => format!("`{named}` does not lead the coordinator now, and no host does"),
    }
}

/// Returns what `selector` means in the system as it runs, by `seed` where several fit.
///
/// Each candidate has a rank that depends on nothing but the seed and its own place, and the lowest
/// is taken. So the choice is the same again as long as that one fits, whatever happens to others.
///
/// # Errors
/// Nothing fits: for instance a link of a system with one region.
pub fn resolve(
    selector: &Selector,
    system: &System,
    status: &Status,
    seed: u64,
) -> Result<Target, NoSuchTarget> {
    let Some(place) = &selector.place else {
        let fitting = candidates(selector.role, Choice::Random, system, status).into_iter();
        let chosen = fitting.min_by_key(|target| (rank(target, seed), target.clone()));
        return chosen.ok_or_else(|| NoSuchTarget::Absent(selector.clone()));
    };
    let fitting = candidates(selector.role, Choice::Named, system, status);
    let named = fitting.into_iter().find(|target| place_of(target) == *place);
    named.ok_or_else(|| not_there(selector, place, system, status))
}

/// Returns why nothing with a role is at the named place.
fn not_there(selector: &Selector, place: &str, system: &System, status: &Status) -> NoSuchTarget {
    let role = selector.role;
    let is_host = system.hosts.keys().any(|host| host.as_str() == place);
    let moves = matches!(role, Role::Leader | Role::Follower | Role::Node);
    if is_host && moves && (role == Role::Leader) != is_leader(status, place) {
        NoSuchTarget::RoleMoved { role, host: place.to_owned(), leader: status.leader() }
    } else {
        NoSuchTarget::Absent(selector.clone())
    }
}

fn is_leader(status: &Status, host: &str) -> bool {
    status.leader().is_some_and(|leader| leader.as_str() == host)
}

fn rank(target: &Target, seed: u64) -> u64 {
    mixed(seed, &place_of(target))
}

/// Mixes a seed with a word, so that each word has random choices of its own.
#[must_use]
pub fn mixed(seed: u64, word: &str) -> u64 {
    let mut mixed = Rng::from_seed(seed).next_u64();
    for byte in word.bytes() {
        mixed = Rng::from_seed(mixed ^ u64::from(byte)).next_u64();
    }
    mixed
}

/// Returns whether a system as it is declared has a part with this role at all.
#[must_use]
pub fn exists(role: Role, system: &System) -> bool {
    match role {
        Role::Replica | Role::Shim => !system.services.is_empty(),
        Role::Gateway => !system.gateways.is_empty(),
        Role::Node | Role::Follower => system.hosts.len() > 1,
        Role::Leader | Role::Host | Role::Zone | Role::Region => !system.hosts.is_empty(),
        Role::Link => !links(system, Choice::Random).is_empty(),
    }
}

/// Returns the text that names a target behind its role, so that a report can be replayed.
#[must_use]
pub fn place_of(target: &Target) -> String {
    match target {
        Target::Replica(_, host) | Target::Shim(_, host) => host.to_string(),
        Target::Gateway(host) | Target::Node(host) | Target::Host(host) => host.to_string(),
        Target::Zone(region, zone) => format!("{region}/{zone}"),
        Target::Region(region) => region.to_string(),
        Target::Link(left, right) => format!("{left}+{right}"),
    }
}

/// Which candidates are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// Places that run replicas: a fault elsewhere shows less. Gateways serve clients everywhere.
    Random,
    /// Every place: a witness votes and lets clients in too.
    Named,
}

/// Lists what has a role, the same for the same system and status.
fn candidates(role: Role, choice: Choice, system: &System, status: &Status) -> Vec<Target> {
    let ready = status.ready();
    let leader = status.leader();
    let is_meant =
        |host: &&Host| choice == Choice::Named || ready.iter().any(|(_, name)| *name == host.name);
    let hosts: Vec<&Host> = system.hosts.values().filter(is_meant).collect();
    let names = |hosts: &[&Host]| hosts.iter().map(|host| host.name.clone()).collect::<Vec<_>>();
    match role {
        Role::Replica => replicas(ready, Target::Replica),
        Role::Shim => replicas(ready, Target::Shim),
        Role::Gateway if system.gateways.is_empty() => Vec::new(),
        Role::Gateway => system.hosts.keys().cloned().map(Target::Gateway).collect(),
        Role::Node => {
            let mut hosts = names(&hosts);
            hosts.retain(|host| Some(host) != leader.as_ref());
            hosts.into_iter().map(Target::Node).collect()
        }
        Role::Leader => leader.into_iter().map(Target::Node).collect(),
        Role::Follower => status.followers().into_iter().map(Target::Node).collect(),
        Role::Host => names(&hosts).into_iter().map(Target::Host).collect(),
        Role::Zone => {
            let mut zones: Vec<(RegionName, ZoneName)> =
                hosts.iter().map(|host| (host.region.clone(), host.zone.clone())).collect();
            zones.sort();
            zones.dedup();
            zones.into_iter().map(|(region, zone)| Target::Zone(region, zone)).collect()
        }
        Role::Region => {
            let has_host = |region: &&RegionName| hosts.iter().any(|host| host.region == **region);
            system.regions.iter().filter(has_host).cloned().map(Target::Region).collect()
        }
        Role::Link => links(system, choice),
    }
}

fn replicas(
    ready: Vec<(InstanceId, HostName)>,
    target: impl Fn(InstanceId, HostName) -> Target,
) -> Vec<Target> {
    ready.into_iter().map(|(id, host)| target(id, host)).collect()
}

/// Lists the links between regions, by chance only of those that both run replicas: cutting off a
/// witness alone shows little.
fn links(system: &System, choice: Choice) -> Vec<Target> {
    let serves = |region: &&RegionName| {
        let mut hosts = system.hosts.values().filter(|host| host.region == **region);
        hosts.any(|host| choice == Choice::Named || host.role == HostRole::Full)
    };
    let serving: Vec<&RegionName> = system.regions.iter().filter(serves).collect();
    let pairs = serving.iter().enumerate().flat_map(|(index, right)| {
        serving.iter().take(index).map(move |left| ((*left).clone(), (*right).clone()))
    });
    pairs.map(|(left, right)| Target::Link(left, right)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::example;

    const SYSTEM: &str = r#"
        system = "demo"
        survive = "region"
        [region.fra]
        zones = { a = { fra-1 = "10.1.0.1" }, b = { fra-2 = "10.1.0.2" } }
        [region.ams]
        zones = { a = { ams-1 = "10.2.0.1" }, b = { ams-2 = "10.2.0.2" } }
        [region.waw]
        zones = { a = { waw-1 = { address = "10.3.0.1", role = "witness" } } }
        [service.web]
        command = ["web"]
        replicas = 4
        [gateway.public]
        listen = ":8080"
        routes = [{ path = "/", to = "web" }]
    "#;

    /// Checks everything that a selector can mean, over many seeds.
    fn check(selector: &str, expected: &[&str]) {
        let system = evenkeel_system_file::parse(SYSTEM).unwrap().system;
        let selector: Selector = selector.parse().unwrap();
        let mut found: Vec<String> = (0..100)
            .filter_map(|seed| {
                let target = resolve(&selector, &system, &example(), seed).ok()?;
                Some(target.to_string())
            })
            .collect();
        found.sort();
        found.dedup();
        assert_eq!(found, expected, "{selector}");
    }

    #[test]
    fn a_role_is_resolved_in_the_system_as_it_runs() {
        let ready = ["replica web-1 on fra-1", "replica web-2 on fra-2", "replica web-3 on ams-1"];
        check("replica", &ready);
        check("replica:ams-1", &["replica web-3 on ams-1"]);
        check("leader", &["node of fra-1"]);
        check("node", &["node of ams-1", "node of fra-2"]);
        let followers = ["node of ams-1", "node of ams-2", "node of fra-2", "node of waw-1"];
        check("follower", &followers);
        let gateways = ["ams-1", "ams-2", "fra-1", "fra-2", "waw-1"];
        check(
            "gateway",
            &gateways.map(|host| format!("gateway of {host}")).each_ref().map(|s| s.as_str()),
        );
        check("gateway:fra-2", &["gateway of fra-2"]);
        check("zone", &["zone ams/a", "zone fra/a", "zone fra/b"]);
        check("region", &["region ams", "region fra"]);
        check("link", &["link fra-ams"]);
        check("link:fra+ams", &["link fra-ams"]);
        check("host:moon", &[]);
        assert!("moon".parse::<Selector>().is_err());
    }

    #[test]
    fn a_target_is_named_so_that_it_can_be_struck_again() {
        let system = evenkeel_system_file::parse(SYSTEM).unwrap().system;
        for role in Role::ALL {
            for target in candidates(role, Choice::Named, &system, &example()) {
                let selector = Selector { role, place: Some(place_of(&target)) };
                let again: Selector = selector.to_string().parse().unwrap();
                assert_eq!(resolve(&again, &system, &example(), 1), Ok(target));
            }
        }
    }

    #[test]
    fn a_witness_is_struck_when_it_is_named() {
        check("host", &["host ams-1", "host fra-1", "host fra-2"]);
        check("host:waw-1", &["host waw-1"]);
        check("zone:waw/a", &["zone waw/a"]);
        check("region:waw", &["region waw"]);
        check("link:fra+waw", &["link fra-waw"]);
        check("gateway:waw-1", &["gateway of waw-1"]);
    }

    #[test]
    fn a_choice_stays_while_others_come_and_go() {
        let system = evenkeel_system_file::parse(SYSTEM).unwrap().system;
        let selector: Selector = "follower".parse().unwrap();
        for seed in 0..50 {
            let first = resolve(&selector, &system, &example(), seed).unwrap();
            let leader = Some("waw-1".to_owned());
            let moved = Status { leader, ..example() };
            let second = resolve(&selector, &system, &moved, seed).unwrap();
            let was_waw = first.to_string() == "node of waw-1";
            let is_fra = second.to_string() == "node of fra-1";
            assert!(first == second || was_waw || is_fra, "{seed}: {first}, then {second}");
        }
    }

    #[test]
    fn a_leader_that_moved_is_told() {
        let system = evenkeel_system_file::parse(SYSTEM).unwrap().system;
        let why = |text: &str| {
            resolve(&text.parse().unwrap(), &system, &example(), 1).unwrap_err().to_string()
        };
        let told = why("leader:ams-1");
        assert!(told.starts_with("`ams-1` does not lead the coordinator now, `fra-1` does;"));
        let told = why("follower:fra-1");
        assert!(
            told.starts_with("`fra-1` leads the coordinator now; leave the host out"),
            "{told}"
        );
        assert_eq!(why("leader:moon"), "the running system has no leader:moon");
    }

    #[test]
    fn a_system_of_one_region_has_no_link() {
        let text = r#"
            system = "one"
            survive = "process"
            [region.fra]
            hosts = { fra-1 = "10.1.0.1" }
            [service.web]
            command = ["web"]
        "#;
        let system = evenkeel_system_file::parse(text).unwrap().system;
        let has = |role| exists(role, &system);
        assert!(has(Role::Replica) && has(Role::Leader) && has(Role::Region));
        assert!(!has(Role::Link) && !has(Role::Gateway) && !has(Role::Follower));
    }
}
