//! The processes of a host and how each is started.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use evenkeel_model::instance::{Instance, InstanceId};
use evenkeel_model::name::NameError;
use evenkeel_model::place::Host;
use evenkeel_model::service::Service;
use evenkeel_model::system::System;

/// Names a supervised process of a host; as text also the name of its shim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProcessId {
    /// The gateway, wanted on every host.
    Gateway,
    /// A replica.
    Replica(InstanceId),
}

impl ProcessId {
    /// Parses `gateway` or an instance such as `web-17`.
    ///
    /// # Errors
    /// The rule that an instance's name breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "gateway" {
            return Ok(Self::Gateway);
        }
        InstanceId::parse(text).map(Self::Replica)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => formatter.pad("gateway"),
            Self::Replica(id) => formatter.pad(&id.to_string()),
        }
    }
}

/// How a process is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Which process.
    pub id: ProcessId,
    /// Program and arguments, placeholders replaced.
    pub command: Vec<String>,
    /// Working directory; one of the host's choice when absent.
    pub directory: Option<PathBuf>,
    /// Variables given beside the host's own.
    pub environment: BTreeMap<String, String>,
    /// Sockets that the shim opens and hands on, so that they outlive the process.
    pub listen: Vec<SocketAddr>,
    /// The address that must be free before a start: a replica opens it itself.
    pub binds: Option<SocketAddr>,
}

/// Returns the address of a host's listeners that only the host itself is to reach: loopback,
/// unless several hosts share one machine and its loopback addresses.
#[must_use]
pub fn private_address(host: &Host, port: u16) -> SocketAddr {
    let address =
        if host.address.is_loopback() { host.address } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
    SocketAddr::new(address, port)
}

/// Returns where a replica listens on `host`: while traffic between hosts is protected its own host
/// alone is to reach it, and others come through the relay of its gateway.
#[must_use]
pub fn replica_address(host: &Host, port: u16, protected: bool) -> SocketAddr {
    if protected { private_address(host, port) } else { SocketAddr::new(host.address, port) }
}

/// Returns where the gateway of `host` relays requests of other hosts' gateways to its replicas.
/// `None` where it does not: traffic is not protected, or hosts share a machine.
#[must_use]
pub fn relay_address(system: &System, host: &Host, protected: bool) -> Option<SocketAddr> {
    let crosses = protected && !host.address.is_loopback();
    crosses.then(|| SocketAddr::new(host.address, system.ports.relay))
}

/// Returns the URL of the key-value API as replicas on `host` reach it.
#[must_use]
pub fn kv_url(system: &System, host: &Host) -> String {
    format!("http://{}", private_address(host, system.ports.kv))
}

/// Returns where a gateway of the system file listens on `host`: the file's address, else every
/// address of the host, or only its own when it shares a machine.
#[must_use]
pub fn public_address(address: Option<IpAddr>, host: &Host, port: u16) -> SocketAddr {
    let every = match host.address {
        address if address.is_loopback() => address,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(address.unwrap_or(every), port)
}

/// Describes the gateway process of `host`, which relays to replicas if `protected`.
#[must_use]
pub fn gateway_spec(
    system: &System,
    host: &Host,
    command: &[String],
    protected: bool,
) -> ProcessSpec {
    let mut listen: Vec<SocketAddr> = system
        .gateways
        .values()
        .map(|gateway| public_address(gateway.address, host, gateway.port))
        .collect();
    listen.push(private_address(host, system.ports.kv));
    listen.push(private_address(host, system.ports.gateway_admin));
    listen.extend(relay_address(system, host, protected));
    ProcessSpec {
        id: ProcessId::Gateway,
        command: command.to_vec(),
        directory: None,
        environment: BTreeMap::new(),
        listen,
        binds: None,
    }
}

/// Describes the process of a replica. Beside what the system file gives, every replica finds
/// `PORT`, `ADDRESS`, `HOST`, `KV_URL` and `EVENKEEL_INSTANCE` in its environment; the file wins.
#[must_use]
pub fn replica_spec(
    system: &System,
    host: &Host,
    service: &Service,
    instance: &Instance,
    protected: bool,
) -> ProcessSpec {
    let kv_url = kv_url(system, host);
    let listens = replica_address(host, instance.port, protected);
    let (address, port) = (listens.ip().to_string(), listens.port().to_string());
    let replace = |text: &String| {
        text.replace("${PORT}", &port)
            .replace("${ADDRESS}", &address)
            .replace("${HOST}", host.name.as_str())
            .replace("${kv.url}", &kv_url)
    };
    let mut environment: BTreeMap<String, String> = [
        ("PORT", port.clone()),
        ("ADDRESS", address.clone()),
        ("HOST", host.name.to_string()),
        ("KV_URL", kv_url.clone()),
        ("EVENKEEL_INSTANCE", instance.id.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let given = service.environment.iter().map(|(name, value)| (name.clone(), replace(value)));
    environment.extend(given);
    ProcessSpec {
        id: ProcessId::Replica(instance.id.clone()),
        command: service.command.iter().map(replace).collect(),
        directory: service.directory.clone(),
        environment,
        listen: Vec::new(),
        binds: Some(listens),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use evenkeel_model::instance::InstancePhase;
    use evenkeel_model::name::{HostName, RegionName, ServiceName, SystemName, ZoneName};
    use evenkeel_model::place::{HostRole, SurvivalGoal};
    use evenkeel_model::service::{DeployPolicy, HealthCheck, Probe, ServicePort};
    use evenkeel_model::system::Ports;

    use super::*;

    pub(crate) fn host(address: &str) -> Host {
        Host {
            name: HostName::parse("fra1").unwrap(),
            region: RegionName::parse("fra").unwrap(),
            zone: ZoneName::parse("a").unwrap(),
            address: address.parse().unwrap(),
            role: HostRole::Full,
        }
    }

    pub(crate) fn service() -> Service {
        Service {
            name: ServiceName::parse("web").unwrap(),
            command: ["/bin/web", "--at=${HOST}:${PORT}"].map(str::to_owned).to_vec(),
            directory: None,
            environment: [("STORE", "${kv.url}/v1"), ("HOST", "own")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            replicas: 1,
            needs: Vec::new(),
            health: HealthCheck {
                probe: Probe::Tcp,
                every: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                unhealthy_after: 1,
                healthy_after: 1,
                alive: None,
            },
            port: ServicePort::FromRange,
            start_grace: Duration::from_secs(1),
            drain: Duration::from_secs(1),
            stop_grace: Duration::from_secs(1),
            deploy: DeployPolicy::STANDARD,
        }
    }

    pub(crate) fn system() -> System {
        System {
            name: SystemName::parse("shop").unwrap(),
            goal: SurvivalGoal::Process,
            regions: Vec::new(),
            hosts: BTreeMap::new(),
            services: BTreeMap::new(),
            gateways: BTreeMap::new(),
            ports: Ports {
                peer: 7400,
                api: 7401,
                kv: 7402,
                gateway_admin: 7403,
                relay: 7404,
                replicas: 20000..=29999,
            },
            voters: Vec::new(),
            learners: Vec::new(),
            replace_after: evenkeel_model::voting::REPLACE_AFTER,
        }
    }

    fn check(address: &str, protected: bool, expected: &[(&str, &str)]) {
        let instance = Instance {
            id: InstanceId::parse("web-3").unwrap(),
            host: HostName::parse("fra1").unwrap(),
            port: 20003,
            phase: InstancePhase::Serving,
            revision: 1,
        };
        let spec = replica_spec(&system(), &host(address), &service(), &instance, protected);
        assert_eq!(spec.command, ["/bin/web", "--at=fra1:20003"]);
        let environment: Vec<(&str, &str)> =
            spec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(environment, expected);
    }

    #[test]
    fn tells_a_replica_where_it_is() {
        check(
            "10.0.0.1",
            false,
            &[
                ("ADDRESS", "10.0.0.1"),
                ("EVENKEEL_INSTANCE", "web-3"),
                ("HOST", "own"),
                ("KV_URL", "http://127.0.0.1:7402"),
                ("PORT", "20003"),
                ("STORE", "http://127.0.0.1:7402/v1"),
            ],
        );
        check(
            "10.0.0.1",
            true,
            &[
                ("ADDRESS", "127.0.0.1"),
                ("EVENKEEL_INSTANCE", "web-3"),
                ("HOST", "own"),
                ("KV_URL", "http://127.0.0.1:7402"),
                ("PORT", "20003"),
                ("STORE", "http://127.0.0.1:7402/v1"),
            ],
        );
        check(
            "::1",
            true,
            &[
                ("ADDRESS", "::1"),
                ("EVENKEEL_INSTANCE", "web-3"),
                ("HOST", "own"),
                ("KV_URL", "http://[::1]:7402"),
                ("PORT", "20003"),
                ("STORE", "http://[::1]:7402/v1"),
            ],
        );
    }

    #[test]
    fn gateways_relay_where_hosts_are_apart() {
        let listens = |address: &str, protected| {
            let spec = gateway_spec(&system(), &host(address), &["evenkeel".to_owned()], protected);
            spec.listen.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let own = ["127.0.0.1:7402", "127.0.0.1:7403"];
        assert_eq!(listens("10.0.0.1", false), own);
        assert_eq!(listens("10.0.0.1", true), [own[0], own[1], "10.0.0.1:7404"]);
        assert_eq!(listens("127.3.0.1", true), ["127.3.0.1:7402", "127.3.0.1:7403"]);
    }

    #[test]
    fn hosts_that_share_a_machine_share_no_listener() {
        let public = |address: &str| public_address(None, &host(address), 8080).to_string();
        assert_eq!(public("10.0.0.1"), "0.0.0.0:8080");
        assert_eq!(public("fd00::1"), "[::]:8080");
        assert_eq!(public("127.3.0.1"), "127.3.0.1:8080");
    }
}
