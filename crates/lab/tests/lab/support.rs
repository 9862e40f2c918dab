//! What the tests with a lab share: a small system, a command for its hosts, waiting.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use evenkeel_lab::{Lab, LabOptions, Namespace, Storage, Wan};
use evenkeel_model::name::{HostName, RegionName, SystemName, ZoneName};
use evenkeel_model::place::{Host, HostRole, SurvivalGoal};
use evenkeel_model::system::{Ports, System};

/// Port of the echo server on each host.
pub(crate) const ECHO: u16 = 7401;

/// `nobody` on every distribution: an ordinary user.
pub(crate) const NOBODY: u32 = 65534;

/// A copy of this program that any user may run, wherever the build folder is.
pub(crate) struct ProgramCopy {
    folder: PathBuf,
    pub(crate) program: PathBuf,
}

impl ProgramCopy {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("evenkeel-lab-test-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let program = folder.join("lab");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        for path in [&folder, &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { folder, program }
    }
}

impl Drop for ProgramCopy {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Returns a system of hosts given as `region zone host address` lines.
pub(crate) fn system(lines: &str) -> System {
    let mut regions = Vec::new();
    let mut hosts = BTreeMap::new();
    for line in lines.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [region, zone, name, address] = words.as_slice() else { continue };
        let region = RegionName::parse(region).unwrap();
        if !regions.contains(&region) {
            regions.push(region.clone());
        }
        let name = host(name);
        let (zone, address) = (ZoneName::parse(zone).unwrap(), address.parse().unwrap());
        hosts.insert(name.clone(), Host { name, region, zone, address, role: HostRole::Full });
    }
    System {
        name: SystemName::parse("shop").unwrap(),
        goal: SurvivalGoal::Region,
        regions,
        hosts,
        services: BTreeMap::new(),
        gateways: BTreeMap::new(),
        ports: Ports {
            peer: 7400,
            api: ECHO,
            kv: 7402,
            gateway_admin: 7403,
            relay: 7404,
            replicas: 20_000..=29_999,
        },
        voters: Vec::new(),
        learners: Vec::new(),
        replace_after: evenkeel_model::voting::REPLACE_AFTER,
    }
}

/// Five hosts in three regions, all IPv4; two of them look like neighbours but are not.
pub(crate) fn five_hosts() -> System {
    system(
        "fra a fra-a1 10.1.0.11\nfra b fra-b1 10.1.0.12\nams a ams-a1 10.1.0.13\n\
         ams b ams-b1 192.168.7.9\nwaw a waw-a1 203.0.113.5",
    )
}

/// The same places with IPv6 addresses, all in one subnet.
pub(crate) fn five_hosts_v6() -> System {
    system(
        "fra a fra-a1 2001:db8::11\nfra b fra-b1 2001:db8::12\nams a ams-a1 2001:db8::21\n\
         ams b ams-b1 2001:db8::22\nwaw a waw-a1 2001:db8::31",
    )
}

pub(crate) fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

pub(crate) fn region(name: &str) -> RegionName {
    RegionName::parse(name).unwrap()
}

/// Returns options under which every host runs this test's own little node.
pub(crate) fn options(system: &System) -> LabOptions {
    let command = ["/proc/self/exe", "node", "{host}", "{data}"];
    LabOptions {
        command: command.into_iter().map(OsString::from).collect(),
        storage: Storage::Memory { bytes_max: 16 * 1024 * 1024 },
        wan: Wan::continental(&system.regions),
        seed: 1,
    }
}

/// Plays the host's processes when the lab starts this program as one of them.
pub(crate) fn play(arguments: &[OsString]) -> Option<ExitCode> {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    match words.as_slice() {
        ["node", _, data] => Some(play_node(Path::new(data))),
        ["shim", folder] => Some(play_shim(folder)),
        ["gateway"] => Some(play_idle()),
        _ => None,
    }
}

/// Starts a shim with a child and serves echoes: one thread a connection.
#[expect(clippy::zombie_processes, reason = "a node's shims outlive it")]
fn play_node(data: &Path) -> ExitCode {
    let starts = data.join("starts");
    let count = fs::read_to_string(&starts).map_or(0, |text| text.parse().unwrap());
    fs::write(&starts, (count + 1).to_string()).unwrap();
    for id in ["web-1", "gateway"] {
        let folder = data.join("shims").join(id);
        Command::new("/proc/self/exe").arg("shim").arg(folder).spawn().unwrap();
    }
    let listener = TcpListener::bind(("::", ECHO)).unwrap();
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        std::thread::spawn(move || io::copy(&mut (&stream), &mut (&stream)));
    }
    ExitCode::SUCCESS
}

fn play_shim(folder: &str) -> ExitCode {
    let mut child = if folder.ends_with("gateway") {
        let mut gateway = Command::new("/proc/self/exe");
        gateway.arg("gateway");
        gateway
    } else {
        let mut sleep = Command::new("sleep");
        sleep.arg("1000");
        sleep
    };
    let mut child = child.env("EVENKEEL_SHIM", folder).stdin(Stdio::null()).spawn().unwrap();
    child.wait().unwrap();
    ExitCode::FAILURE
}

fn play_idle() -> ExitCode {
    loop {
        std::thread::park();
    }
}

/// Asks a host's echo server from inside a network, and says whether it answered in time.
pub(crate) fn echoes(from: &Namespace, to: IpAddr, timeout: Duration) -> bool {
    from.run(|| echo(to, timeout)).unwrap().is_ok()
}

fn echo(to: IpAddr, timeout: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, ECHO), timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"ahoy")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)
}

/// Waits until every host echoes.
pub(crate) fn wait_for_hosts(lab: &Lab) {
    for host in lab.system().hosts.values() {
        let from = lab.client_namespace(&host.region).unwrap();
        eventually(&format!("{} answers", host.name), || {
            echoes(from, host.address, Duration::from_secs(1))
        });
    }
}

/// Waits for a condition, at most 20 s.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
