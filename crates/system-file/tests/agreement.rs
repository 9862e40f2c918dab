//! That parser, schema, template and defaults say the same.

use std::time::Duration;

use evenkeel_diagnostic::code::Code;
use evenkeel_model::name::{HostName, ServiceName};
use evenkeel_model::place::{HostRole, SurvivalGoal};
use evenkeel_model::service::{Need, Probe, ServicePort};
use evenkeel_system_file::schema::schema;
use evenkeel_system_file::{Parsed, parse, template};
use serde_json::Value;

/// Uses every key once, none with its default.
const FULL: &str = include_str!("full.toml");

fn parse_clean(text: &str) -> Parsed {
    let parsed = parse(text).unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}"));
    assert!(parsed.warnings.is_empty(), "{:#?}", parsed.warnings);
    parsed
}

#[test]
fn the_template_can_be_used_as_it_is() {
    let system = parse_clean(template()).system;
    assert_eq!(system.goal, SurvivalGoal::Zone);
    assert_eq!(system.domains(SurvivalGoal::Zone).len(), 3);
}

#[test]
fn the_template_shows_the_defaults() {
    let uncommented: Vec<&str> = template()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => setting,
            Some(_) | None => line,
        })
        .collect();
    assert_ne!(uncommented.join("\n") + "\n", template());
    assert_eq!(parse_clean(&uncommented.join("\n")).system, parse_clean(template()).system);
}

#[test]
fn every_key_of_a_place_reaches_the_system() {
    let system = parse_clean(FULL).system;
    let regions: Vec<&str> = system.regions.iter().map(|region| region.as_str()).collect();
    assert_eq!(regions, ["waw", "fra", "ams"], "the order of the file, the first is home");
    let host = |name: &str| &system.hosts[&HostName::parse(name).unwrap()];
    assert_eq!(host("waw-a1").role, HostRole::Witness);
    assert_eq!(host("waw-a2").role, HostRole::Full);
    assert_eq!(host("fra-b1").role, HostRole::Witness);
    assert_eq!(host("fra-b1").zone.as_str(), "b");
    assert_eq!(host("ams-1").zone.as_str(), "a");
    assert!(host("ams-1").address.is_ipv6());
}

#[test]
fn every_key_of_a_service_reaches_the_system() {
    let system = parse_clean(FULL).system;
    let web = &system.services[&ServiceName::parse("web").unwrap()];
    assert_eq!(web.command, ["/opt/web", "--port", "${PORT}"]);
    assert_eq!(web.replicas, 4);
    let api = ServiceName::parse("api").unwrap();
    assert_eq!(web.needs, [Need::KeyValue, Need::Service(api.clone())]);
    assert_eq!(web.environment["STORE_URL"], "${kv.url}");
    assert_eq!(web.health.probe, Probe::Http("/healthz".to_owned()));
    assert_eq!(web.health.every, Duration::from_secs(2));
    assert_eq!(web.health.timeout, Duration::from_millis(1500));
    assert_eq!((web.health.unhealthy_after, web.health.healthy_after), (5, 2));
    assert_eq!(web.health.alive.as_deref(), Some("/alive"));
    assert_eq!(web.start_grace, Duration::from_secs(90));
    assert_eq!(web.drain, Duration::from_secs(20));
    assert_eq!(web.stop_grace, Duration::ZERO);
    assert_eq!(web.directory.as_deref(), Some(std::path::Path::new("/srv/web")));
    assert_eq!(system.services[&api].port, ServicePort::Fixed(9000));
}

#[test]
fn every_key_of_a_gateway_and_of_the_ports_reaches_the_system() {
    let system = parse_clean(FULL).system;
    let gateway = system.gateways.values().next().unwrap();
    assert_eq!((gateway.address, gateway.port), (Some("::1".parse().unwrap()), 80));
    let route = &gateway.routes[0];
    assert_eq!(route.host.as_deref(), Some("shop.example"));
    assert_eq!((route.path.as_str(), route.to.as_str()), ("/shop", "web"));
    assert_eq!((route.body_max, route.tries_max), (3 << 19, 1));
    assert_eq!(route.timeout, Duration::from_secs(60));
    let ports = &system.ports;
    assert_eq!(
        (ports.peer, ports.api, ports.kv, ports.gateway_admin, ports.relay),
        (1, 2, 3, 4, 5)
    );
    assert_eq!(ports.replicas, 1000..=1999);
}

#[test]
fn parts_are_found_in_the_text() {
    let spans = parse_clean(FULL).spans;
    let text = |path: &str| spans.find(path).map(|span| &FULL[span]);
    assert_eq!(text("survive"), Some("\"region\""));
    assert_eq!(text("service.web.replicas"), Some("4"));
    assert_eq!(text("service.api.replicas"), Some("1"));
    assert_eq!(text("service.api.drain"), Some("api"), "left to its default");
    assert_eq!(text("region.fra"), Some("fra"));
    assert_eq!(text("zone.fra.b"), Some("b"));
    assert_eq!(text("zone.ams.a"), Some("ams"), "a zone that is not written");
    assert_eq!(text("host.fra-b1"), Some("fra-b1"));
    assert_eq!(text("gateway.public.routes.0.to"), Some("\"web\""));
    assert_eq!(text("nothing.here"), None);
}

/// Walks schema and document side by side and calls `visit` with each key's schema and path.
fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    let properties = schema["properties"].as_object();
    for (key, value) in properties.into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        visit(&path, value);
        walk(value, &path, visit);
        walk(&value["additionalProperties"], &format!("{path}.*"), visit);
        walk(&value["items"], &format!("{path}.0"), visit);
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        walk(choice, path, visit);
    }
    let nested = &schema["additionalProperties"];
    if schema.get("properties").is_none() && nested.is_object() {
        walk(nested, &format!("{path}.*"), visit);
    }
}

#[test]
fn the_parser_reads_each_key_of_the_schema() {
    // The name that stands for `*` at each path of `full.toml`.
    let names = [
        ("region.*.zones.*.*", "region.waw.zones.a.waw-a2"),
        ("region.*.hosts.*", "region.ams.hosts.ams-1"),
        ("region.*.hosts", "region.ams.hosts"),
        ("region.*", "region.waw"),
        ("service.*.port", "service.api.port"),
        ("service.*", "service.web"),
        ("gateway.*", "gateway.public"),
    ];
    let spans = parse_clean(FULL).spans;
    let mut seen = 0;
    walk(&schema(), "", &mut |path, _| {
        let (pattern, name) =
            names.iter().find(|(pattern, _)| path.starts_with(pattern)).unwrap_or(&("", ""));
        let concrete = format!("{name}{}", &path[pattern.len()..]);
        let Some(span) = spans.find_exactly(&concrete) else {
            panic!("`{concrete}` of the schema does not stand in full.toml")
        };
        // A date suits no key, so that each key which is read must complain about it.
        if !FULL[span.clone()].starts_with(|c: char| c.is_ascii_lowercase())
            || &FULL[span.clone()] == "true"
        {
            let broken = format!("{}1979-05-27{}", &FULL[..span.start], &FULL[span.end..]);
            let diagnostics = parse(&broken).unwrap_err();
            let complaint = diagnostics.iter().any(|diagnostic| {
                diagnostic.code == Code::WrongType && diagnostic.labels[0].span.start == span.start
            });
            assert!(complaint, "{concrete}: {diagnostics:#?}");
            seen += 1;
        }
    });
    assert!(seen > 30, "{seen}");
}

#[test]
fn the_schema_has_the_bounds_and_defaults() {
    let schema = schema();
    let service = &schema["properties"]["service"]["additionalProperties"];
    assert_eq!(service["properties"]["replicas"]["default"], 2);
    assert_eq!(service["properties"]["drain"]["default"], "5s");
    assert_eq!(service["properties"]["port"].get("default"), None);
    assert_eq!(service["required"], serde_json::json!(["command"]));
    assert_eq!(schema["required"], serde_json::json!(["system", "survive", "region"]));
}
