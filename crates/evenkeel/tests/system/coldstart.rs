//! Starts from disk: of one host with no quorum in reach, and of a system of which a region is gone.

use std::time::{Duration, Instant};

use evenkeel_node::status::{Source, StatusWire};

use crate::http::Request;
use crate::rig::{Rig, eventually};

/// Longest time for an answer that nobody else is asked for, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(1500);

/// Every other host is off. This one goes on, and after a restart it comes back from disk.
pub(crate) fn a_host_starts_alone(rig: &mut Rig) {
    let leader = rig.leader();
    let host = ["waw-a1", "ams-a1"].into_iter().find(|host| *host != leader).unwrap();
    assert!(rig.ask_api(host, &Request::put("/v1/kv/before", b"dark")).status < 300);
    // The leader last, when nobody can be elected in its place: this host is to hear of it only.
    let mut others: Vec<String> = rig.hosts().into_iter().filter(|other| other != host).collect();
    others.sort_by_key(|other| *other == leader);
    for other in others {
        rig.power_off(&other);
    }
    check_alone(rig, host, "heard from a leader");

    rig.power_off(host);
    rig.power_on(host);
    eventually("the host's own replica answers", || {
        let answer = rig.try_gateway(host, &Request::get("/"));
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    check_alone(rig, host, "knows by itself");

    rig.start();
    for host in rig.hosts() {
        assert_eq!(rig.ask_api(&host, &Request::get("/v1/kv/before")).text(), "dark");
    }
}

/// The power fails everywhere, and comes back in two regions of three: what was written is read
/// there, and the home region joins when its power is back.
pub(crate) fn a_system_starts_without_a_region(rig: &mut Rig) {
    let ada = "/profiles/ada";
    let written = rig.ask_gateway("fra-a1", &Request::put(ada, br#"{"name": "Ada"}"#));
    assert!(written.status < 300, "{written:?}");
    let hosts = rig.hosts();
    for host in &hosts {
        rig.power_off(host);
    }
    let (home, others): (Vec<String>, Vec<String>) =
        hosts.into_iter().partition(|host| host.starts_with("fra-"));
    assert_eq!((home.len(), others.len()), (3, 4));
    for host in &others {
        rig.power_on(host);
    }
    for host in &others {
        let read = eventually("what was written is read", || {
            let answer = rig.try_gateway(host, &Request::get(ada));
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(answer.text()) } else { Err(format!("{answer:?}")) }
        });
        assert!(read.contains("Ada"), "{read}");
    }
    eventually("the loss of the region is told", || {
        let said = rig.run_status("waw-a1", &[]);
        let told = said.code == Some(3) && home.iter().all(|host| said.out.contains(host));
        if told { Ok(()) } else { Err(format!("{said:?}")) }
    });
    let written = rig.ask_gateway("waw-a1", &Request::put(ada, br#"{"name": "Ada L."}"#));
    assert!(written.status < 300, "{written:?}");

    for host in &home {
        rig.power_on(host);
    }
    rig.wait_until_complete();
    for host in rig.hosts() {
        let read = rig.ask_gateway(&host, &Request::get(ada));
        assert!(read.status == 200 && read.text().contains("Ada L."), "{host}: {read:?}");
    }
}

/// What needs no store is answered, what needs it is refused at once, and the status says why.
fn check_alone(rig: &Rig, host: &str, known: &str) {
    assert_eq!(rig.ask_gateway(host, &Request::get("/")).status, 200);
    eventually("the loss of the quorum is known", || {
        let answer = rig.ask_api(host, &Request::get("/v1/kv/before"));
        if answer.code() == "no-quorum" { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    let write = Request::put("/v1/kv/before", b"bright");
    let begun = Instant::now();
    for answer in [rig.ask_api(host, &write), rig.ask_kv(host, &write)] {
        assert_eq!((answer.status, answer.code().as_str()), (503, "no-quorum"));
        assert_eq!(answer.header("evenkeel-outcome"), Some("none"));
    }
    let profile = rig.ask_gateway(host, &Request::get("/profiles/ada"));
    assert_eq!((profile.status, profile.code().as_str()), (503, "no-quorum"));
    assert!(begun.elapsed() < AT_ONCE, "{:?} for three refusals", begun.elapsed());

    let said = rig.run_status(host, &[]);
    assert_eq!(said.code, Some(4), "{said:?}");
    let first = said.out.lines().next().unwrap_or_default();
    assert!(first.starts_with(&format!("seven has no quorum in reach of `{host}`: ")), "{first}");
    assert!(first.contains(known), "{first}");
    let said = rig.run_status(host, &["--json"]);
    let status: StatusWire = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, status.source, status.goal_met), (Some(4), Source::Local, false));
}
