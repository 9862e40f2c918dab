//! Reads gateways and their routes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use evenkeel_diagnostic::Diagnostic;
use evenkeel_diagnostic::code::Code;
use evenkeel_model::name::{GatewayName, ServiceName};
use evenkeel_model::service::{Gateway, Route};
use toml::Spanned;
use toml::de::DeValue;

use crate::reader::{Reader, Table, Text, Value};
use crate::services::{check_absolute, check_reserved, is_url_path, small};
use crate::{defaults, keys};

/// Gateways as they stand in the file, with what must be checked against the rest of it.
#[derive(Debug, Default)]
pub(crate) struct Gateways {
    pub(crate) gateways: BTreeMap<GatewayName, Gateway>,
    /// The service of each route.
    pub(crate) targets: Vec<Spanned<ServiceName>>,
}

pub(crate) fn read<'t>(reader: &mut Reader<'t>, system: &Table<'t>) -> Gateways {
    let mut gateways = Gateways::default();
    for (name, value) in reader.named(system, "gateway") {
        read_gateway(reader, &mut gateways, &name, value);
    }
    gateways
}

fn read_gateway<'t>(
    reader: &mut Reader<'t>,
    gateways: &mut Gateways,
    name: &Text<'t>,
    value: &'t Value<'t>,
) {
    let path = format!("gateway.{}", name.get_ref());
    let gateway_name = reader.name(name, "a gateway", GatewayName::parse);
    let Some(table) = reader.open_value(&keys::GATEWAY, path, name.span(), value) else { return };
    check_reserved(reader, name, "gateway");
    let listen = reader.text(&table, "listen").and_then(|text| read_listen(reader, &text));
    let routes = read_routes(reader, &mut gateways.targets, &table);
    let (Some(name), Some((address, port))) = (gateway_name, listen) else { return };
    gateways.gateways.insert(name.clone(), Gateway { name, address, port, routes });
}

fn read_listen(reader: &mut Reader<'_>, text: &Text<'_>) -> Option<(Option<IpAddr>, u16)> {
    let written = *text.get_ref();
    let parsed = match written.strip_prefix(':') {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().ok().map(|port| (None, port))
        }
        Some(_) => None,
        None => written.parse::<SocketAddr>().ok().map(|at| (Some(at.ip()), at.port())),
    };
    let Some((address, port)) = parsed.filter(|(_, port)| *port > 0) else {
        let shown = written.escape_debug();
        reader.report(
            Diagnostic::error(Code::BadListen, format!("`{shown}` cannot be listened on"))
                .label(text.span(), "not an address and a port of 1 to 65535")
                .help("write `\":8080\"`, `\"127.0.0.1:8080\"` or `\"[::1]:8080\"`"),
        );
        return None;
    };
    if let Some(one) = address.filter(|ip| !ip.is_unspecified() && !ip.is_loopback()) {
        reader.report(
            Diagnostic::warning(Code::ListenOnOneHost, format!("`{one}` belongs to one host only"))
                .label(text.span(), "every host opens this listener, the others cannot")
                .help(format!("write `\":{port}\"` to listen on every host")),
        );
    }
    Some((address, port))
}

fn read_routes<'t>(
    reader: &mut Reader<'t>,
    targets: &mut Vec<Spanned<ServiceName>>,
    gateway: &Table<'t>,
) -> Vec<Route> {
    let Some(value) = gateway.value("routes") else { return Vec::new() };
    let Some(elements) = value.get_ref().as_array() else {
        reader.report_type(value, "a list of routes such as `[{ path = \"/\", to = \"web\" }]`");
        return Vec::new();
    };
    if elements.is_empty() {
        reader.report(
            Diagnostic::error(Code::EmptyList, "the gateway has no route")
                .label(value.span(), "every request would be answered with 404")
                .help("add a route: `routes = [{ path = \"/\", to = \"SERVICE\" }]`"),
        );
    }
    let mut routes = Vec::new();
    let mut matched: BTreeMap<(Option<String>, String), Range<usize>> = BTreeMap::new();
    for (index, element) in elements.iter().enumerate() {
        let path = format!("{}.routes.{index}", gateway.path);
        reader.spans.insert(path.clone(), element.span());
        let Some(route) = read_route(reader, targets, path, element) else { continue };
        let key = (route.host.clone(), route.path.clone());
        if let Some(first) = matched.get(&key) {
            reader.report(
                Diagnostic::error(
                    Code::DuplicateRoute,
                    format!("two routes match `{}`", shown_match(&route)),
                )
                .label(element.span(), "never used")
                .label(first.clone(), "takes the requests")
                .help("remove one, or give it another `path` or `host`"),
            );
        } else {
            matched.insert(key, element.span());
        }
        routes.push(route);
    }
    routes
}

fn shown_match(route: &Route) -> String {
    format!("{}{}", route.host.as_deref().unwrap_or(""), route.path)
}

fn read_route<'t>(
    reader: &mut Reader<'t>,
    targets: &mut Vec<Spanned<ServiceName>>,
    path: String,
    value: &'t Value<'t>,
) -> Option<Route> {
    let DeValue::Table(_) = value.get_ref() else {
        reader.report_type(value, "a route such as `{ path = \"/\", to = \"web\" }`");
        return None;
    };
    let table = reader.open_value(&keys::ROUTE, path, value.span(), value)?;
    let host = reader.text(&table, "host").and_then(|text| read_route_host(reader, &text));
    let route_path = match reader.text(&table, "path") {
        None => defaults::ROUTE_PATH.to_owned(),
        Some(text) => {
            check_absolute(reader, &text, "path", |path| is_url_path(path) && !path.contains('?'));
            normal_path(text.get_ref())
        }
    };
    let body_max = reader.size(&table, "body_max", defaults::BODY_MAX);
    let timeout = reader.duration(&table, "timeout", defaults::ROUTE_TIMEOUT);
    let tries = reader.integer(&table, "tries", defaults::TRIES);
    let to = reader.text(&table, "to")?;
    let service = reader.name(&to, "a service", ServiceName::parse)?;
    targets.push(Spanned::new(to.span(), service.clone()));
    let tries_max = small(tries.unwrap_or(defaults::TRIES.default));
    Some(Route { host, path: route_path, to: service, body_max, timeout, tries_max })
}

/// Drops slashes at the end, because paths are matched by whole segments.
fn normal_path(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

fn read_route_host(reader: &mut Reader<'_>, text: &Text<'_>) -> Option<String> {
    let written = text.get_ref().to_ascii_lowercase();
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed)
    };
    if written.parse::<IpAddr>().is_ok() || written.split('.').all(label) {
        return Some(written);
    }
    let shown = written.escape_debug();
    reader.report(
        Diagnostic::error(Code::BadText, format!("`{shown}` is not a host name"))
            .label(text.span(), "no `Host` header can match this")
            .help("write the name alone, such as `\"shop.example\"`: no port, no scheme, no `*`"),
    );
    None
}
