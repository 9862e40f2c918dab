//! Reads services and their health checks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use evenkeel_diagnostic::Diagnostic;
use evenkeel_diagnostic::code::Code;
use evenkeel_model::name::ServiceName;
use evenkeel_model::service::{DeployPolicy, HealthCheck, Need, Probe, Service, ServicePort};
use toml::Spanned;

use crate::reader::{Reader, Table, Text, Value};
use crate::{defaults, keys, placeholders};

/// Names that mean a part of Evenkeel.
pub(crate) const RESERVED: [&str; 2] = ["kv", "evenkeel"];

/// Environment that Evenkeel or the socket hand-over sets.
const RESERVED_VARIABLES: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Services as they stand in the file, with what must be checked against the rest of it.
#[derive(Debug, Default)]
pub(crate) struct Services<'t> {
    pub(crate) services: BTreeMap<ServiceName, Service>,
    /// Names as written, usable or not, so that one fault is not reported twice.
    pub(crate) names: Vec<Text<'t>>,
    pub(crate) needs: Vec<(ServiceName, Spanned<ServiceName>)>,
}

pub(crate) fn read<'t>(reader: &mut Reader<'t>, system: &Table<'t>) -> Services<'t> {
    let mut services = Services::default();
    let named = reader.named(system, "service");
    services.names = named.iter().map(|(name, _)| name.clone()).collect();
    for (name, value) in &named {
        read_service(reader, &mut services, name, value);
    }
    services
}

fn read_service<'t>(
    reader: &mut Reader<'t>,
    services: &mut Services<'t>,
    name: &Text<'t>,
    value: &'t Value<'t>,
) {
    let path = format!("service.{}", name.get_ref());
    let service_name = reader.name(name, "a service", ServiceName::parse);
    let Some(table) = reader.open_value(&keys::SERVICE, path, name.span(), value) else { return };
    check_reserved(reader, name, "service");
    let (command, command_uses_kv) = read_command(reader, &table);
    let (environment, environment_uses_kv) = read_environment(reader, &table);
    let needs = read_needs(reader, &table, &services.names);
    let replicas = reader.integer(&table, "replicas", defaults::REPLICAS);
    let port = reader.integer(&table, "port", defaults::SERVICE_PORT);
    let health = read_health(reader, &table);
    let directory = reader.text(&table, "directory").filter(|text| {
        check_program_text(reader, text);
        check_absolute(reader, text, "directory", |_| true)
    });
    let start_grace = reader.duration(&table, "start_grace", defaults::START_GRACE);
    let drain = reader.duration(&table, "drain", defaults::DRAIN);
    let stop_grace = reader.duration(&table, "stop_grace", defaults::STOP_GRACE);
    let deploy = read_deploy(reader, &table);
    if let Some(span) = command_uses_kv.or(environment_uses_kv)
        && !needs.iter().any(|need| *need.get_ref() == Need::KeyValue)
    {
        report_undeclared_need(reader, name, span);
    }
    let Some(service_name) = service_name else { return };
    for need in &needs {
        if let Need::Service(other) = need.get_ref() {
            let other = Spanned::new(need.span(), other.clone());
            services.needs.push((service_name.clone(), other));
        }
    }
    let mut needs: Vec<Need> = needs.into_iter().map(Spanned::into_inner).collect();
    needs.sort();
    needs.dedup();
    let service = Service {
        name: service_name.clone(),
        command,
        directory: directory.map(|text| PathBuf::from(text.get_ref())),
        environment,
        replicas: small(replicas.unwrap_or(defaults::REPLICAS.default)),
        needs,
        health,
        port: port.map_or(ServicePort::FromRange, |port| ServicePort::Fixed(port_number(port))),
        start_grace,
        drain,
        stop_grace,
        deploy,
    };
    services.services.insert(service_name, service);
}

/// Reports a name that means a part of Evenkeel.
pub(crate) fn check_reserved(reader: &mut Reader<'_>, name: &Text<'_>, what: &str) {
    if RESERVED.contains(name.get_ref()) {
        let message = format!("no {what} can be named `{}`", name.get_ref());
        reader.report(
            Diagnostic::error(Code::ReservedName, message)
                .label(name.span(), "names a part of Evenkeel")
                .help("choose another name"),
        );
    }
}

/// Returns the command, and where it uses the key-value store.
fn read_command<'t>(
    reader: &mut Reader<'t>,
    table: &Table<'t>,
) -> (Vec<String>, Option<Range<usize>>) {
    let arguments = reader.texts(table, "command");
    let empty = table.value("command").filter(|value| {
        value.get_ref().as_array().is_some_and(|list| list.is_empty())
            || arguments.first().is_some_and(|program| program.get_ref().is_empty())
    });
    if let Some(value) = empty {
        reader.report(
            Diagnostic::error(Code::EmptyList, "the command names no program")
                .label(value.span(), "nothing to start")
                .help("write the program first: `command = [\"/opt/bin/web\", \"--port\", \"${PORT}\"]`"),
        );
    }
    let uses_kv = arguments.iter().fold(None, |found, text| {
        check_program_text(reader, text);
        if placeholders::check(reader, text) { found.or(Some(text.span())) } else { found }
    });
    (arguments.iter().map(|text| (*text.get_ref()).to_owned()).collect(), uses_kv)
}

/// Returns the environment, and where it uses the key-value store.
fn read_environment<'t>(
    reader: &mut Reader<'t>,
    table: &Table<'t>,
) -> (BTreeMap<String, String>, Option<Range<usize>>) {
    let mut environment = BTreeMap::new();
    let mut uses_kv = None;
    for (name, value) in reader.named(table, "env") {
        check_variable(reader, &name);
        let Some(text) = reader.text_of(value) else { continue };
        check_program_text(reader, &text);
        if placeholders::check(reader, &text) {
            uses_kv = uses_kv.or(Some(text.span()));
        }
        environment.insert((*name.get_ref()).to_owned(), (*text.get_ref()).to_owned());
    }
    (environment, uses_kv)
}

fn check_variable(reader: &mut Reader<'_>, name: &Text<'_>) {
    let text = *name.get_ref();
    if text.starts_with("EVENKEEL_") || RESERVED_VARIABLES.contains(&text) {
        let message = format!("`{}` is set by Evenkeel", text.escape_debug());
        reader.report(
            Diagnostic::error(Code::ReservedName, message).label(name.span(), "cannot be set here"),
        );
    } else if text.is_empty() || text.contains(['=', '\0']) {
        let message = format!("`{}` cannot name a variable", text.escape_debug());
        reader.report(
            Diagnostic::error(Code::BadText, message)
                .label(name.span(), "is empty, or has a `=` or a NUL in it"),
        );
    }
}

fn check_program_text(reader: &mut Reader<'_>, text: &Text<'_>) {
    if text.get_ref().contains('\0') {
        reader.report(
            Diagnostic::error(Code::BadText, "the text has a NUL character in it")
                .label(text.span(), "no program can be given this"),
        );
    }
}

fn read_needs<'t>(
    reader: &mut Reader<'t>,
    table: &Table<'t>,
    names: &[Text<'t>],
) -> Vec<Spanned<Need>> {
    let mut needs = Vec::new();
    for text in reader.texts(table, "needs") {
        let written = *text.get_ref();
        if written == "kv" {
            needs.push(Spanned::new(text.span(), Need::KeyValue));
        } else if written.starts_with("database.") {
            reader.databases.push(text.span());
        } else if let Some(Ok(name)) = written.strip_prefix("service.").map(ServiceName::parse) {
            needs.push(Spanned::new(text.span(), Need::Service(name)));
        } else {
            let help = if names.iter().any(|name| *name.get_ref() == written) {
                format!("write `\"service.{written}\"`")
            } else {
                "write `\"kv\"` for the key-value store, or `\"service.NAME\"`".to_owned()
            };
            reader.report(
                Diagnostic::error(
                    Code::DanglingReference,
                    format!("`{}` is nothing that a service can need", written.escape_debug()),
                )
                .label(text.span(), "not known")
                .help(help),
            );
        }
    }
    needs
}

fn report_undeclared_need(reader: &mut Reader<'_>, name: &Text<'_>, span: Range<usize>) {
    let message =
        format!("service `{}` uses the key-value store without needing it", name.get_ref());
    reader.report(
        Diagnostic::warning(Code::UndeclaredNeed, message)
            .label(span, "used here")
            .help("add `needs = [\"kv\"]`, unless it also works without the store"),
    );
}

fn read_health<'t>(reader: &mut Reader<'t>, service: &Table<'t>) -> HealthCheck {
    let opened = service.value("health").and_then(|value| {
        let path = format!("{}.health", service.path);
        reader.open_value(&keys::HEALTH, path, value.span(), value)
    });
    let Some(table) = opened else {
        return HealthCheck {
            probe: Probe::Tcp,
            every: defaults::HEALTH_EVERY.default,
            timeout: defaults::HEALTH_TIMEOUT.default,
            unhealthy_after: small(defaults::UNHEALTHY_AFTER.default),
            healthy_after: small(defaults::HEALTHY_AFTER.default),
            alive: None,
        };
    };
    let http = reader.text(&table, "http").inspect(|path| {
        check_absolute(reader, path, "path", is_url_path);
    });
    let tcp = reader.boolean(&table, "tcp").unwrap_or(false);
    if let (Some(_), true, Some(value)) = (&http, tcp, table.value("tcp")) {
        reader.report(
            Diagnostic::error(Code::ExclusiveKeys, "the health check has both `http` and `tcp`")
                .label(value.span(), "a check is one of the two")
                .help("remove `tcp`: a check by HTTP connects as well"),
        );
    }
    let alive = reader.text(&table, "alive").inspect(|path| {
        check_absolute(reader, path, "path", is_url_path);
    });
    let count = |number: Option<u64>, bounds: defaults::Bounds<u64>| {
        small(number.unwrap_or(bounds.default))
    };
    HealthCheck {
        probe: http.map_or(Probe::Tcp, |path| Probe::Http((*path.get_ref()).to_owned())),
        every: reader.duration(&table, "every", defaults::HEALTH_EVERY),
        timeout: reader.duration(&table, "timeout", defaults::HEALTH_TIMEOUT),
        unhealthy_after: count(
            reader.integer(&table, "unhealthy_after", defaults::UNHEALTHY_AFTER),
            defaults::UNHEALTHY_AFTER,
        ),
        healthy_after: count(
            reader.integer(&table, "healthy_after", defaults::HEALTHY_AFTER),
            defaults::HEALTHY_AFTER,
        ),
        alive: alive.map(|path| (*path.get_ref()).to_owned()),
    }
}

fn read_deploy<'t>(reader: &mut Reader<'t>, service: &Table<'t>) -> DeployPolicy {
    let opened = service.value("deploy").and_then(|value| {
        let path = format!("{}.deploy", service.path);
        reader.open_value(&keys::DEPLOY, path, value.span(), value)
    });
    let (canary, batch, healthy_for, rollback) = match &opened {
        Some(table) => (
            reader.integer(table, "canary", defaults::CANARY),
            reader.integer(table, "batch", defaults::BATCH),
            reader.duration(table, "healthy_for", defaults::HEALTHY_FOR),
            reader.boolean(table, "rollback"),
        ),
        None => (None, None, defaults::HEALTHY_FOR.default, None),
    };
    DeployPolicy {
        canary: small(canary.unwrap_or(defaults::CANARY.default)),
        batch: small(batch.unwrap_or(defaults::BATCH.default)),
        healthy_for,
        rollback: rollback.unwrap_or(defaults::ROLLBACK),
    }
}

/// Reports a path that does not begin with `/` or is not `allowed`; returns whether it can be used.
pub(crate) fn check_absolute(
    reader: &mut Reader<'_>,
    text: &Text<'_>,
    what: &str,
    allowed: fn(&str) -> bool,
) -> bool {
    let written = *text.get_ref();
    let label = if !written.starts_with('/') {
        "does not begin with `/`"
    } else if !allowed(written) {
        "has characters that a path of a URL cannot have"
    } else {
        return true;
    };
    let message = format!("`{}` cannot be used as a {what}", written.escape_debug());
    reader.report(Diagnostic::error(Code::BadPath, message).label(text.span(), label));
    false
}

/// Returns whether the text can stand in the first line of a request (RFC 3986 §3.3).
pub(crate) fn is_url_path(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>'))
}

/// Narrows a number that its bounds already keep small.
pub(crate) fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Narrows a number that its bounds already keep a port.
pub(crate) fn port_number(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
