//! What is tried inside a world.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use evenkeel_lab::world::{Isolation, World};
use evenkeel_lab::{
    Forwarder, HostStatus, Lab, Namespace, ProcessRole, Wan, WanLink, on_loopback, ping,
};
use evenkeel_model::fault::{FaultKind, Target};
use evenkeel_model::instance::InstanceId;
use evenkeel_model::system::System;

use crate::support::{
    ECHO, echoes, eventually, five_hosts, five_hosts_v6, host, options, region, system,
    wait_for_hosts,
};

/// Time after which nothing is expected any more from what is broken.
const QUICK: Duration = Duration::from_millis(200);
/// Time that what works is given on a busy machine.
const SOON: Duration = Duration::from_secs(5);

pub(crate) fn play(name: &str, world: World) -> ExitCode {
    match name {
        "ipv4" => reach(&world, &five_hosts()),
        "ipv6" => reach(&world, &five_hosts_v6()),
        "links" => links(&world),
        "power" => power(&world),
        "signals" => signals(&world),
        "seven" => return ExitCode::from(7),
        "linger" => linger(&world),
        "listener" => listener(world),
        other => panic!("no scenario {other}"),
    }
    ExitCode::SUCCESS
}

/// Every host reaches every other and every client every host, no quicker than planned.
fn reach(world: &World, system: &System) {
    let begun = Instant::now();
    let lab = Lab::build(world, system, options(system)).unwrap();
    println!("built in {} ms", begun.elapsed().as_millis());
    let begun = Instant::now();
    lab.power_on_all().unwrap();
    wait_for_hosts(&lab);
    println!("every host answers after {} ms", begun.elapsed().as_millis());
    for trip in lab.measure_round_trips() {
        let measured = trip.measured.unwrap();
        println!("{}-{}: planned {:?}, measured {measured:?}", trip.from, trip.to, trip.planned);
        assert!(measured >= trip.planned, "{trip:?}");
    }
    for to in system.hosts.values() {
        let clients = system.regions.iter().map(|region| lab.client_namespace(region).unwrap());
        let hosts = system.hosts.keys().map(|name| lab.host_namespace(name).unwrap());
        for from in clients.chain(hosts) {
            assert!(echoes(from, to.address, Duration::from_secs(2)), "{}", to.name);
        }
    }
    let client = lab.client_namespace(&region("fra")).unwrap();
    let near = (0..10).filter_map(|_| ping(client, address(system, "fra-a1"), SOON).unwrap()).min();
    let near = near.unwrap();
    println!("a client's way into its own region: {near:?}");
    assert!(near < Duration::from_millis(9), "{near:?}");
}

/// Links are shaped, counted, cut and mended while frames pass.
fn links(world: &World) {
    let system = five_hosts();
    let lab = Lab::build(world, &system, options(&system)).unwrap();
    lab.power_on_all().unwrap();
    wait_for_hosts(&lab);
    let (fra, ams, waw) = (region("fra"), region("ams"), region("waw"));
    let wide_area = lab.wide_area().unwrap();
    let from = lab.host_namespace(&host("fra-a1")).unwrap();
    let (far, third) = (address(&system, "ams-a1"), address(&system, "waw-a1"));

    let mut link = WanLink::new(Duration::from_millis(60));
    link.jitter = Duration::from_millis(20);
    assert!(wide_area.shape(&ams, &fra, link));
    let trip = ping(from, far, SOON).unwrap().unwrap();
    assert!(trip.as_millis() >= 60, "{trip:?}");

    let mut link = WanLink::new(Duration::from_millis(1));
    link.loss_per_million = 300_000;
    wide_area.shape(&fra, &ams, link);
    let before = wide_area.counters(&fra, &ams).unwrap();
    send_datagrams(from, far, 2000);
    let lost = || wide_area.counters(&fra, &ams).unwrap().lost - before.lost;
    let delivered = || wide_area.counters(&fra, &ams).unwrap().delivered - before.delivered;
    eventually("every datagram has met its fate", || lost() + delivered() >= 2000);
    println!("30 % loss: {} of 2000 lost", lost());
    assert!((500..700).contains(&lost()), "{}", lost());

    wide_area.shape(&fra, &ams, WanLink::new(Duration::from_millis(10)));
    println!("10 ms: {:.0} Mbit/s", throughput(from, far, 32 << 20));
    let mut link = WanLink::new(Duration::from_millis(2));
    wide_area.shape(&fra, &ams, link.clone());
    // The best of three: the others waited for this machine.
    let rate = (0..3).map(|_| throughput(from, far, 32 << 20)).fold(0.0, f64::max);
    println!("2 ms: {rate:.0} Mbit/s");
    assert!(rate > 100.0, "{rate} Mbit/s");
    link.bandwidth_bits_per_second = Some(20_000_000);
    wide_area.shape(&fra, &ams, link);
    let rate = throughput(from, far, 4 << 20);
    println!("20 Mbit/s limit: {rate:.1} Mbit/s");
    assert!((5.0..25.0).contains(&rate), "{rate} Mbit/s");

    wide_area.shape(&fra, &ams, WanLink::new(Duration::from_millis(10)));
    let cut = Instant::now();
    assert!(wide_area.cut(&fra, &ams, Duration::from_secs(1)));
    assert_eq!(ping(from, far, QUICK).unwrap(), None);
    assert!(ping(from, third, SOON).unwrap().is_some());
    let client = lab.client_namespace(&fra).unwrap();
    assert!(ping(client, far, SOON).unwrap().is_some(), "a client is no part of the link");
    eventually("the cut ends", || ping(from, far, QUICK).unwrap().is_some());
    let gap = cut.elapsed();
    println!("a cut of 1 s lasted {gap:?}");
    assert!(gap >= Duration::from_secs(1));
    assert!(wide_area.counters(&ams, &fra).unwrap().cut >= 1);
    wide_area.cut(&fra, &waw, Duration::from_secs(60));
    assert_eq!(ping(from, third, QUICK).unwrap(), None);
    wide_area.mend(&waw, &fra);
    assert!(ping(from, third, SOON).unwrap().is_some());
    assert!(lab.can(FaultKind::Isolate, &Target::Link(fra.clone(), ams)).is_ok());
    assert!(lab.can(FaultKind::Kill, &Target::Link(fra, waw)).is_err());
}

/// Sends datagrams that nobody waits for.
fn send_datagrams(from: &Namespace, to: IpAddr, count: u32) {
    let socket = from.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
    for _ in 0..count {
        // Some are answered with "port unreachable", which the socket then reports.
        drop(socket.send_to(b"x", SocketAddr::new(to, 9)));
    }
}

/// Sends bytes to an echo server and back, and returns megabits per second of one way.
fn throughput(from: &Namespace, to: IpAddr, bytes: usize) -> f64 {
    let stream = from.run(|| TcpStream::connect((to, ECHO)).unwrap()).unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let chunk = vec![0; 64 * 1024];
            for _ in 0..bytes / chunk.len() {
                (&stream).write_all(&chunk).unwrap();
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let received = io::copy(&mut (&stream), &mut io::sink()).unwrap();
        assert_eq!(received, bytes as u64);
    });
    #[expect(clippy::cast_precision_loss, reason = "megabits are few")]
    let megabits = (bytes * 8) as f64 / 1e6;
    megabits / begun.elapsed().as_secs_f64()
}

/// In a lab that ignores SIGINT and SIGQUIT, as a shell makes what it runs in the background, a
/// host's processes hear both.
fn signals(world: &World) {
    const INT_AND_QUIT: u64 = 0b110;
    let ignored = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap() & INT_AND_QUIT
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(ignored(&own), INT_AND_QUIT, "the lab is not run as it should be");
    let system = system("fra a fra-a1 10.1.0.11");
    let lab = Lab::build(world, &system, options(&system)).unwrap();
    lab.power_on_all().unwrap();
    let name = host("fra-a1");
    let node = || lab.processes(&name).into_iter().find(|found| found.role == ProcessRole::Node);
    eventually("the node runs", || node().is_some());
    let node = std::fs::read_to_string(format!("/proc/{}/status", node().unwrap().pid)).unwrap();
    assert_eq!(ignored(&node), 0, "of its node");
    let mut command = lab.host_namespace(&name).unwrap().command("cat").unwrap();
    let said = command.arg("/proc/self/status").output().unwrap();
    assert_eq!(ignored(&String::from_utf8_lossy(&said.stdout)), 0, "of a command on it");
}

/// Hosts lose power at once and come back with their data; a dead node is started again.
fn power(world: &World) {
    let system = system("fra a fra-a1 10.1.0.11\nfra b fra-b1 10.1.0.12");
    let lab = Lab::build(world, &system, options(&system)).unwrap();
    lab.power_on_all().unwrap();
    wait_for_hosts(&lab);
    let (name, other) = (host("fra-a1"), host("fra-b1"));
    let has = |role: &ProcessRole| lab.processes(&name).iter().any(|found| found.role == *role);
    let web = InstanceId::parse("web-1").unwrap();
    for role in [
        ProcessRole::Init,
        ProcessRole::Node,
        ProcessRole::Gateway,
        ProcessRole::Shim("gateway".to_owned()),
        ProcessRole::Shim("web-1".to_owned()),
        ProcessRole::Child("web-1".to_owned()),
    ] {
        eventually(&format!("{role:?} runs"), || has(&role));
    }
    let targets = [
        Target::Node(name.clone()),
        Target::Gateway(name.clone()),
        Target::Replica(web.clone(), name.clone()),
        Target::Shim(web, name.clone()),
    ];
    for target in &targets {
        assert_eq!(lab.pids(target).len(), 1, "{target}");
        assert!(lab.can(FaultKind::Kill, target).is_ok());
        assert!(lab.can(FaultKind::Isolate, target).is_err());
    }
    let whole = lab.pids(&Target::Host(name.clone()));
    assert_eq!(whole.len(), 6);
    assert_eq!(lab.pids(&Target::Region(region("fra"))).len(), 12);

    let node = lab.pids(&targets[0]);
    let killed = Instant::now();
    kill(node[0]);
    eventually("the node is started again", || {
        let now = lab.pids(&targets[0]);
        !now.is_empty() && now != node
    });
    println!("a killed node is back after {:?}", killed.elapsed());
    assert!(killed.elapsed() >= Duration::from_secs(1));
    eventually("it runs", || starts(&lab) == "2");

    lab.power_off(&name).unwrap();
    assert_eq!(lab.status(&name), HostStatus::Off);
    for pid in whole {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
    }
    assert!(!lab.processes(&other).is_empty());
    lab.power_on(&name).unwrap();
    wait_for_hosts(&lab);
    assert_eq!(starts(&lab), "3");
    assert!(lab.power_on(&name).is_err(), "it is on");
    assert!(lab.power_on(&host("none")).is_err());

    // An init that was killed by somebody else is noticed.
    let HostStatus::On { init } = lab.status(&name) else { panic!("it is on") };
    kill(init);
    eventually("the host is off", || lab.status(&name) == HostStatus::Off);
    lab.power_on(&name).unwrap();
    wait_for_hosts(&lab);
    lab.shut_down(&name, Duration::from_secs(5)).unwrap();
    assert_eq!(lab.status(&name), HostStatus::Off);
    let data = lab.data(&name);
    drop(lab);
    assert!(!data.exists());
}

fn starts(lab: &Lab) -> String {
    std::fs::read_to_string(lab.data(&host("fra-a1")).join("starts")).unwrap()
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
}

fn address(system: &System, name: &str) -> IpAddr {
    system.hosts.get(&host(name)).unwrap().address
}

/// Stays until it is killed.
fn linger(world: &World) {
    let system = five_hosts();
    let lab = Lab::build(world, &system, options(&system)).unwrap();
    lab.power_on_all().unwrap();
    wait_for_hosts(&lab);
    println!("ready");
    std::thread::sleep(Duration::from_secs(600));
}

/// Lets callers from outside the world reach the hosts, of which one dies.
fn listener(mut world: World) {
    let system = five_hosts();
    let listener = world.listeners.remove(0);
    let lab = Lab::build(&world, &system, options(&system)).unwrap();
    lab.power_on_all().unwrap();
    wait_for_hosts(&lab);
    let client = lab.client_namespace(&region("fra")).unwrap().clone();
    let targets = ["fra-a1", "ams-a1"].map(|name| SocketAddr::new(address(&system, name), ECHO));
    let forwarder = Forwarder::start(listener, client, targets.to_vec()).unwrap();
    for line in io::stdin().lines() {
        lab.power_off(&host(&line.unwrap())).unwrap();
        println!("off");
    }
    drop(forwarder);
}

/// Stays until it is killed, without namespaces.
pub(crate) fn linger_on_loopback() {
    let world = World { isolation: Isolation::None { reason: String::new() }, listeners: vec![] };
    let system = on_loopback(&five_hosts());
    let mut options = options(&system);
    options.command = ["sh", "-c", "setsid sleep 1000 & sleep 1001"].map(Into::into).to_vec();
    let lab = Lab::build(&world, &system, options).unwrap();
    lab.power_on_all().unwrap();
    eventually("the hosts run", || system.hosts.keys().all(|name| lab.processes(name).len() == 4));
    println!("ready");
    std::thread::sleep(Duration::from_secs(600));
}

/// The last resort: hosts are processes on loopback addresses.
pub(crate) fn loopback() {
    let isolation = Isolation::None { reason: "tried without".to_owned() };
    let world = World { isolation, listeners: Vec::new() };
    let refused = Lab::build(&world, &five_hosts(), options(&five_hosts())).unwrap_err();
    assert!(refused.to_string().contains("tried without"), "{refused}");

    let system = on_loopback(&system("fra a fra-a1 10.0.0.1\nams a ams-a1 10.0.0.2"));
    let mut options = options(&system);
    options.command = ["sh", "-c", "sleep 1000 & sleep 1001"].map(Into::into).to_vec();
    options.wan = Wan::continental(&system.regions);
    let lab = Lab::build(&world, &system, options).unwrap();
    lab.power_on_all().unwrap();
    let name = host("fra-a1");
    eventually("the host runs", || lab.processes(&name).len() == 4);
    let target = Target::Host(name.clone());
    let pids = lab.pids(&target);
    assert!(lab.can(FaultKind::Kill, &target).is_ok());
    assert!(lab.can(FaultKind::Isolate, &target).unwrap_err().contains("tried without"));
    lab.power_off(&name).unwrap();
    for pid in pids {
        eventually("its processes are gone", || {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
        });
    }
    drop(lab);
}
