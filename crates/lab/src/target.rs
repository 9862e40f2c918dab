//! Names what a fault strikes: the processes and the networks of a target, and what cannot be
//! struck here.

use std::fs;
use std::net::IpAddr;

use evenkeel_model::fault::{FaultKind, Target};
use evenkeel_model::name::HostName;
use evenkeel_model::place::{Domain, Host};

use crate::lab::{Ground, Lab, Site};
use crate::network::find_program;
use crate::processes::ProcessRole;

impl Lab {
    /// Says whether a fault can be injected here.
    ///
    /// # Errors
    /// The reason why not, as a sentence for people.
    pub fn can(&self, kind: FaultKind, target: &Target) -> Result<(), String> {
        let is_link = matches!(target, Target::Link(..));
        match kind {
            FaultKind::Kill | FaultKind::Pause if is_link => {
                Err(format!("a link has no processes to {kind}"))
            }
            FaultKind::Kill => Ok(()),
            FaultKind::Pause => check_ptrace(),
            FaultKind::Isolate => self.check_isolation(target),
        }
    }

    fn check_isolation(&self, target: &Target) -> Result<(), String> {
        if domain(target).is_none() && !matches!(target, Target::Link(..)) {
            return Err("only hosts, zones, regions and links can be isolated".to_owned());
        }
        if let Ground::Loopback { reason } = &self.ground {
            return Err(format!("hosts have no networks of their own: {reason}"));
        }
        if !matches!(target, Target::Link(..)) && find_program("nft").is_none() {
            return Err("the program `nft` is not installed (package `nftables`)".to_owned());
        }
        Ok(())
    }

    /// Returns the hosts that a target is on or consists of; none for a link.
    #[must_use]
    pub fn hosts_of(&self, target: &Target) -> Vec<HostName> {
        match target {
            Target::Replica(_, host)
            | Target::Gateway(host)
            | Target::Node(host)
            | Target::Shim(_, host) => vec![host.clone()],
            Target::Host(_) | Target::Zone(..) | Target::Region(_) => {
                self.members(target).map(|host| host.name.clone()).collect()
            }
            Target::Link(..) => Vec::new(),
        }
    }

    /// Returns the processes of a target now, as their killer sees them: every process of a host,
    /// zone or region, pid 1 of each host included.
    #[must_use]
    pub fn pids(&self, target: &Target) -> Vec<i32> {
        let hosts = self.hosts_of(target);
        let processes = hosts.iter().flat_map(|host| self.processes(host));
        processes
            .filter(|process| is_struck(target, &process.role))
            .map(|found| found.pid)
            .collect()
    }

    /// Returns the networks of the hosts that a target consists of; none for a single process, a
    /// link, or without networks.
    #[must_use]
    pub fn sites(&self, target: &Target) -> Vec<Site> {
        let sites = self.members(target).filter_map(|host| {
            let namespace = self.host_namespace(&host.name)?.clone();
            let others = self.members(target).filter(|other| other.name != host.name);
            let kept: Vec<IpAddr> = others.map(|other| other.address).collect();
            Some(Site { host: host.name.clone(), namespace, kept })
        });
        sites.collect()
    }

    fn members(&self, target: &Target) -> impl Iterator<Item = &Host> {
        let domain = domain(target);
        let hosts = self.system().hosts.values();
        hosts.filter(move |host| domain.as_ref().is_some_and(|domain| domain.contains(host)))
    }
}

/// Returns the failure domain that a target is, `None` when it is a process or a link.
fn domain(target: &Target) -> Option<Domain> {
    match target {
        Target::Host(host) => Some(Domain::Host(host.clone())),
        Target::Zone(region, zone) => Some(Domain::Zone(region.clone(), zone.clone())),
        Target::Region(region) => Some(Domain::Region(region.clone())),
        Target::Replica(..)
        | Target::Gateway(_)
        | Target::Node(_)
        | Target::Shim(..)
        | Target::Link(..) => None,
    }
}

fn is_struck(target: &Target, role: &ProcessRole) -> bool {
    match target {
        Target::Replica(id, _) => {
            matches!(role, ProcessRole::Child(shim) if *shim == id.to_string())
        }
        Target::Shim(id, _) => matches!(role, ProcessRole::Shim(shim) if *shim == id.to_string()),
        Target::Gateway(_) => *role == ProcessRole::Gateway,
        Target::Node(_) => *role == ProcessRole::Node,
        Target::Host(_) | Target::Zone(..) | Target::Region(_) => true,
        Target::Link(..) => false,
    }
}

/// Says whether processes can be held by ptrace: Yama (a security module) may forbid it.
fn check_ptrace() -> Result<(), String> {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let is_root = nix::unistd::geteuid().is_root();
    match scope.trim() {
        "" | "0" => Ok(()),
        // Root of a user namespace has CAP_SYS_PTRACE over everything inside it.
        "1" | "2" if is_root => Ok(()),
        scope => Err(format!("the kernel forbids ptrace here (yama ptrace_scope is {scope})")),
    }
}
