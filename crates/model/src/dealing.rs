//! Dealing copies over failure domains: regions first, then zones, then hosts.
//!
//! The one rule of spreading, used for voters, for replicas and by the audit on paper.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::HostName;
use crate::place::Host;

/// Chooses the host for one more copy: the least loaded region, in it the least loaded zone, in it
/// the least loaded host; the earlier in `hosts` wins a tie. `taken` counts the copies that each
/// host has already. `None` when `hosts` is empty.
#[must_use]
pub fn choose_host<'a>(hosts: &[&'a Host], taken: &BTreeMap<HostName, u32>) -> Option<&'a Host> {
    let load = |matches: &dyn Fn(&Host) -> bool| -> u32 {
        hosts
            .iter()
            .filter(|host| matches(host))
            .map(|host| taken.get(&host.name).copied().unwrap_or(0))
            .sum()
    };
    hosts
        .iter()
        .min_by_key(|host| {
            (
                load(&|other| other.region == host.region),
                load(&|other| other.region == host.region && other.zone == host.zone),
                load(&|other| other.name == host.name),
            )
        })
        .copied()
}

/// Deals `copies` over `hosts`, several to a host when there are fewer hosts than copies.
#[must_use]
pub fn deal(hosts: &[&Host], copies: u32) -> Vec<HostName> {
    let mut taken = BTreeMap::new();
    let mut dealt = Vec::new();
    for _ in 0..copies {
        let Some(host) = choose_host(hosts, &taken) else { break };
        *taken.entry(host.name.clone()).or_insert(0) += 1;
        dealt.push(host.name.clone());
    }
    dealt
}

/// Deals at most `copies` over `hosts`, never two to one host. Sorted by name.
#[must_use]
pub fn deal_distinct(hosts: &[&Host], copies: usize) -> Vec<HostName> {
    let mut taken = BTreeSet::new();
    while taken.len() < copies {
        let free = hosts.iter().filter(|host| !taken.contains(&host.name));
        let least_loaded = free.min_by_key(|host| {
            let count = |matches: &dyn Fn(&Host) -> bool| {
                hosts.iter().filter(|other| matches(other) && taken.contains(&other.name)).count()
            };
            (
                count(&|other| other.region == host.region),
                count(&|other| other.region == host.region && other.zone == host.zone),
            )
        });
        let Some(host) = least_loaded else { break };
        taken.insert(host.name.clone());
    }
    taken.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{RegionName, ZoneName};
    use crate::place::HostRole;

    fn host(text: &str) -> Host {
        let mut parts = text.split('/');
        let mut next = || parts.next().unwrap();
        Host {
            region: RegionName::parse(next()).unwrap(),
            zone: ZoneName::parse(next()).unwrap(),
            name: HostName::parse(next()).unwrap(),
            address: "10.0.0.1".parse().unwrap(),
            role: HostRole::Full,
        }
    }

    fn check(hosts: &[&str], copies: u32, expected: &str) {
        let hosts: Vec<Host> = hosts.iter().map(|text| host(text)).collect();
        let dealt = deal(&hosts.iter().collect::<Vec<_>>(), copies);
        let dealt: Vec<&str> = dealt.iter().map(HostName::as_str).collect();
        assert_eq!(dealt.join(" "), expected);
    }

    #[test]
    fn deals_regions_then_zones_then_hosts() {
        let hosts = ["r/a/r1", "r/a/r2", "r/b/r3", "s/a/s1", "s/a/s2"];
        check(&hosts, 1, "r1");
        check(&hosts, 2, "r1 s1");
        check(&hosts, 4, "r1 s1 r3 s2");
        check(&hosts, 7, "r1 s1 r3 s2 r2 s1 r3");
        check(&[], 3, "");
    }

    #[test]
    fn deals_to_distinct_hosts() {
        let hosts = ["r/a/r1", "s/a/s1", "t/a/t1", "t/b/t2", "t/b/t3"].map(host);
        let hosts: Vec<&Host> = hosts.iter().collect();
        let dealt = |copies| {
            deal_distinct(&hosts, copies)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(dealt(3), "r1 s1 t1");
        assert_eq!(dealt(4), "r1 s1 t1 t2");
        assert_eq!(dealt(9), "r1 s1 t1 t2 t3");
    }
}
