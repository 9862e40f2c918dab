//! Decides which address, Ethernet address and interface name every part of a lab has.
//!
//! Hosts keep the addresses that their system declares, whatever subnets these form: every address
//! stands alone (/32, /128), and routes are to single addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_model::name::{HostName, RegionName, ZoneName};
use evenkeel_model::system::System;

/// Reports an address that no host of a lab can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host `{host}` cannot have address {address} in a lab: {reason}")]
pub struct AddressError {
    /// The host.
    pub host: HostName,
    /// Its declared address.
    pub address: IpAddr,
    /// What the address is instead.
    pub reason: &'static str,
}

/// One host's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPlace {
    pub(crate) name: HostName,
    /// Index into [`Layout::regions`].
    pub(crate) region: usize,
    /// Index into [`Layout::zones`].
    pub(crate) zone: usize,
    pub(crate) address: IpAddr,
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) regions: Vec<RegionName>,
    /// Every zone that has a host, with the index of its region.
    pub(crate) zones: Vec<(usize, ZoneName)>,
    pub(crate) hosts: Vec<HostPlace>,
    /// The IPv4 address of each region's client.
    pub(crate) clients_v4: Vec<Ipv4Addr>,
    /// The IPv6 address of each region's client; empty when no host has an IPv6 address.
    pub(crate) clients_v6: Vec<Ipv6Addr>,
}

impl Layout {
    /// Finds a place for everything in `system`.
    pub(crate) fn new(system: &System) -> Result<Self, AddressError> {
        let mut layout = Self {
            regions: system.regions.clone(),
            zones: Vec::new(),
            hosts: Vec::new(),
            clients_v4: Vec::new(),
            clients_v6: Vec::new(),
        };
        for host in system.hosts.values() {
            if let Some(reason) = unusable(host.address) {
                let name = host.name.clone();
                return Err(AddressError { host: name, address: host.address, reason });
            }
            let Some(region) = layout.regions.iter().position(|name| *name == host.region) else {
                continue;
            };
            let zone = (region, host.zone.clone());
            let known = layout.zones.iter().position(|other| *other == zone);
            let zone = known.unwrap_or_else(|| {
                layout.zones.push(zone);
                layout.zones.len() - 1
            });
            let name = host.name.clone();
            layout.hosts.push(HostPlace { name, region, zone, address: host.address });
        }
        let taken: BTreeSet<IpAddr> = layout.hosts.iter().map(|host| host.address).collect();
        let count = layout.regions.len();
        // Benchmarking addresses (RFC 2544, RFC 5180): nobody's real hosts.
        let v4 = (1..).map(|serial| Ipv4Addr::from_bits(0xc612_0000 + serial));
        layout.clients_v4 =
            v4.filter(|free| !taken.contains(&(*free).into())).take(count).collect();
        if taken.iter().any(IpAddr::is_ipv6) {
            let first = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0).to_bits();
            let v6 = (1..).map(|serial: u128| Ipv6Addr::from_bits(first + serial));
            layout.clients_v6 =
                v6.filter(|free| !taken.contains(&(*free).into())).take(count).collect();
        }
        Ok(layout)
    }

    /// Returns every address of a region's client.
    pub(crate) fn client_addresses(&self, region: usize) -> Vec<IpAddr> {
        let v4 = self.clients_v4.get(region).copied().map(IpAddr::from);
        let v6 = self.clients_v6.get(region).copied().map(IpAddr::from);
        v4.into_iter().chain(v6).collect()
    }

    /// Returns whether any part has an IPv6 address.
    pub(crate) fn has_v6(&self) -> bool {
        !self.clients_v6.is_empty()
    }
}

/// Returns the same system with every host on a loopback address of its own, 127.77.0.1 and up, by
/// name: what remains where hosts cannot have networks.
#[must_use]
pub fn on_loopback(system: &System) -> System {
    let mut system = system.clone();
    let addresses = (1..).map(|serial| Ipv4Addr::from_bits(0x7f4d_0000 + serial));
    for (host, address) in system.hosts.values_mut().zip(addresses) {
        host.address = address.into();
    }
    system
}

/// Says why a host of a lab cannot have this address, `None` if it can.
fn unusable(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() {
        Some("it is a loopback address, which no other host reaches")
    } else if address.is_unspecified() {
        Some("it is the unspecified address")
    } else if address.is_multicast() {
        Some("it is a multicast address")
    } else if link_local {
        Some("it is a link-local address, which the lab's routers use")
    } else {
        None
    }
}

/// Which end an Ethernet address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Host(usize),
    RouterInside(usize),
    RouterOutside(usize),
    Client(usize),
}

impl End {
    /// Returns the Ethernet address: locally administered, unicast (IEEE 802, 02-…).
    pub(crate) fn ethernet(self) -> [u8; 6] {
        let (kind, index) = match self {
            Self::Host(index) => (1, index),
            Self::RouterInside(index) => (2, index),
            Self::RouterOutside(index) => (3, index),
            Self::Client(index) => (4, index),
        };
        let [high, low] = u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes();
        [0x02, b'E', b'K', kind, high, low]
    }

    /// Writes the Ethernet address as `ip` wants it.
    pub(crate) fn ethernet_text(self) -> String {
        self.ethernet().map(|byte| format!("{byte:02x}")).join(":")
    }

    /// Returns the link-local address that routes on the same link name as the next hop.
    pub(crate) fn next_hop(self, v6: bool) -> IpAddr {
        let [_, _, _, kind, high, low] = self.ethernet();
        if v6 {
            let tail = u16::from_be_bytes([high, low]);
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, u16::from(kind), tail + 1).into()
        } else {
            // Regions are few: 250 of them fit below one kind.
            Ipv4Addr::new(169, 254, kind, low.saturating_add(1)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, usable: bool) {
        assert_eq!(unusable(address.parse().unwrap()).is_none(), usable, "{address}");
    }

    #[test]
    fn refuses_addresses_that_no_other_host_reaches() {
        check("10.1.0.11", true);
        check("2001:db8::1", true);
        check("127.0.0.1", false);
        check("::1", false);
        check("0.0.0.0", false);
        check("224.0.0.1", false);
        check("ff02::1", false);
        check("169.254.7.7", false);
        check("fe80::7", false);
        check("255.255.255.255", false);
    }

    #[test]
    fn every_end_has_its_own_addresses() {
        let ends: Vec<End> = (0..40)
            .flat_map(|index| {
                [End::RouterInside(index), End::RouterOutside(index), End::Client(index)]
            })
            .collect();
        let ethernet: BTreeSet<[u8; 6]> = ends.iter().map(|end| end.ethernet()).collect();
        let hops: BTreeSet<IpAddr> =
            ends.iter().flat_map(|end| [end.next_hop(false), end.next_hop(true)]).collect();
        assert_eq!((ethernet.len(), hops.len()), (ends.len(), ends.len() * 2));
        assert!(hops.iter().all(|hop| unusable(*hop).is_some()), "hosts cannot have them");
    }
}
