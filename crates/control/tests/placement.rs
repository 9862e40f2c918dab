//! Checks the rule of spreading against a slow, obvious model: every possible placement.

#![allow(clippy::unwrap_used, reason = "a test that fails loudly is what is wanted")]

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_control::placement::{Choice, Grid, Replica, Request, place};
use evenkeel_model::dealing::deal;
use evenkeel_model::instance::InstanceId;
use evenkeel_model::name::{HostName, ServiceName};
use evenkeel_model::place::Host;
use proptest::prelude::*;

#[path = "support/system.rs"]
#[expect(dead_code, reason = "shared with the controller's tests")]
mod system;

/// Hosts as pairs of region and zone, each of 0–2.
fn hosts(places: &[(u8, u8)]) -> Vec<Host> {
    let mut places = places.to_vec();
    places.sort_unstable();
    let texts = places
        .iter()
        .enumerate()
        .map(|(index, (region, zone))| format!("r{region}/z{zone}/h{index}"));
    texts.map(|text| system::host(&text)).collect()
}

fn replicas(hosts: &[Host], at: &[usize]) -> Vec<Replica> {
    let replica = |(serial, index): (usize, &usize)| Replica {
        id: InstanceId {
            service: ServiceName::parse("web").unwrap(),
            serial: u64::try_from(serial).unwrap(),
        },
        host: hosts[index % hosts.len()].name.clone(),
        ready: true,
    };
    at.iter().enumerate().map(replica).collect()
}

fn grid(hosts: &[Host]) -> Grid<'_> {
    Grid::new(hosts.iter().collect(), &BTreeSet::new())
}

fn request<'a>(grid: &'a Grid<'a>, replicas: u32, current: Vec<Replica>) -> Request<'a> {
    Request {
        replicas,
        exclusive: false,
        grid,
        avoided: BTreeSet::new(),
        closed: BTreeSet::new(),
        current,
        moves_max: usize::MAX,
    }
}

/// Replicas of each host, in the order of `hosts`, once a choice is carried out.
fn counts(request: &Request<'_>, choice: &Choice) -> Vec<u32> {
    let kept = request.current.iter().filter(|replica| choice.keep.contains(&replica.id));
    let at: Vec<&HostName> = kept.map(|replica| &replica.host).chain(&choice.add).collect();
    let count = |host: &&Host| at.iter().filter(|name| ***name == host.name).count();
    request.grid.hosts().map(|host| u32::try_from(count(&host)).unwrap()).collect()
}

/// How uneven counts are: doubled replicas, then squares by region, zone and host.
fn unevenness(hosts: &[Host], counts: &[u32]) -> [u32; 4] {
    let empty = counts.iter().filter(|count| **count == 0).count();
    let extra: u32 = counts.iter().map(|count| count.saturating_sub(1)).sum();
    let squares = |key: &dyn Fn(&Host) -> String| -> u32 {
        let mut sums = BTreeMap::new();
        for (host, count) in hosts.iter().zip(counts) {
            *sums.entry(key(host)).or_insert(0) += count;
        }
        sums.values().map(|sum| sum * sum).sum()
    };
    [
        extra.min(u32::try_from(empty).unwrap()),
        squares(&|host| host.region.to_string()),
        squares(&|host| format!("{}/{}", host.region, host.zone)),
        squares(&|host| host.name.to_string()),
    ]
}

/// Every way to place `replicas` on `hosts` hosts.
fn all_counts(hosts: usize, replicas: u32) -> Vec<Vec<u32>> {
    if hosts == 1 {
        return vec![vec![replicas]];
    }
    (0..=replicas)
        .flat_map(|first| {
            all_counts(hosts - 1, replicas - first)
                .into_iter()
                .map(move |rest| std::iter::once(first).chain(rest).collect())
        })
        .collect()
}

fn places() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0..3_u8, 0..2_u8), 1..6)
}

proptest! {
    #[test]
    fn the_best_spread_is_reached_with_the_fewest_moves(
        places in places(),
        at in prop::collection::vec(0..6_usize, 0..6),
        wanted in 1..6_u32,
    ) {
        let hosts = hosts(&places);
        let mut current = replicas(&hosts, &at);
        let before: Vec<u32> = hosts
            .iter()
            .map(|host| {
                let on = current.iter().filter(|replica| replica.host == host.name).count();
                u32::try_from(on).unwrap()
            })
            .collect();
        let mut moved = 0;
        let mut after = before.clone();
        for _ in 0..3 {
            let grid = grid(&hosts);
            let request = request(&grid, wanted, current.clone());
            let choice = place(&request);
            prop_assert_eq!(&choice, &place(&request), "the same input, another output");
            moved += choice.add.len();
            after = counts(&request, &choice);
            current.retain(|replica| choice.keep.contains(&replica.id));
            for host in &choice.add {
                let serial = current.iter().map(|replica| replica.id.serial + 1).max();
                let service = ServiceName::parse("web").unwrap();
                let id = InstanceId { service, serial: serial.unwrap_or(0).max(100) };
                current.push(Replica { id, host: host.clone(), ready: true });
            }
        }
        let every = all_counts(hosts.len(), wanted);
        let best = every.iter().map(|counts| unevenness(&hosts, counts)).min().unwrap();
        prop_assert_eq!(unevenness(&hosts, &after), best, "{:?} is not the best spread", after);
        let fewest = every
            .iter()
            .filter(|counts| unevenness(&hosts, counts) == best)
            .map(|counts| counts.iter().zip(&before).map(|(to, from)| to.saturating_sub(*from)).sum())
            .min();
        let fewest: u32 = fewest.unwrap();
        prop_assert_eq!(u32::try_from(moved).unwrap(), fewest, "from {:?} to {:?}", before, after);
    }

    #[test]
    fn no_host_is_doubled_while_another_is_empty(places in places(), wanted in 1..9_u32) {
        let hosts = hosts(&places);
        let grid = grid(&hosts);
        let request = request(&grid, wanted, Vec::new());
        let counts = counts(&request, &place(&request));
        let doubled = counts.iter().any(|count| *count > 1);
        prop_assert!(!(doubled && counts.contains(&0)), "{:?}", counts);
        prop_assert_eq!(counts.iter().sum::<u32>(), wanted);
    }

    /// Where dealing respects the hard rule by itself, placement is dealing.
    #[test]
    fn places_as_the_model_deals(places in places(), wanted in 1..9_u32) {
        let hosts = hosts(&places);
        let grid = grid(&hosts);
        let request = request(&grid, wanted, Vec::new());
        let mut dealt = deal(&hosts.iter().collect::<Vec<_>>(), wanted);
        let once: BTreeSet<&HostName> = dealt.iter().collect();
        if once.len() == dealt.len() {
            let mut chosen = place(&request).add;
            chosen.sort();
            dealt.sort();
            prop_assert_eq!(chosen, dealt);
        }
    }

    #[test]
    fn enough_remains_after_the_loss_of_any_one_domain(
        regions in 1..4_u8,
        zones in 1..3_u8,
        machines in 1..3_u8,
        wanted in 1..13_u32,
    ) {
        let each = |region| (0..zones).flat_map(move |zone| (0..machines).map(move |_| (region, zone)));
        let hosts = hosts(&(0..regions).flat_map(each).collect::<Vec<_>>());
        let grid = grid(&hosts);
        let request = request(&grid, wanted, Vec::new());
        let counts = counts(&request, &place(&request));
        for level in 0..3 {
            let mut loss: BTreeMap<String, u32> = BTreeMap::new();
            for (host, count) in hosts.iter().zip(&counts) {
                let domain = match level {
                    0 => host.name.to_string(),
                    1 => format!("{}/{}", host.region, host.zone),
                    _ => host.region.to_string(),
                };
                *loss.entry(domain).or_insert(0) += count;
            }
            let domains = u32::try_from(loss.len()).unwrap();
            let remain = wanted - loss.values().max().unwrap();
            prop_assert!(remain >= wanted * (domains - 1) / domains, "{:?}", loss);
        }
    }

    /// The loss of a host moves nothing but what ran on it, as long as the rest stays even.
    #[test]
    fn a_settled_placement_stays(places in places(), wanted in 1..9_u32) {
        let hosts = hosts(&places);
        let grid = grid(&hosts);
        let empty = request(&grid, wanted, Vec::new());
        let at: Vec<usize> = counts(&empty, &place(&empty))
            .iter()
            .enumerate()
            .flat_map(|(index, count)| (0..*count).map(move |_| index))
            .collect();
        let choice = place(&request(&grid, wanted, replicas(&hosts, &at)));
        prop_assert!(choice.add.is_empty() && choice.surplus.is_empty(), "{:?}", choice);
    }
}

#[test]
fn a_fixed_port_takes_one_replica_a_host() {
    let hosts = hosts(&[(0, 0), (1, 0)]);
    let grid = grid(&hosts);
    let request = Request { exclusive: true, ..request(&grid, 3, Vec::new()) };
    assert_eq!(counts(&request, &place(&request)), [1, 1]);
}

#[test]
fn an_unsettled_host_fills_gaps_but_attracts_no_moves() {
    let hosts = hosts(&[(0, 0), (1, 0)]);
    let unsettled = BTreeSet::from([hosts[1].name.clone()]);
    let both = replicas(&hosts, &[0, 0]);
    let grid = Grid::new(hosts.iter().collect(), &unsettled);
    let full = request(&grid, 2, both);
    assert_eq!(counts(&full, &place(&full)), [2, 0]);
    let gap = request(&grid, 2, replicas(&hosts, &[0]));
    assert_eq!(counts(&gap, &place(&gap)), [1, 1]);
}

/// A host that has fewer replicas of other services wins a tie, and counting keeps up with changes.
#[test]
fn the_less_loaded_host_wins_a_tie() {
    let hosts = hosts(&[(0, 0), (0, 0), (0, 0)]);
    let mut grid = grid(&hosts);
    for host in [0, 0, 1, 2, 2] {
        grid.add_load(&hosts[host].name);
    }
    assert_eq!(place(&request(&grid, 1, Vec::new())).add, [hosts[1].name.clone()]);
    grid.remove_load(&hosts[0].name);
    grid.remove_load(&hosts[0].name);
    assert_eq!(place(&request(&grid, 1, Vec::new())).add, [hosts[0].name.clone()]);
}
