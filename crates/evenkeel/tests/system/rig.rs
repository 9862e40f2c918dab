//! A system in the lab, and the hands and eyes that the cases have on it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use evenkeel_lab::world::World;
use evenkeel_lab::{HostStatus, Lab, LabOptions, Namespace, ProcessRole, Storage, Wan};
use evenkeel_model::name::HostName;
use evenkeel_node::status::{Source, StatusWire};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::{Answer, Request};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_evenkeel");
/// Where every system's gateway listens.
pub(crate) const GATEWAY: u16 = 8080;

/// What another program holds on `ams-b1` of the seven hosts: whatever the first plan gives.
pub(crate) const PORTS_HELD: RangeInclusive<u16> = 20_000..=20_007;

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Longest run of a command.
const COMMAND_MAX: Duration = Duration::from_secs(60);
/// Lines of a host's log that are printed when a case fails.
const LOG_LINES: usize = 12;

/// Counts the rigs of this run, which share one memory file system.
static RIGS: AtomicU32 = AtomicU32::new(0);

/// A system in the lab.
pub(crate) struct Rig {
    pub(crate) lab: Lab,
    /// The hosts' system files: each has one of its own.
    files: PathBuf,
    /// Ports that another program of a host is said to hold.
    held: Vec<TcpListener>,
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Seven hosts in three regions: two of them do not vote.
pub(crate) fn seven_hosts(world: &World) -> Rig {
    let text = r#"
system = "seven"
survive = "region"
[region.fra]
zones = { a = { fra-a1 = "10.1.0.11" }, b = { fra-b1 = "10.1.0.12", fra-b2 = "10.1.0.13" } }
[region.ams]
zones = { a = { ams-a1 = "10.2.0.11" }, b = { ams-b1 = "10.2.0.12", ams-b2 = "10.2.0.13" } }
[region.waw]
zones = { a = { waw-a1 = "10.3.0.11" } }
"#;
    let mut rig = Rig::build(world, &with_profiles(text, 7), 64 << 20);
    for port in PORTS_HELD {
        rig.hold_port("ams-b1", port);
    }
    rig.start();
    rig
}

/// Three hosts in three regions, all IPv6.
pub(crate) fn three_hosts_v6(world: &World) -> Rig {
    let text = r#"
system = "six"
survive = "region"
[region.fra]
hosts = { fra1 = "2001:db8::11" }
[region.ams]
hosts = { ams1 = "2001:db8::21" }
[region.waw]
hosts = { waw1 = "2001:db8::31" }
"#;
    let rig = Rig::build(world, &with_profiles(text, 3), 128 << 20);
    rig.start();
    rig
}

/// Three hosts in one region, with little space.
pub(crate) fn three_small_disks(world: &World) -> Rig {
    let text = r#"
system = "small"
survive = "zone"
[region.fra]
zones = { a = { fra-a = "10.1.0.1" }, b = { fra-b = "10.1.0.2" }, c = { fra-c = "10.1.0.3" } }
"#;
    let rig = Rig::build(world, &with_profiles(text, 3), 56 << 20);
    rig.start();
    rig
}

/// Adds the example service and a way to it.
pub(crate) fn with_profiles(places: &str, replicas: usize) -> String {
    format!(
        r#"{places}
[service.profiles]
command = ["{PROGRAM}", "profiles"]
needs = ["kv"]
replicas = {replicas}
health = {{ http = "/readyz", every = "250ms" }}
drain = "500ms"
[gateway.public]
listen = ":{GATEWAY}"
routes = [{{ path = "/", to = "profiles" }}]
"#
    )
}

impl Rig {
    /// Lays the network of a system; its hosts are still off.
    pub(crate) fn build(world: &World, text: &str, disk_bytes: u64) -> Self {
        let system = evenkeel_system_file::parse(text).unwrap().system;
        let serial = RIGS.fetch_add(1, Ordering::Relaxed);
        let files = PathBuf::from(format!("/dev/shm/system-{serial}"));
        fs::create_dir(&files).unwrap();
        for host in system.hosts.keys() {
            fs::write(files.join(format!("{host}.toml")), text).unwrap();
        }
        let file = files.join("{host}.toml").display().to_string();
        let words = [PROGRAM, "node", "--system", &file, "--host", "{host}", "--data", "{data}"];
        let options = LabOptions {
            command: words.map(Into::into).to_vec(),
            storage: Storage::Memory { bytes_max: disk_bytes },
            wan: Wan::continental(&system.regions),
            seed: 1,
        };
        let lab = Lab::build(world, &system, options).unwrap();
        Self { lab, files, held: Vec::new() }
    }

    /// Switches every host on and waits until nothing is missing.
    pub(crate) fn start(&self) {
        self.lab.power_on_all().unwrap();
        self.wait_until_complete();
    }

    fn hold_port(&mut self, host: &str, port: u16) {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let opened = self.inside(host).run(|| TcpListener::bind(address));
        self.held.push(opened.unwrap().unwrap());
    }

    /// Returns the names of all hosts.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.lab.system().hosts.keys().map(ToString::to_string).collect()
    }

    pub(crate) fn address(&self, host: &str) -> IpAddr {
        self.lab.system().hosts[&name(host)].address
    }

    /// Returns where a host's key-value API and status are.
    pub(crate) fn api(&self, host: &str) -> SocketAddr {
        SocketAddr::new(self.address(host), self.lab.system().ports.api)
    }

    /// Returns where a host's gateway lets clients in.
    pub(crate) fn gateway(&self, host: &str) -> SocketAddr {
        SocketAddr::new(self.address(host), GATEWAY)
    }

    /// Returns where a host's own programs find the key-value API.
    pub(crate) fn kv(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.lab.system().ports.kv))
    }

    pub(crate) fn data(&self, host: &str) -> PathBuf {
        self.lab.data(&name(host))
    }

    /// Returns the system file that a host is started with.
    pub(crate) fn file(&self, host: &str) -> PathBuf {
        self.files.join(format!("{host}.toml"))
    }

    /// Returns what a host's node wrote to its log.
    pub(crate) fn log(&self, host: &str) -> String {
        fs::read_to_string(self.lab.log(&name(host))).unwrap_or_default()
    }

    /// Returns the network of a host.
    pub(crate) fn inside(&self, host: &str) -> &Namespace {
        self.lab.host_namespace(&name(host)).unwrap()
    }

    /// Returns the network of the clients near a host, outside every host.
    pub(crate) fn outside(&self, host: &str) -> &Namespace {
        let region = &self.lab.system().hosts[&name(host)].region;
        self.lab.client_namespace(region).unwrap()
    }

    /// Asks a host's API as one of its own programs would.
    pub(crate) fn try_api(&self, host: &str, request: &Request) -> io::Result<Answer> {
        self.inside(host).run(|| request.send(self.api(host)))?
    }

    pub(crate) fn ask_api(&self, host: &str, request: &Request) -> Answer {
        self.try_api(host, request).unwrap_or_else(|error| panic!("{host}: {request:?}: {error}"))
    }

    /// Asks the key-value API through a host's own gateway.
    pub(crate) fn ask_kv(&self, host: &str, request: &Request) -> Answer {
        let answer = self.inside(host).run(|| request.send(self.kv())).unwrap();
        answer.unwrap_or_else(|error| panic!("{host}: {request:?}: {error}"))
    }

    /// Asks a host's gateway from outside.
    pub(crate) fn try_gateway(&self, host: &str, request: &Request) -> io::Result<Answer> {
        self.outside(host).run(|| request.send(self.gateway(host)))?
    }

    pub(crate) fn ask_gateway(&self, host: &str, request: &Request) -> Answer {
        let answer = self.try_gateway(host, request);
        answer.unwrap_or_else(|error| panic!("{host}: {request:?}: {error}"))
    }

    /// Returns the status that a host gives: the leader's if it can be had.
    pub(crate) fn status(&self, host: &str) -> Result<StatusWire, String> {
        self.read_status(host, "/v1/status")
    }

    /// Returns what a host knows by itself.
    pub(crate) fn local_status(&self, host: &str) -> Result<StatusWire, String> {
        self.read_status(host, "/v1/status?local")
    }

    fn read_status(&self, host: &str, path: &str) -> Result<StatusWire, String> {
        let answer = self.try_api(host, &Request::get(path));
        let answer = answer.map_err(|error| format!("{host}: {error}"))?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("{host}: {error}"))
    }

    /// Returns who leads.
    pub(crate) fn leader(&self) -> String {
        eventually("a leader is known", || {
            let statuses = self.hosts_on().into_iter().map(|host| self.status(&host));
            let mut leaders = statuses.filter_map(|status| status.ok()?.leader);
            leaders.next().ok_or_else(|| "nobody knows one".to_owned())
        })
    }

    fn hosts_on(&self) -> Vec<String> {
        let on = |host: &String| self.lab.status(&name(host)) != HostStatus::Off;
        self.hosts().into_iter().filter(on).collect()
    }

    /// Waits until every host says that the goal is met and nothing is missing.
    pub(crate) fn wait_until_complete(&self) {
        for host in self.hosts() {
            eventually("the system is complete", || {
                let status = self.status(&host)?;
                let complete = status.source == Source::Leader
                    && status.goal_met
                    && status.redundancy.full
                    && status.leader.is_some();
                if complete { Ok(()) } else { Err(format!("{host}: {}", status.sentence)) }
            });
        }
    }

    /// Returns the process ids of everything that a host's node supervises, as the host sees them.
    pub(crate) fn supervised(&self, host: &str) -> Result<BTreeMap<String, u32>, String> {
        let status = self.local_status(host)?;
        let processes = status.processes.into_iter();
        processes
            .map(|process| match process.pid {
                Some(pid) if process.state == evenkeel_node::wire::StateWire::Ready => {
                    Ok((process.id, pid))
                }
                _ => Err(format!("{host}: {process:?}")),
            })
            .collect()
    }

    /// Returns the process id of a host's node, if one runs.
    pub(crate) fn node(&self, host: &str) -> Option<i32> {
        let processes = self.lab.processes(&name(host)).into_iter();
        let mut nodes = processes.filter(|process| process.role == ProcessRole::Node);
        nodes.next().map(|process| process.pid)
    }

    /// Kills a host's node and returns which process it was.
    pub(crate) fn kill_node(&self, host: &str) -> i32 {
        let node = self.node(host).unwrap();
        kill(Pid::from_raw(node), Signal::SIGKILL).unwrap();
        node
    }

    pub(crate) fn power_off(&self, host: &str) {
        self.lab.power_off(&name(host)).unwrap();
    }

    pub(crate) fn power_on(&self, host: &str) {
        self.lab.power_on(&name(host)).unwrap();
    }

    /// Waits until only a host's pid 1 is left of it.
    pub(crate) fn wait_until_empty(&self, host: &str) {
        eventually("the host runs nothing", || {
            let processes = self.lab.processes(&name(host));
            let mut left = processes.iter().filter(|process| process.role != ProcessRole::Init);
            left.next().map_or(Ok(()), |process| Err(format!("{host}: {process:?}")))
        });
    }

    /// Runs the program in a host's network.
    pub(crate) fn run(&self, host: &str, arguments: &[&str]) -> Said {
        let mut command = self.inside(host).command(PROGRAM).unwrap();
        command.args(arguments);
        run(command)
    }

    /// Starts a node in the network of a host that is off, with more flags than usual. It ends when
    /// it is told to, at the latest with the world.
    pub(crate) fn start_node(&self, host: &str, flags: &[&str]) -> Child {
        let mut command = self.inside(host).command(PROGRAM).unwrap();
        command.args(["node", "--system", text(&self.file(host)), "--host", host]);
        command.args(["--data", text(&self.data(host))]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs `evenkeel status` on a host.
    pub(crate) fn run_status(&self, host: &str, more: &[&str]) -> Said {
        let data = self.data(host);
        let words = ["status", "--data", text(&data)];
        self.run(host, &[&words, more].concat())
    }

    /// Prints the end of every host's log.
    pub(crate) fn print_logs(&self) {
        for host in self.hosts() {
            let log = self.log(&host);
            let lines: Vec<&str> = log.lines().collect();
            let first = lines.len().saturating_sub(LOG_LINES);
            println!("--- {host}\n{}", lines.get(first..).unwrap_or_default().join("\n"));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // What is left goes with the world.
        drop(fs::remove_dir_all(&self.files));
    }
}

pub(crate) fn name(host: &str) -> HostName {
    HostName::parse(host).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Looks until there is what is wanted, and returns it.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "in vain: {what}; last seen: {seen}"),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Said {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + COMMAND_MAX;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("did not end in time: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    Said { code: status.code(), out, err }
}

/// Returns every process of the program under test in this world.
pub(crate) fn left_over() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(PROGRAM))
    })
    .collect()
}
