//! Reads regions, zones and hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use evenkeel_diagnostic::Diagnostic;
use evenkeel_diagnostic::code::Code;
use evenkeel_model::name::{HostName, RegionName, ZoneName};
use evenkeel_model::place::{Host, HostRole};
use toml::Spanned;
use toml::de::DeValue;

use crate::defaults;
use crate::keys;
use crate::reader::{Reader, Table, Text, Value, in_order_named};

/// Regions and hosts as they stand in the file.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// In the order of the file.
    pub(crate) regions: Vec<RegionName>,
    pub(crate) hosts: BTreeMap<HostName, Host>,
    /// Where each host got its name and its address.
    found: BTreeMap<HostName, Found>,
}

#[derive(Debug)]
struct Found {
    name: Range<usize>,
    address: Range<usize>,
}

/// What the hosts of one table have in common.
#[derive(Clone)]
struct Surroundings {
    region: RegionName,
    zone: ZoneName,
    role: HostRole,
    path: String,
}

pub(crate) fn read<'t>(reader: &mut Reader<'t>, system: &Table<'t>) -> Places {
    let mut places = Places::default();
    let regions = reader.named(system, "region");
    if regions.is_empty() && system.has("region") {
        reader.report(
            Diagnostic::error(Code::NoHost, "there is no region")
                .help("add `[region.home]` with `hosts = { NAME = \"ADDRESS\" }`"),
        );
    }
    for (name, value) in &regions {
        read_region(reader, &mut places, name, value);
    }
    check_addresses(reader, &places);
    places
}

fn read_region<'t>(
    reader: &mut Reader<'t>,
    places: &mut Places,
    name: &Text<'t>,
    value: &'t Value<'t>,
) {
    let path = format!("region.{}", name.get_ref());
    let region = reader.name(name, "a region", RegionName::parse);
    let Some(table) = reader.open_value(&keys::REGION, path.clone(), name.span(), value) else {
        return;
    };
    let role = read_role(reader, &table).unwrap_or(HostRole::Full);
    let Some(region) = region else { return };
    places.regions.push(region.clone());
    let Ok(zone) = ZoneName::parse(defaults::ZONE) else { return };
    let mut around = Surroundings { region, zone, role, path: format!("{path}.hosts") };
    let (hosts, zones) = (table.value("hosts"), table.value("zones"));
    if let (Some(_), Some(zones)) = (hosts, zones) {
        reader.report(
            Diagnostic::error(
                Code::ExclusiveKeys,
                format!("region `{}` has both `hosts` and `zones`", name.get_ref()),
            )
            .label(zones.span(), "a region has one of the two")
            .help("move the hosts of `hosts` into a zone"),
        );
    }
    let count = places.hosts.len();
    let faults = reader.diagnostics.len();
    if let Some(hosts) = hosts {
        reader.spans.insert(format!("zone.{}.{}", around.region, around.zone), name.span());
        read_hosts(reader, places, &around, hosts);
    }
    for (zone_name, hosts) in reader.named(&table, "zones") {
        let zone_path = format!("{path}.zones.{}", zone_name.get_ref());
        let Some(zone) = reader.name(&zone_name, "a zone", ZoneName::parse) else { continue };
        reader.spans.insert(format!("zone.{}.{zone}", around.region), zone_name.span());
        around = Surroundings { zone, path: zone_path, ..around };
        let before = places.hosts.len();
        let faults = reader.diagnostics.len();
        read_hosts(reader, places, &around, hosts);
        if places.hosts.len() == before && reader.diagnostics.len() == faults {
            report_no_host(reader, "zone", &zone_name);
        }
    }
    if places.hosts.len() == count && reader.diagnostics.len() == faults {
        report_no_host(reader, "region", name);
    }
}

fn report_no_host<'t>(reader: &mut Reader<'t>, what: &str, name: &Text<'t>) {
    reader.report(
        Diagnostic::error(Code::NoHost, format!("{what} `{}` has no host", name.get_ref()))
            .label(name.span(), "nothing stands here")
            .help(if what == "zone" {
                "add a host as `NAME = \"ADDRESS\"`, or remove the zone"
            } else {
                "add `hosts = { NAME = \"ADDRESS\" }`, or remove the region"
            }),
    );
}

fn read_hosts<'t>(
    reader: &mut Reader<'t>,
    places: &mut Places,
    around: &Surroundings,
    value: &'t Value<'t>,
) {
    let Some(entries) = reader.table(value, "hosts, each with its address") else { return };
    for (name, value) in in_order_named(entries) {
        read_host(reader, places, around, &name, value);
    }
}

fn read_host<'t>(
    reader: &mut Reader<'t>,
    places: &mut Places,
    around: &Surroundings,
    name: &Text<'t>,
    value: &'t Value<'t>,
) {
    let (address, role) = if matches!(value.get_ref(), DeValue::Table(_)) {
        let path = format!("{}.{}", around.path, name.get_ref());
        let Some(table) = reader.open_value(&keys::HOST, path, name.span(), value) else { return };
        (reader.text(&table, "address"), read_role(reader, &table))
    } else if value.get_ref().is_str() {
        (reader.text_of(value), None)
    } else {
        let expected = "an address or `{ address = \"…\", role = \"witness\" }`";
        return reader.report_type(value, expected);
    };
    let host_name = reader.name(name, "a host", HostName::parse);
    let address = address.and_then(|text| read_address(reader, &text));
    let (Some(host_name), Some(address)) = (host_name, address) else { return };
    if let Some(first) = places.found.get(&host_name) {
        return reader.report(
            Diagnostic::error(Code::DuplicateName, format!("two hosts are named `{host_name}`"))
                .label(name.span(), "named a second time")
                .label(first.name.clone(), "named first")
                .help("give each host a name of its own"),
        );
    }
    reader.spans.insert(format!("host.{host_name}"), name.span());
    let found = Found { name: name.span(), address: address.span() };
    places.found.insert(host_name.clone(), found);
    let host = Host {
        name: host_name.clone(),
        region: around.region.clone(),
        zone: around.zone.clone(),
        address: *address.get_ref(),
        role: role.unwrap_or(around.role),
    };
    places.hosts.insert(host_name, host);
}

fn read_role<'t>(reader: &mut Reader<'t>, table: &Table<'t>) -> Option<HostRole> {
    let word = reader.word(table, "role", keys::ROLES)?;
    Some(if word == "witness" { HostRole::Witness } else { HostRole::Full })
}

fn read_address(reader: &mut Reader<'_>, text: &Text<'_>) -> Option<Spanned<IpAddr>> {
    let fault = match text.get_ref().parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => "means every address, not one host's",
        Ok(address) if address.is_multicast() => "is an address of a group, not of one host",
        Ok(address) => return Some(Spanned::new(text.span(), address.to_canonical())),
        Err(_) => "is not an IPv4 or IPv6 address",
    };
    let shown = text.get_ref().escape_debug();
    reader.report(
        Diagnostic::error(Code::BadAddress, format!("`{shown}` {fault}"))
            .label(text.span(), "the other hosts cannot reach a host here")
            .help("write the host's own address, such as `\"10.1.0.11\"` or `\"fd00::11\"`"),
    );
    None
}

/// Checks what can only be seen with all hosts in view.
fn check_addresses(reader: &mut Reader<'_>, places: &Places) {
    let mut first_with: BTreeMap<IpAddr, &HostName> = BTreeMap::new();
    let elsewhere = places.hosts.values().find(|host| !host.address.is_loopback());
    for (name, found) in in_file_order(&places.found) {
        let Some(host) = places.hosts.get(name) else { continue };
        if let Some(first) = first_with.get(&host.address) {
            let message = format!("`{first}` and `{name}` have the same address");
            let mut diagnostic = Diagnostic::error(Code::DuplicateAddress, message)
                .label(found.address.clone(), "used a second time");
            if let Some(found) = places.found.get(*first) {
                diagnostic = diagnostic.label(found.address.clone(), "used first");
            }
            reader.report(diagnostic.help("give each host the address of its own machine"));
        } else {
            first_with.insert(host.address, name);
        }
        if let Some(other) = elsewhere.filter(|_| host.address.is_loopback()) {
            let message = format!("`{}` is a loopback address", host.address);
            reader.report(
                Diagnostic::error(Code::BadAddress, message)
                    .label(found.address.clone(), format!("`{}` cannot reach this", other.name))
                    .help("write the address at which the other hosts reach this one"),
            );
        }
    }
}

fn in_file_order(found: &BTreeMap<HostName, Found>) -> Vec<(&HostName, &Found)> {
    let mut found: Vec<_> = found.iter().collect();
    found.sort_by_key(|(_, found)| found.name.start);
    found
}
