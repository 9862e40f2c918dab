//! Requests that cross from host to host do so through relays, and in no other way.

use std::net::SocketAddr;

use evenkeel_lab::ProcessRole;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::http::Request;
use crate::rig::{Rig, eventually, name};

/// The host whose gateway is asked.
const HERE: &str = "fra-a1";

/// Replicas listen for their own host alone, a relay answers nobody without proof, and gateways
/// reach the replicas of all hosts all the same.
pub(crate) fn replicas_are_reached_through_relays_alone(rig: &mut Rig) {
    let relay = rig.lab.system().ports.relay;
    let endpoints = eventually("every replica is ready", || ready_endpoints(rig));
    let status = rig.status(HERE).unwrap();
    for instance in &status.instances {
        let address: SocketAddr =
            endpoints[instance.id.as_str()].as_str().unwrap().parse().unwrap();
        if instance.host == HERE {
            assert!(address.ip().is_loopback(), "{instance:?} is at {address}");
            continue;
        }
        assert_eq!(address, SocketAddr::new(rig.address(&instance.host), relay), "{instance:?}");
        let direct = SocketAddr::new(address.ip(), instance.port);
        let get = Request::get("/readyz");
        let answer = rig.inside(HERE).run(|| get.send(direct)).unwrap();
        assert!(answer.is_err(), "{instance:?} answers other hosts: {answer:?}");
        let answer = rig.inside(HERE).run(|| get.send(address)).unwrap();
        assert!(answer.is_err(), "the relay of {} answers whoever asks: {answer:?}", instance.host);
    }
    let own = rig.lab.processes(&name(HERE)).into_iter().find(
        |process| matches!(&process.role, ProcessRole::Child(id) if id.starts_with("profiles-")),
    );
    let paused = Paused::new(own.unwrap().pid);
    eventually("other hosts' replicas answer", || {
        let answer = rig.ask_gateway(HERE, &Request::get("/readyz"));
        let own = status.instances.iter().find(|instance| instance.host == HERE);
        let from = answer.header("evenkeel-instance").map(str::to_owned);
        let elsewhere = from.is_some() && from.as_deref() != own.map(|own| own.id.as_str());
        if answer.status == 200 && elsewhere { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    drop(paused);
    rig.wait_until_complete();
}

/// Returns the address of each replica as the gateway knows it, once all of them are ready.
fn ready_endpoints(rig: &Rig) -> Result<Value, String> {
    let admin = SocketAddr::from(([127, 0, 0, 1], rig.lab.system().ports.gateway_admin));
    let answer = rig.inside(HERE).run(|| Request::get("/state").send(admin));
    let answer = answer.and_then(|answer| answer).map_err(|error| error.to_string())?;
    let state: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let endpoints = state["endpoints"].as_array().cloned().unwrap_or_default();
    let replicas = endpoints.iter().filter(|endpoint| endpoint["upstream"] == "profiles");
    let mut found = serde_json::Map::new();
    for endpoint in replicas {
        if endpoint["standing"] != "ready" {
            return Err(endpoint.to_string());
        }
        found.insert(endpoint["id"].as_str().unwrap_or("").to_owned(), endpoint["address"].clone());
    }
    if found.len() == 7 { Ok(found.into()) } else { Err(format!("{} of 7", found.len())) }
}

/// A process that is stopped, and goes on when this is dropped.
struct Paused(Pid);

impl Paused {
    fn new(pid: i32) -> Self {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        Self(Pid::from_raw(pid))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been ended meanwhile.
        let _continued = kill(self.0, Signal::SIGCONT);
    }
}
