//! The service that simulated systems run.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_model::name::{NameError, ServiceName};
use evenkeel_model::service::{DeployPolicy, HealthCheck, Probe, Service, ServicePort};

/// Describes a service that starts and stops within seconds.
pub(crate) fn service(name: &str, replicas: u32, port: ServicePort) -> Result<Service, NameError> {
    Ok(Service {
        name: ServiceName::parse(name)?,
        command: vec![format!("/bin/{name}")],
        directory: None,
        environment: BTreeMap::new(),
        replicas,
        needs: Vec::new(),
        health: HealthCheck {
            probe: Probe::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            unhealthy_after: 3,
            healthy_after: 1,
            alive: None,
        },
        port,
        start_grace: Duration::from_secs(10),
        drain: Duration::from_secs(2),
        stop_grace: Duration::from_secs(3),
        deploy: DeployPolicy::STANDARD,
    })
}
