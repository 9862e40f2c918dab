//! Services that do not do what they should.

use std::time::{Duration, Instant};

use evenkeel_lab::world::World;
use evenkeel_node::wire::StateWire;

use crate::rig::{Rig, eventually, text};

/// Longest `down` of services that have 1 s to stop, on a busy machine.
const DOWN_MAX: Duration = Duration::from_secs(10);

/// One host with three services, none of which will ever be ready.
pub(crate) fn one_host(world: &World) -> Rig {
    let file = r#"
system = "one"
survive = "process"
[region.fra]
hosts = { solo = "10.9.0.1" }
[service.quits]
command = ["/bin/sh", "-c", "read since rest < /proc/uptime; echo $since >> starts; exit 7"]
replicas = 1
[service.sleeps]
command = ["/bin/sleep", "1000"]
replicas = 1
health = { http = "/ready", every = "100ms" }
start_grace = "300ms"
[service.stubborn]
command = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.2; done"]
replicas = 1
stop_grace = "1s"
"#;
    let rig = Rig::build(world, file, 64 << 20);
    rig.lab.power_on_all().unwrap();
    rig
}

/// The status tells of each service what is wrong with it, and the back-off has its way.
pub(crate) fn bad_services_are_told(rig: &mut Rig) {
    let status = eventually("a service has quit three times", || {
        let status = rig.status("solo")?;
        let quits = status.processes.iter().find(|process| process.id.starts_with("quits-"));
        let done = quits.is_some_and(|process| process.restarts >= 3);
        if done { Ok(status) } else { Err(format!("{:?}", status.processes)) }
    });
    assert!(!status.goal_met);
    let find = |service: &str| {
        let instances = rig.status("solo").unwrap().instances;
        instances.into_iter().find(|instance| instance.service == service).unwrap()
    };
    let quits = find("quits");
    assert!(matches!(quits.state, Some(StateWire::BackingOff | StateWire::Starting)), "{quits:?}");
    assert!(quits.last_error.as_deref().unwrap_or_default().contains('7'), "{quits:?}");
    eventually("the one that never answers is told", || {
        let sleeps = find("sleeps");
        let why = sleeps.last_error.as_deref().unwrap_or_default();
        let told = sleeps.state == Some(StateWire::NotReady) && why.contains("health check");
        if told { Ok(()) } else { Err(format!("{sleeps:?}")) }
    });
    let said = rig.run_status("solo", &[]);
    assert_eq!(said.code, Some(3), "{said:?}");
    for service in ["quits", "sleeps", "stubborn"] {
        assert!(said.out.contains(service), "{said:?}");
    }
}

/// Starts of the service that quits, as many as show that the waits grow.
const STARTS: usize = 9;

/// Seconds that growing waits take together.
const GROWN: f64 = 1.2;

/// The waits between starts grow. Each is drawn from a whole range that doubles, so only all of them
/// together tell: waits that did not grow would take 0.8 s at most, these take 13 s on average and
/// less than [`GROWN`] once in 25,000 times.
pub(crate) fn a_service_that_quits_is_started_less_and_less(rig: &mut Rig) {
    let starts = eventually("the service was started often enough", || {
        let starts = starts(rig);
        if starts.len() >= STARTS { Ok(starts) } else { Err(format!("{starts:?}")) }
    });
    let waits: Vec<f64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.iter().sum::<f64>() > GROWN, "{waits:?} s are no back-off");
}

/// Returns when the service that quits was started, in seconds of the machine's life.
fn starts(rig: &Rig) -> Vec<f64> {
    let file = rig.data("solo").join("shims/quits-1/data/starts");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// One of the services ignores SIGTERM: `down` ends it all the same, after its grace.
pub(crate) fn down_ends_what_ignores_sigterm(rig: &mut Rig) {
    eventually("the service runs", || {
        let status = rig.status("solo")?;
        let runs = |id: &str, pid: Option<u32>| id.starts_with("stubborn-") && pid.is_some();
        if status.processes.iter().any(|process| runs(&process.id, process.pid)) {
            Ok(())
        } else {
            Err(format!("{:?}", status.processes))
        }
    });
    let begun = Instant::now();
    let data = rig.data("solo");
    let said = rig.run("solo", &["down", "--data", text(&data)]);
    let took = begun.elapsed();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!((Duration::from_secs(1)..DOWN_MAX).contains(&took), "{took:?}");
    rig.wait_until_empty("solo");
}
