//! The system under test as the drill reaches it: its lab, its clients' networks, its addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use evenkeel_chaos::Chaos;
use evenkeel_lab::Lab;
use evenkeel_model::fault::Target;
use evenkeel_model::name::{HostName, RegionName};
use evenkeel_trust::tls::Trust;

use crate::load::{EnterNetwork, Station};

/// How the hosts' status and store are asked.
#[derive(Debug, Clone)]
pub struct Apis {
    /// Where each host's are.
    pub addresses: BTreeMap<HostName, SocketAddr>,
    /// What whoever asks must show, where that is protected.
    pub trust: Option<Trust>,
}

/// A lab with a system that runs, and the means to break it.
#[derive(Debug)]
pub struct Bench {
    /// The hosts.
    pub lab: Lab,
    /// The faults.
    pub chaos: Chaos,
}

impl Bench {
    /// Returns the way into the network of a region's clients; the drill's own network where hosts
    /// have none.
    #[must_use]
    pub fn enter(&self, region: &RegionName) -> EnterNetwork {
        match self.lab.client_namespace(region).cloned() {
            Some(namespace) => Arc::new(move || namespace.enter_thread()),
            None => Arc::new(|| Ok(())),
        }
    }

    /// Returns how each host's status and store are asked.
    #[must_use]
    pub fn apis(&self) -> Apis {
        let port = self.lab.system().ports.api;
        let hosts = self.lab.system().hosts.values();
        let addresses =
            hosts.map(|host| (host.name.clone(), SocketAddr::new(host.address, port))).collect();
        Apis { addresses, trust: self.lab.operator().cloned() }
    }

    /// Returns the clients' places: one a region, each with the gateways of its own hosts first and
    /// those of the nearest regions next. Empty for a system without a gateway.
    #[must_use]
    pub fn stations(&self) -> Vec<Station> {
        let system = self.lab.system();
        let Some(gateway) = system.gateways.values().next() else { return Vec::new() };
        let of_region = |region: &RegionName| -> Vec<SocketAddr> {
            let hosts = system.hosts.values().filter(|host| host.region == *region);
            hosts
                .map(|host| SocketAddr::new(entrance(gateway.address, host.address), gateway.port))
                .collect()
        };
        let station = |region: &RegionName| {
            let mut others: Vec<&RegionName> =
                system.regions.iter().filter(|other| *other != region).collect();
            others.sort_by_key(|other| {
                let link = self.lab.wide_area().and_then(|area| area.link(region, other));
                link.map(|link| link.round_trip)
            });
            Station {
                region: region.clone(),
                enter: self.enter(region),
                near: of_region(region),
                far: others.into_iter().flat_map(of_region).collect(),
            }
        };
        system.regions.iter().map(station).collect()
    }

    /// Returns a region from which the system can be watched while `target` is struck: not the one
    /// that may be cut off.
    #[must_use]
    pub fn lookout(&self, target: Option<&Target>) -> RegionName {
        let system = self.lab.system();
        let hosts = target.map(|target| self.lab.hosts_of(target)).unwrap_or_default();
        let struck = |region: &&RegionName| {
            system.hosts.values().any(|host| host.region == **region && hosts.contains(&host.name))
        };
        let mut regions = system.regions.iter();
        let fallback = system.regions.first();
        let chosen = regions.find(|region| !struck(region)).or(fallback);
        // A system file without a region is refused before it comes here.
        chosen.cloned().unwrap_or_else(|| unreachable!("a system has a region"))
    }
}

/// Returns the address at which clients find a gateway of a host.
fn entrance(listens: Option<IpAddr>, host: IpAddr) -> IpAddr {
    listens.filter(|address| !address.is_unspecified()).unwrap_or(host)
}
