//! Static stability: what goes on while no coordinator works, and what comes back by itself.
//!
//! `STABILITY_SECONDS` says how long that lasts; `cargo xtask stability` makes it ten minutes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_checker::history::Outcome;
use evenkeel_drill::load::{Load, LoadOptions, Page, Station, Traffic};
use evenkeel_lab::ProcessRole;
use evenkeel_lab::world::World;
use evenkeel_node::status::Source;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::Request;
use crate::rig::{GATEWAY, PROGRAM, Rig, eventually, name};

/// Reads a second of the page that needs no store.
const RATE: u32 = 40;

/// Longest time for a refusal, once the loss is known, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(1500);

const HOSTS: [&str; 3] = ["fra-a", "fra-b", "fra-c"];

fn hold() -> Duration {
    let seconds = std::env::var("STABILITY_SECONDS").ok();
    Duration::from_secs(seconds.map_or(15, |text| text.parse().unwrap()))
}

/// Three hosts with a service that needs the store and one that does not.
pub(crate) fn three_hosts(world: &World) -> Rig {
    let file = format!(
        r#"
system = "stable"
survive = "zone"
[region.fra]
zones = {{ a = {{ fra-a = "10.1.0.1" }}, b = {{ fra-b = "10.1.0.2" }}, c = {{ fra-c = "10.1.0.3" }} }}
[service.profiles]
command = ["{PROGRAM}", "profiles"]
needs = ["kv"]
replicas = 3
health = {{ http = "/readyz", every = "250ms" }}
[service.page]
command = ["{PROGRAM}", "profiles"]
replicas = 3
health = {{ http = "/healthz", every = "250ms" }}
[gateway.public]
listen = ":{GATEWAY}"
routes = [{{ path = "/", to = "profiles" }}, {{ path = "/healthz", to = "page" }}]
"#
    );
    let rig = Rig::build(world, &file, 64 << 20);
    rig.start();
    rig
}

/// Reads the page from outside for as long as `meanwhile` takes: every read must be answered.
fn page_goes_on(rig: &Rig, meanwhile: impl FnOnce()) {
    let region = rig.lab.system().regions[0].clone();
    let namespace = rig.lab.client_namespace(&region).unwrap().clone();
    let station = Station {
        region,
        enter: Arc::new(move || namespace.enter_thread()),
        near: HOSTS.map(|host| rig.gateway(host)).to_vec(),
        far: Vec::new(),
    };
    let options = LoadOptions {
        traffic: Traffic::Page(Page { path: "/healthz".to_owned(), exists: true }),
        prefix: "page".to_owned(),
        clients_per_station: 3,
        rate: RATE,
        seed: 1,
        keep: true,
    };
    let load = Load::start(&[station], &options, None).unwrap();
    meanwhile();
    let operations = load.stop().unwrap().operations;
    let expected = hold().as_secs() * u64::from(RATE);
    assert!(operations.len() as u64 >= expected, "only {} reads", operations.len());
    let bad: Vec<_> = operations.iter().filter(|done| done.outcome != Outcome::Ok).collect();
    assert!(bad.is_empty(), "{} of {}: {:?}", bad.len(), operations.len(), bad.first());
}

/// Sends a signal to those of a host's processes that are meant.
fn signal(rig: &Rig, host: &str, meant: fn(&ProcessRole) -> bool, signal: Signal) -> usize {
    let processes = rig.lab.processes(&name(host)).into_iter();
    let meant = processes.filter(|process| meant(&process.role));
    meant.map(|process| kill(Pid::from_raw(process.pid), signal).unwrap()).count()
}

fn is_node(role: &ProcessRole) -> bool {
    *role == ProcessRole::Node
}

fn is_served(role: &ProcessRole) -> bool {
    matches!(role, ProcessRole::Gateway | ProcessRole::Child(_))
}

/// Lets frozen nodes go on, whatever happened meanwhile.
struct Frozen<'a>(&'a Rig);

impl<'a> Frozen<'a> {
    fn new(rig: &'a Rig) -> Self {
        for host in HOSTS {
            assert_eq!(signal(rig, host, is_node, Signal::SIGSTOP), 1, "{host}");
        }
        Self(rig)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        for host in HOSTS {
            signal(self.0, host, is_node, Signal::SIGCONT);
        }
    }
}

/// Every node is frozen, and with it every coordinator: the page goes on, what needs the store is
/// refused at once, and then all is as before.
pub(crate) fn frozen_nodes_stop_no_page(rig: &mut Rig) {
    let rig = &*rig;
    let write = Request::put("/profiles/ada", br#"{"name": "Ada"}"#);
    assert!(rig.ask_gateway("fra-a", &write).status < 300);
    page_goes_on(rig, || {
        let frozen = Frozen::new(rig);
        let until = Instant::now() + hold();
        eventually("the loss of the store is told at once", || {
            let begun = Instant::now();
            let answer = rig.ask_gateway("fra-b", &Request::get("/profiles/ada"));
            let took = begun.elapsed();
            let quick = answer.status == 503 && took < AT_ONCE;
            if quick { Ok(()) } else { Err(format!("after {took:?}: {answer:?}")) }
        });
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::sleep(left.min(Duration::from_secs(1)));
            let begun = Instant::now();
            let answer = rig.ask_gateway("fra-b", &write);
            let took = begun.elapsed();
            assert!(answer.status == 503 && took < AT_ONCE, "after {took:?}: {answer:?}");
        }
        drop(frozen);
        rig.wait_until_complete();
    });
    assert_eq!(rig.ask_gateway("fra-c", &Request::get("/profiles/ada")).status, 200);
}

/// Keeps coordinators from hearing each other.
struct Cut<'a>(&'a Rig);

impl<'a> Cut<'a> {
    fn new(rig: &'a Rig) -> Self {
        let port = rig.lab.system().ports.peer;
        let rules = format!(
            "table inet stability {{ chain in {{ type filter hook input priority 0; policy accept; \
             tcp dport {port} drop; tcp sport {port} drop; }}; }}"
        );
        for host in HOSTS {
            nft(rig, host, &rules);
        }
        Self(rig)
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        for host in HOSTS {
            nft(self.0, host, "delete table inet stability");
        }
    }
}

fn nft(rig: &Rig, host: &str, rules: &str) {
    let mut command = rig.inside(host).command("nft").unwrap();
    assert!(command.arg(rules).status().unwrap().success(), "nft on {host}");
}

/// No coordinator hears another, nodes live: what crashes is started again from this host's own
/// disk, stale reads are answered, and the status says how old it is.
pub(crate) fn hosts_without_a_quorum_go_on(rig: &mut Rig) {
    let rig = &*rig;
    let write = Request::put("/v1/kv/known", b"before");
    assert!(rig.ask_api("fra-a", &write).status < 300);
    page_goes_on(rig, || {
        let cut = Cut::new(rig);
        let until = Instant::now() + hold();
        for host in HOSTS {
            eventually("the loss of the quorum is known", || {
                let status = rig.status(host)?;
                if status.source == Source::Local { Ok(()) } else { Err(status.sentence) }
            });
        }
        let before = rig.supervised("fra-a").unwrap();
        assert_eq!(signal(rig, "fra-a", is_served, Signal::SIGKILL), 3);
        eventually("replicas and gateway were started again", || {
            let after = rig.supervised("fra-a")?;
            let again = before.iter().all(|(id, pid)| after.get(id).is_some_and(|now| now != pid));
            if again { Ok(()) } else { Err(format!("{before:?} and now {after:?}")) }
        });
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        for host in HOSTS {
            let begun = Instant::now();
            let refused = rig.ask_api(host, &write);
            assert_eq!((refused.status, refused.code().as_str()), (503, "no-quorum"), "{host}");
            let stale = rig.ask_api(host, &Request::get("/v1/kv/known?stale"));
            assert_eq!((stale.status, stale.text().as_str()), (200, "before"), "{host}");
            assert!(begun.elapsed() < AT_ONCE, "{:?} on {host}", begun.elapsed());
            let status = rig.status(host).unwrap();
            let age = Duration::from_millis(status.age_ms.unwrap_or_default());
            assert!(age + Duration::from_secs(5) > hold(), "{host} says {age:?}");
        }
        drop(cut);
        rig.wait_until_complete();
    });
}
