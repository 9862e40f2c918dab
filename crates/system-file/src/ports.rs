//! Reads `[ports]` and finds ports that are wanted twice.

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use evenkeel_diagnostic::Diagnostic;
use evenkeel_diagnostic::code::Code;
use evenkeel_model::service::ServicePort;
use evenkeel_model::system::Ports;

use crate::defaults::{self, Bounds};
use crate::gateways::Gateways;
use crate::keys;
use crate::reader::{Reader, Table};
use crate::services::{Services, port_number};

pub(crate) fn read<'t>(reader: &mut Reader<'t>, system: &Table<'t>) -> Ports {
    let table = system
        .value("ports")
        .and_then(|value| reader.open_value(&keys::PORTS, "ports".to_owned(), value.span(), value));
    let mut port = |key: &str, bounds: Bounds<u64>| {
        let written = table.as_ref().and_then(|table| reader.integer(table, key, bounds));
        port_number(written.unwrap_or(bounds.default))
    };
    let peer = port("peer", defaults::PORT_PEER);
    let api = port("api", defaults::PORT_API);
    let kv = port("kv", defaults::PORT_KV);
    let gateway_admin = port("gateway_admin", defaults::PORT_GATEWAY_ADMIN);
    let relay = port("relay", defaults::PORT_RELAY);
    let replicas = table.and_then(|table| read_range(reader, &table));
    let (first, last) = defaults::PORTS_REPLICAS;
    Ports { peer, api, kv, gateway_admin, relay, replicas: replicas.unwrap_or(first..=last) }
}

fn read_range<'t>(reader: &mut Reader<'t>, table: &Table<'t>) -> Option<RangeInclusive<u16>> {
    let text = reader.text(table, "replicas")?;
    let range = text.get_ref().split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first > 0_u16 && first <= last).then_some(first..=last)
    });
    if range.is_none() {
        let shown = text.get_ref().escape_debug();
        reader.report(
            Diagnostic::error(Code::BadQuantity, format!("`{shown}` is not a range of ports"))
                .label(text.span(), "expected the first and the last port")
                .help("write it as `\"20000-29999\"`"),
        );
    }
    range
}

/// Something that listens on every host.
struct Claim {
    /// What it is, for people.
    what: String,
    /// Where it is set, as a path of [`crate::spans::Spans`].
    path: String,
    ports: RangeInclusive<u16>,
    /// Every address when absent.
    address: Option<IpAddr>,
}

/// Reports each pair that wants one port.
pub(crate) fn check_clashes(
    reader: &mut Reader<'_>,
    ports: &Ports,
    services: &Services<'_>,
    gateways: &Gateways,
) {
    let mut claims = own_claims(ports);
    claims.extend(gateways.gateways.values().map(|gateway| Claim {
        what: format!("gateway `{}`", gateway.name),
        path: format!("gateway.{}.listen", gateway.name),
        ports: gateway.port..=gateway.port,
        address: gateway.address.filter(|address| !address.is_unspecified()),
    }));
    for service in services.services.values() {
        if let ServicePort::Fixed(port) = service.port {
            claims.push(Claim {
                what: format!("service `{}`", service.name),
                path: format!("service.{}.port", service.name),
                ports: port..=port,
                address: None,
            });
        }
    }
    for (index, claim) in claims.iter().enumerate() {
        for other in &claims[..index] {
            if clash(claim, other) {
                report_clash(reader, other, claim);
            }
        }
    }
}

fn own_claims(ports: &Ports) -> Vec<Claim> {
    let own = [
        ("peer", ports.peer..=ports.peer),
        ("api", ports.api..=ports.api),
        ("kv", ports.kv..=ports.kv),
        ("gateway_admin", ports.gateway_admin..=ports.gateway_admin),
        ("relay", ports.relay..=ports.relay),
        ("replicas", ports.replicas.clone()),
    ];
    own.into_iter()
        .map(|(key, ports)| {
            let path = format!("ports.{key}");
            Claim { what: format!("`{path}`"), path, ports, address: None }
        })
        .collect()
}

fn clash(left: &Claim, right: &Claim) -> bool {
    let apart = matches!((left.address, right.address), (Some(left), Some(right)) if left != right);
    !apart && left.ports.start() <= right.ports.end() && right.ports.start() <= left.ports.end()
}

fn report_clash(reader: &mut Reader<'_>, left: &Claim, right: &Claim) {
    let port = left.ports.start().max(right.ports.start());
    let message = format!("{} and {} both want port {port}", left.what, right.what);
    let mut diagnostic = Diagnostic::error(Code::PortClash, message);
    // The later one in the file is the main one; what is not in the file is a default.
    let mut places: Vec<(Range<usize>, &Claim)> = Vec::new();
    for claim in [left, right] {
        match reader.spans.find_exactly(&claim.path) {
            Some(span) => places.push((span, claim)),
            None => {
                let (first, last) = (claim.ports.start(), claim.ports.end());
                let ports =
                    if first == last { first.to_string() } else { format!("{first}-{last}") };
                diagnostic = diagnostic.note(format!("{} is {ports} by default", claim.what));
            }
        }
    }
    places.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    for (span, claim) in places {
        diagnostic = diagnostic.label(span, format!("wanted by {} here", claim.what));
    }
    reader.report(diagnostic.help("change one of the two; all listen on every host"));
}
