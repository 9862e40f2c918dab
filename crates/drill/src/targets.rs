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

/// Reports that nothing in the system fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the running system has no {0}")]
pub struct NoSuchTarget(pub Selector);

/// Returns what `selector` means in the system as it runs; by `rng` where several fit.
///
/// # Errors
/// Nothing fits: for instance a link of a system with one region.
pub fn resolve(
    selector: &Selector,
    system: &System,
    status: &Status,
    rng: &mut Rng,
) -> Result<Target, NoSuchTarget> {
    let mut fitting = candidates(selector.role, system, status);
    if let Some(place) = &selector.place {
        fitting.retain(|target| place_of(target) == *place);
    }
    let index = rng.index(fitting.len());
    fitting.into_iter().nth(index).ok_or_else(|| NoSuchTarget(selector.clone()))
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

/// Lists what has a role, the same for the same system and status.
fn candidates(role: Role, system: &System, status: &Status) -> Vec<Target> {
    let ready = status.ready();
    let busy = |host: &&Host| ready.iter().any(|(_, name)| *name == host.name);
    let busy_hosts: Vec<&Host> = system.hosts.values().filter(busy).collect();
    let leader = status.leader();
    let names = |hosts: &[&Host]| hosts.iter().map(|host| host.name.clone()).collect::<Vec<_>>();
    match role {
        Role::Replica => replicas(ready, Target::Replica),
        Role::Shim => replicas(ready, Target::Shim),
        Role::Gateway => names(&busy_hosts).into_iter().map(Target::Gateway).collect(),
        Role::Node => {
            let mut hosts = names(&busy_hosts);
            hosts.retain(|host| Some(host) != leader.as_ref());
            hosts.into_iter().map(Target::Node).collect()
        }
        Role::Leader => leader.into_iter().map(Target::Node).collect(),
        Role::Follower => status.followers().into_iter().map(Target::Node).collect(),
        Role::Host => names(&busy_hosts).into_iter().map(Target::Host).collect(),
        Role::Zone => {
            let mut zones: Vec<(RegionName, ZoneName)> =
                busy_hosts.iter().map(|host| (host.region.clone(), host.zone.clone())).collect();
            zones.sort();
            zones.dedup();
            zones.into_iter().map(|(region, zone)| Target::Zone(region, zone)).collect()
        }
        Role::Region => {
            let has_busy_host =
                |region: &&RegionName| busy_hosts.iter().any(|host| host.region == **region);
            system.regions.iter().filter(has_busy_host).cloned().map(Target::Region).collect()
        }
        Role::Link => links(system),
    }
}

fn replicas(
    ready: Vec<(InstanceId, HostName)>,
    target: impl Fn(InstanceId, HostName) -> Target,
) -> Vec<Target> {
    ready.into_iter().map(|(id, host)| target(id, host)).collect()
}

/// Lists the links between regions that serve: cutting off a witness alone would prove little.
fn links(system: &System) -> Vec<Target> {
    let serves = |region: &&RegionName| {
        let mut hosts = system.hosts.values();
        hosts.any(|host| host.region == **region && host.role == HostRole::Full)
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
    "#;

    /// Checks everything that a selector can mean, over many seeds.
    fn check(selector: &str, expected: &[&str]) {
        let system = evenkeel_system_file::parse(SYSTEM).unwrap().system;
        let selector: Selector = selector.parse().unwrap();
        let mut found: Vec<String> = (0..100)
            .filter_map(|seed| {
                let mut rng = Rng::from_seed(seed);
                let target = resolve(&selector, &system, &example(), &mut rng).ok()?;
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
        check("gateway:fra-2", &["gateway of fra-2"]);
        check("zone", &["zone ams/a", "zone fra/a", "zone fra/b"]);
        check("region", &["region ams", "region fra"]);
        check("link", &["link fra-ams"]);
        check("link:fra+ams", &["link fra-ams"]);
        check("host:waw-1", &[]);
        assert!("moon".parse::<Selector>().is_err());
    }

    #[test]
    fn a_target_is_named_so_that_it_can_be_struck_again() {
        let system = evenkeel_system_file::parse(SYSTEM).unwrap().system;
        for role in Role::ALL {
            for target in candidates(role, &system, &example()) {
                let selector = Selector { role, place: Some(place_of(&target)) };
                let again: Selector = selector.to_string().parse().unwrap();
                let mut rng = Rng::from_seed(1);
                assert_eq!(resolve(&again, &system, &example(), &mut rng), Ok(target));
            }
        }
    }
}
