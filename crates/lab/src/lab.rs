//! A system on this machine: its network, its hosts' power switches, and the names of what may be
//! struck.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_model::name::{HostName, RegionName};
use evenkeel_model::system::System;
use evenkeel_trust::tls::Trust;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

use crate::address::{AddressError, Layout};
use crate::certificates::{self, CertificatesError};
use crate::measure::{self, RoundTrip};
use crate::namespace::Namespace;
use crate::network::{self, Network, NetworkError};
use crate::options::{LabOptions, Storage};
use crate::processes::{self, HostProcess};
use crate::storage::Root;
use crate::switch;
use crate::sys::{self, Bond, Exec};
use crate::wide_area::WideArea;
use crate::world::{self, Isolation, World};

/// Rounds of ending processes that start others meanwhile.
const END_ROUNDS_MAX: u32 = 200;

/// Reports why a lab could not be built. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A host has an address that it cannot have.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Without namespaces every host shares this machine's network.
    #[error(
        "host `{host}` has an address other than a loopback address, and hosts cannot have networks \
         of their own here: {reason}"
    )]
    NotLoopback {
        /// The host.
        host: HostName,
        /// Why there are no namespaces.
        reason: String,
    },
    /// The network could not be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The wide-area switch could not be started.
    #[error("start the wide-area switch")]
    WideArea(#[source] io::Error),
    /// The hosts' folders could not be made.
    #[error("make the data folder `{0}`")]
    Storage(PathBuf, #[source] io::Error),
    /// The hosts' certificates could not be made.
    #[error("make the hosts' certificates")]
    Certificates(#[from] CertificatesError),
}

/// Reports why a host could not be switched on or off.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// The system has no such host.
    #[error("there is no host `{0}`")]
    Unknown(HostName),
    /// It is switched on already.
    #[error("host `{0}` is on")]
    IsOn(HostName),
    /// The kernel refused.
    #[error("switch host `{0}`")]
    Kernel(HostName, #[source] io::Error),
}

/// Whether a host has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostStatus {
    /// On.
    On {
        /// Its pid 1, as its killer sees it.
        init: i32,
    },
    /// Off: none of its processes exists.
    Off,
}

/// One host's network, as a fault needs it.
#[derive(Debug, Clone)]
pub struct Site {
    /// The host.
    pub host: HostName,
    /// Its network.
    pub namespace: Namespace,
    /// Other addresses of the same failure domain, which it still reaches when the domain is
    /// isolated.
    pub kept: Vec<std::net::IpAddr>,
}

/// What a lab stands on.
#[derive(Debug)]
pub(crate) enum Ground {
    Namespaces { layout: Box<Layout>, network: Network, wide_area: WideArea },
    Loopback { reason: String },
}

/// A host that is on.
#[derive(Debug)]
struct Running {
    init: Pid,
    /// Its init ends when this closes.
    _lifeline: OwnedFd,
}

/// A whole system on this machine. Dropping it ends every host and removes what it stored in
/// memory or temporary folders.
#[derive(Debug)]
pub struct Lab {
    system: System,
    command: Vec<OsString>,
    root: Root,
    pub(crate) ground: Ground,
    running: Mutex<BTreeMap<HostName, Running>>,
    operator: Option<Trust>,
}

impl Lab {
    /// Makes the network and the folders of `system`; every host is still off.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(world: &World, system: &System, options: LabOptions) -> Result<Self, BuildError> {
        let ground = match &world.isolation {
            Isolation::Root | Isolation::User => lay_namespaces(system, &options)?,
            Isolation::None { reason } => {
                check_loopback(system, reason)?;
                Ground::Loopback { reason: reason.clone() }
            }
        };
        let root = match (&options.storage, &ground) {
            (Storage::Folder(folder), _) => Root::Kept(folder.clone()),
            (Storage::Memory { .. }, Ground::Namespaces { .. }) => Root::in_memory(),
            (Storage::Memory { .. }, Ground::Loopback { .. }) => {
                let folder = std::env::temp_dir();
                Root::temporary(&folder).map_err(|error| BuildError::Storage(folder, error))?
            }
        };
        let system = system.clone();
        let running = Mutex::new(BTreeMap::new());
        let command = options.command;
        let mut lab = Self { system, command, root, ground, running, operator: None };
        lab.make_folders(&options.storage)?;
        lab.operator = certificates::make(&lab.system, |host| lab.data(host))?;
        Ok(lab)
    }

    fn make_folders(&self, storage: &Storage) -> Result<(), BuildError> {
        for host in self.system.hosts.keys() {
            let folder = self.root.folder().join(host.as_str());
            let failed = |error| BuildError::Storage(folder.clone(), error);
            fs::create_dir_all(&folder).map_err(failed)?;
            if let (Storage::Memory { bytes_max }, Ground::Namespaces { .. }) =
                (storage, &self.ground)
            {
                let mounted = world::mount_memory(&folder, Some(*bytes_max));
                mounted.map_err(|error| BuildError::Storage(folder.clone(), error.into()))?;
            }
            let data = self.data(host);
            fs::create_dir_all(&data).map_err(|error| BuildError::Storage(data, error))?;
        }
        Ok(())
    }

    /// Returns the system that this lab is of.
    #[must_use]
    pub const fn system(&self) -> &System {
        &self.system
    }

    /// Returns with what the API of every host can be asked from outside, where that is protected.
    #[must_use]
    pub const fn operator(&self) -> Option<&Trust> {
        self.operator.as_ref()
    }

    /// Returns the data folder of a host.
    #[must_use]
    pub fn data(&self, host: &HostName) -> PathBuf {
        self.root.folder().join(host.as_str()).join("data")
    }

    /// Returns the file that holds what a host's command printed.
    #[must_use]
    pub fn log(&self, host: &HostName) -> PathBuf {
        self.root.folder().join(host.as_str()).join("node.log")
    }

    /// Returns a host's network; `None` when hosts have none of their own.
    #[must_use]
    pub fn host_namespace(&self, host: &HostName) -> Option<&Namespace> {
        let Ground::Namespaces { layout, network, .. } = &self.ground else { return None };
        let index = layout.hosts.iter().position(|place| place.name == *host)?;
        network.hosts.get(index)
    }

    /// Returns the network of a region's clients, which stands outside every host; `None` when
    /// there are no networks.
    #[must_use]
    pub fn client_namespace(&self, region: &RegionName) -> Option<&Namespace> {
        let Ground::Namespaces { layout, network, .. } = &self.ground else { return None };
        let index = layout.regions.iter().position(|name| name == region)?;
        network.clients.get(index)
    }

    /// Returns the wide-area network; `None` when there is none.
    #[must_use]
    pub const fn wide_area(&self) -> Option<&WideArea> {
        match &self.ground {
            Ground::Namespaces { wide_area, .. } => Some(wide_area),
            Ground::Loopback { .. } => None,
        }
    }

    /// Measures the round trips between regions, in both directions together, at the same time.
    /// Takes about three of the longest.
    #[must_use]
    pub fn measure_round_trips(&self) -> Vec<RoundTrip> {
        measure::round_trips(self)
    }

    /// Switches on every host that is off.
    ///
    /// # Errors
    /// The first host that could not be switched on; those before it are on.
    pub fn power_on_all(&self) -> Result<(), PowerError> {
        for host in self.system.hosts.keys() {
            if self.status(host) == HostStatus::Off {
                self.power_on(host)?;
            }
        }
        Ok(())
    }

    /// Switches a host on, with the data that it had.
    ///
    /// # Errors
    /// There is no such host, it is on, or the kernel refused a process.
    pub fn power_on(&self, host: &HostName) -> Result<(), PowerError> {
        if !self.system.hosts.contains_key(host) {
            return Err(PowerError::Unknown(host.clone()));
        }
        if self.status(host) != HostStatus::Off {
            return Err(PowerError::IsOn(host.clone()));
        }
        let started =
            self.start_init(host).map_err(|error| PowerError::Kernel(host.clone(), error))?;
        self.lock_running().insert(host.clone(), started);
        Ok(())
    }

    /// Takes a host's power: every process of it is killed at once. Returns when all are gone.
    /// Harmless when it is off.
    ///
    /// # Errors
    /// The kernel refused the signal.
    pub fn power_off(&self, host: &HostName) -> Result<(), PowerError> {
        let failed = |error: Errno| PowerError::Kernel(host.clone(), error.into());
        let mut running = self.lock_running();
        let Some(Running { init, .. }) = running.get(host) else { return Ok(()) };
        if matches!(self.ground, Ground::Loopback { .. }) {
            end_members(*init, self.program());
        }
        // The kernel ends a pid namespace with its pid 1, and reaps that one last.
        match kill(*init, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(failed(error)),
        }
        match waitpid(*init, None) {
            Ok(_) | Err(Errno::ECHILD) => {}
            Err(error) => return Err(failed(error)),
        }
        running.remove(host);
        Ok(())
    }

    /// Asks a host to stop its command and then to switch itself off, and waits until it has. After
    /// `patience` its power is taken.
    ///
    /// # Errors
    /// The kernel refused a signal.
    pub fn shut_down(&self, host: &HostName, patience: Duration) -> Result<(), PowerError> {
        let HostStatus::On { init } = self.status(host) else { return Ok(()) };
        let asked = kill(Pid::from_raw(init), Signal::SIGTERM);
        let deadline = Instant::now() + patience;
        while asked.is_ok() && Instant::now() < deadline && self.status(host) != HostStatus::Off {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.power_off(host)
    }

    /// Returns whether a host has power.
    pub fn status(&self, host: &HostName) -> HostStatus {
        let mut running = self.lock_running();
        let Some(Running { init, .. }) = running.get(host) else { return HostStatus::Off };
        let init = *init;
        if let Ok(WaitStatus::StillAlive) = waitpid(init, Some(WaitPidFlag::WNOHANG)) {
            return HostStatus::On { init: init.as_raw() };
        }
        running.remove(host);
        HostStatus::Off
    }

    /// Lists the processes of a host; none when it is off.
    pub fn processes(&self, host: &HostName) -> Vec<HostProcess> {
        match self.status(host) {
            HostStatus::On { init } => processes::of_host(Pid::from_raw(init), self.program()),
            HostStatus::Off => Vec::new(),
        }
    }

    /// Returns the program that every host keeps running.
    fn program(&self) -> &Path {
        self.command.first().map_or(Path::new(""), Path::new)
    }

    fn start_init(&self, host: &HostName) -> io::Result<Running> {
        let (data, log) = (self.data(host), self.log(host));
        let command: Vec<OsString> =
            self.command.iter().map(|word| filled(word, host, &data)).collect();
        let arguments = crate::host_init::arguments(host.as_str(), &data, &log, &command);
        let name = std::env::args_os().next().unwrap_or_else(|| OsString::from("evenkeel"));
        let (input, lifeline) = pipe2(OFlag::O_CLOEXEC)?;
        let network = self.host_namespace(host).map(Namespace::duplicate).transpose()?;
        let flags = match &self.ground {
            Ground::Loopback { .. } => CloneFlags::empty(),
            Ground::Namespaces { .. } => {
                CloneFlags::CLONE_NEWPID
                    | CloneFlags::CLONE_NEWNS
                    | CloneFlags::CLONE_NEWUTS
                    | CloneFlags::CLONE_NEWIPC
            }
        };
        let exec = Exec {
            program: c"/proc/self/exe".to_owned(),
            arguments: world::c_strings([name].into_iter().chain(arguments))?,
            environment: world::host_environment()?,
            network,
            identity: None,
            inherited: Vec::new(),
            bond: Bond::Lifeline(input),
        };
        let init = sys::clone_and_exec(&exec, flags)?;
        Ok(Running { init, _lifeline: lifeline })
    }

    fn lock_running(&self) -> MutexGuard<'_, BTreeMap<HostName, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in self.system.hosts.keys() {
            if let Err(error) = self.power_off(host) {
                tracing::warn!(%error, %host, "host left running");
            }
        }
        self.root.remove();
    }
}

fn lay_namespaces(system: &System, options: &LabOptions) -> Result<Ground, BuildError> {
    let layout = Layout::new(system)?;
    let network = network::build(&layout)?;
    let count = layout.regions.len();
    let wide_area = WideArea::new(layout.regions.clone(), &options.wan, |shared| {
        switch::start(&network.switch, count, options.seed, shared)
    });
    let wide_area = wide_area.map_err(BuildError::WideArea)?;
    Ok(Ground::Namespaces { layout: Box::new(layout), network, wide_area })
}

fn check_loopback(system: &System, reason: &str) -> Result<(), BuildError> {
    match system.hosts.values().find(|host| !host.address.is_loopback()) {
        Some(host) => {
            Err(BuildError::NotLoopback { host: host.name.clone(), reason: reason.to_owned() })
        }
        None => Ok(()),
    }
}

/// Ends what a host's init started, where no pid namespace does. Looks again until nothing new has
/// been started meanwhile.
fn end_members(init: Pid, program: &Path) {
    for _ in 0..END_ROUNDS_MAX {
        let mut members = processes::of_host(init, program);
        members.retain(|member| member.pid != init.as_raw());
        if members.is_empty() {
            return;
        }
        for member in members {
            // One that has ended by itself is what is wanted.
            kill(Pid::from_raw(member.pid), Signal::SIGKILL).ok();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Puts a host's name and data folder into one word of the command.
fn filled(word: &OsString, host: &HostName, data: &Path) -> OsString {
    let mut filled = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"{host}") {
            filled.extend_from_slice(host.as_str().as_bytes());
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix(b"{data}") {
            filled.extend_from_slice(data.as_os_str().as_bytes());
            rest = tail;
        } else {
            filled.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(filled)
}
