//! Checks what can only be seen with the whole file in view.

use std::ops::Range;

use evenkeel_diagnostic::Diagnostic;
use evenkeel_diagnostic::code::Code;
use evenkeel_model::name::ServiceName;
use evenkeel_model::place::HostRole;
use evenkeel_model::service::ServicePort;

use crate::gateways::Gateways;
use crate::places::Places;
use crate::reader::Reader;
use crate::services::Services;
use crate::suggestion::{list, suggest};

pub(crate) fn check(
    reader: &mut Reader<'_>,
    places: &Places,
    services: &Services<'_>,
    gateways: &Gateways,
) {
    for target in &gateways.targets {
        if !is_known(services, target.get_ref()) {
            report_unknown(reader, services, target.get_ref(), target.span(), "this route");
        }
    }
    for (service, need) in &services.needs {
        if need.get_ref() == service {
            reader.report(
                Diagnostic::error(Code::NeedsItself, format!("service `{service}` needs itself"))
                    .label(need.span(), "can never be met")
                    .help("remove it from `needs`"),
            );
        } else if !is_known(services, need.get_ref()) {
            report_unknown(reader, services, need.get_ref(), need.span(), "this need");
        }
    }
    check_hosts_for_services(reader, places, services);
}

/// Reports all places where the file speaks of databases, once.
pub(crate) fn check_databases(reader: &mut Reader<'_>) {
    let mut places = std::mem::take(&mut reader.databases);
    if places.is_empty() {
        return;
    }
    places.sort_by_key(|span| span.start);
    let diagnostic =
        Diagnostic::error(Code::NoDatabases, "databases are not available in this version");
    let diagnostic =
        places.into_iter().enumerate().fold(diagnostic, |diagnostic, (index, span)| {
            diagnostic.label(span, if index == 0 { "asks for a database" } else { "and here" })
        });
    reader.report(diagnostic.help(
        "remove them; small state can be kept in the key-value store: `needs = [\"kv\"]` and `${kv.url}`",
    ));
}

fn is_known(services: &Services<'_>, name: &ServiceName) -> bool {
    services.names.iter().any(|known| *known.get_ref() == name.as_str())
}

fn report_unknown(
    reader: &mut Reader<'_>,
    services: &Services<'_>,
    name: &ServiceName,
    span: Range<usize>,
    what: &str,
) {
    let known = || services.names.iter().map(|name| *name.get_ref());
    let help = if services.names.is_empty() {
        format!("add `[service.{name}]` with its `command`")
    } else {
        suggest(name.as_str(), known())
            .unwrap_or_else(|| format!("the services of this file are {}", list(known(), "and")))
    };
    reader.report(
        Diagnostic::error(Code::DanglingReference, format!("no service is named `{name}`"))
            .label(span, format!("{what} leads nowhere"))
            .help(help),
    );
}

fn check_hosts_for_services(reader: &mut Reader<'_>, places: &Places, services: &Services<'_>) {
    let hosts = places.hosts.values().filter(|host| host.role == HostRole::Full).count();
    if hosts == 0 && !places.hosts.is_empty() && !services.names.is_empty() {
        let mut diagnostic = Diagnostic::error(Code::OnlyWitnesses, "no host may run services");
        for host in places.hosts.keys() {
            if let Some(span) = reader.spans.find_exactly(&format!("host.{host}")) {
                diagnostic = diagnostic.label(span, "a witness");
            }
        }
        return reader.report(diagnostic.help("remove `role = \"witness\"` from one host"));
    }
    for service in services.services.values() {
        let one_a_host = matches!(service.port, ServicePort::Fixed(_));
        if one_a_host && hosts > 0 && u64::from(service.replicas) > hosts as u64 {
            let name = &service.name;
            let message = format!(
                "service `{name}` wants {} replicas with one port on {hosts} hosts",
                service.replicas
            );
            let mut diagnostic = Diagnostic::error(Code::FixedPortReplicas, message);
            for (key, text) in [("replicas", "so many replicas"), ("port", "one a host")] {
                if let Some(span) = reader.spans.find_exactly(&format!("service.{name}.{key}")) {
                    diagnostic = diagnostic.label(span, text);
                }
            }
            reader.report(
                diagnostic.help(format!(
                    "remove `port` and use `${{PORT}}`, or say `replicas = {hosts}`"
                )),
            );
        }
    }
}
