//! Starts a node: everything that can go wrong is found before anything runs.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use evenkeel_control::controller;
use evenkeel_control::declaration::Declaration;
use evenkeel_control::plan::Plan;
use evenkeel_coordinator::options::{
    Options as CoordinatorOptions, RoundTrips, SEGMENT_BYTES, STORE_BYTES_MAX, Voter,
};
use evenkeel_coordinator::{Coordinator, StartError as CoordinatorError};
use evenkeel_diagnostic::Diagnostic;
use evenkeel_gateway::snapshot;
use evenkeel_model::name::{HostName, SystemName};
use evenkeel_model::place::Host as Place;
use evenkeel_model::system::{NoHost, System};
use evenkeel_node_core::host_loop::HostLoop;
use evenkeel_node_core::process::ProcessId;
use evenkeel_node_core::settings::{Adopted, Restored, Settings, Timings};
use evenkeel_supervisor::protocol::ChildState;
use evenkeel_supervisor::shims::{ShimEvent, Shims};
use evenkeel_trust::tls::Trust;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

use crate::act::Hands;
use crate::api::{self, Context};
use crate::client::Client;
use crate::clock;
use crate::data::{self, DataFolder, LogWanted, OpenError, at_short_path};
use crate::host::{Ending, Given, Host, Inlets};
use crate::listener;
use crate::membership::{Membership, routes};
use crate::plan_file;
use crate::probe::Probes;
use crate::protection::{Protection, ProtectionError, Wanted};
use crate::round_trips::Window;
use crate::store::Store;
use crate::writer;

/// Most bytes of the coordinator's log folder.
const LOG_BYTES_MAX: u64 = 4 << 30;

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The system file; used until the replicated one is known.
    pub system_file: PathBuf,
    /// Name of this host in it.
    pub host: String,
    /// The data folder.
    pub data: PathBuf,
    /// What protects traffic beyond loopback.
    pub protection: Wanted,
    /// What the data folder is to hold of the coordinator's log.
    pub log: LogWanted,
    /// The program to start for shims and the gateway: this one.
    pub program: PathBuf,
}

/// Reports why a node did not start. Nothing runs and nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file can't be read.
    #[error("can't read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The system file has errors.
    #[error("`{path}` can't be used")]
    File {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
        /// What is wrong with it.
        diagnostics: Vec<Diagnostic>,
    },
    /// The file has no such host.
    #[error("there is no host `{host}` in `{path}`, which has {known}")]
    NoHost {
        /// The name given.
        host: String,
        /// The file.
        path: PathBuf,
        /// The hosts that it has.
        known: String,
    },
    /// Traffic can't be protected.
    #[error(transparent)]
    Protection(#[from] ProtectionError),
    /// A log is to begin anew on a host that has none.
    #[error("`--rejoin-empty` begins an empty log, but host `{host}` does not vote and keeps none")]
    RejoinsWithoutLog {
        /// The host.
        host: HostName,
    },
    /// The data folder can't be used.
    #[error(transparent)]
    Data(#[from] OpenError),
    /// A port can't be opened.
    #[error("can't listen on {address} for {purpose}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The local control socket can't be opened.
    #[error("can't open control socket `{path}`")]
    Control {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The shims of an earlier node can't be adopted.
    #[error("can't open the shims' folder `{path}`")]
    Shims {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The coordinator can't start, for instance because its log is damaged.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
}

impl StartError {
    /// Returns what can be done about it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::File { .. } => return None,
            Self::Read { .. } => "`evenkeel init` writes a system file to begin with",
            Self::NoHost { .. } => "say with --host which of them this machine is",
            Self::Protection(error) => return Some(error.help()),
            Self::RejoinsWithoutLog { .. } => "start without `--rejoin-empty`",
            Self::Data(error) => return Some(error.help()),
            Self::Listen { address, source, .. } => return Some(help_to_listen(*address, source)),
            Self::Control { .. } | Self::Shims { .. } => {
                "remove what stands there, or give another folder with --data"
            }
            Self::Coordinator(error) => return Some(error.help()),
        };
        Some(help.to_owned())
    }
}

fn help_to_listen(address: SocketAddr, error: &io::Error) -> String {
    let (ip, port) = (address.ip(), address.port());
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        format!(
            "`ss -lntup 'sport = {port}'` names the program that holds it; stop that, or choose \
             another port under [ports]"
        )
    } else if kind == io::ErrorKind::AddrNotAvailable {
        format!("this machine does not have {ip}: start the node on the one that does")
    } else if kind == io::ErrorKind::PermissionDenied {
        format!("port {port} needs root: choose one above 1023 under [ports]")
    } else {
        format!("see that {ip} is an address of this machine")
    }
}

/// The system file in force, and the one that was given.
struct Loaded {
    path: PathBuf,
    declaration: Declaration,
    given: Given,
}

/// Runs a node until it is told to end; `leave` turns true when it alone is to end.
///
/// # Errors
/// When it can't start.
pub async fn run(options: Options, leave: watch::Receiver<bool>) -> Result<Ending, StartError> {
    let loaded = load(&options)?;
    let system = Arc::clone(&loaded.declaration.system);
    let place = find_host(&options, &loaded.path, &system)?.clone();
    let protection = Protection::check(options.protection, &options.data, &system, &place.name)?;
    let folder = open_folder(&options, &system, &place)?;
    let trust = protection.open(&system, &place)?;
    let api = listen(SocketAddr::new(place.address, system.ports.api), "the API")?;
    let probes = bind_probes(&system, &place)?;
    let (shim_events, shims_inlet) = mpsc::channel(1024);
    let shims = open_shims(&options, &folder, shim_events).await?;
    let (round_trips, measured) = watch::channel(RoundTrips::new());
    let coordinator_options = coordinator_options(&system, &place, &folder, trust.clone())?;
    note_log(&folder, &coordinator_options).await?;
    let coordinator = Coordinator::start(coordinator_options, measured.clone()).await?;
    let store = Store::new(coordinator, place.name.clone());
    let (outcomes, outcomes_inlet) = mpsc::channel(1024);
    let (questions, questions_inlet) = mpsc::channel(256);
    let client = Client::new(system.name.clone(), trust.clone());
    let (in_force, system_seen) = watch::channel(Arc::clone(&system));
    let context = Context {
        questions,
        client: client.clone(),
        store: store.clone(),
        shims: shims.clone(),
        round_trips: measured.clone(),
        system: system_seen.clone(),
        host: place.name.clone(),
    };
    let text = &loaded.declaration.text;
    serve(api, &folder, context, &protection, trust.clone(), text)?;
    let core = HostLoop::new(
        settings(&options, &folder, loaded.declaration.clone(), &place, &protection),
        restored(&folder, &system, &shims),
        clock::now(),
    );
    let host = Host {
        core,
        hands: Hands {
            system: system_seen,
            client,
            round_trips: measured,
            plan: writer::of_plans(&folder, &system, outcomes.clone()),
            routes: writer::of_routes(&folder, outcomes.clone()),
            system_file: writer::of_system_files(&folder, outcomes.clone()),
            outcomes,
            system_text: Arc::clone(&loaded.declaration.text),
        },
        name: place.name.clone(),
        store: store.clone(),
        probes,
        shims: shims.clone(),
        round_trips,
        measured: Window::default(),
        given: loaded.given,
        trust,
        system: in_force,
    };
    tracing::info!(data = %folder.path().display(), "node of `{}` runs", place.name);
    let inlets =
        Inlets { outcomes: outcomes_inlet, questions: questions_inlet, shims: shims_inlet, leave };
    let ending = host.run(inlets).await;
    store.shutdown().await;
    if ending == Ending::Superseded {
        begin_anew(&folder)?;
    }
    Ok(ending)
}

/// Sets this host's log aside: the system goes on from another one.
fn begin_anew(folder: &DataFolder) -> Result<(), OpenError> {
    let kept = folder.set_log_aside()?;
    tracing::warn!(
        log = %kept.display(),
        "the system goes on from another host's log: this one is set aside and kept, and this host joins anew"
    );
    Ok(())
}

fn bind_probes(system: &System, place: &Place) -> Result<Probes, StartError> {
    let address = SocketAddr::new(place.address, system.ports.peer);
    Probes::bind(address, system.name.clone(), place.name.clone())
        .map_err(|source| StartError::Listen { address, purpose: "probes", source })
}

/// Opens the data folder, and sees that it holds the log that it is to hold.
fn open_folder(
    options: &Options,
    system: &System,
    place: &Place,
) -> Result<DataFolder, StartError> {
    let takes_part = system.takes_part(&place.name);
    if options.log == LogWanted::Lost && !takes_part {
        return Err(StartError::RejoinsWithoutLog { host: place.name.clone() });
    }
    let folder = DataFolder::open(&options.data, &system.name, &place.name)?;
    if takes_part {
        folder.check_log(options.log)?;
    }
    Ok(folder)
}

/// Begins a voter's log if that was never done, and remembers that it is there before this host
/// takes part in anything.
async fn note_log(folder: &DataFolder, options: &CoordinatorOptions) -> Result<(), StartError> {
    if options.peer_listener.is_some() && folder.lacks_log()? {
        Coordinator::begin_log(options).await?;
        folder.note_log()?;
    }
    Ok(())
}

/// Finds the system file in force: the one that this host's last plan names, then the one kept
/// beside it, then the one given.
fn load(options: &Options) -> Result<Loaded, StartError> {
    let text = read(&options.system_file)?;
    let given = parse(&options.system_file, &text);
    let name = match &given {
        Ok(system) => Some(system.name.clone()),
        Err(_) => None,
    };
    let given_file = Given { path: options.system_file.clone(), text: text.clone() };
    let (path, declaration) = if let Some(kept) = kept(&options.data, name.as_ref())? {
        (data::system_file(&options.data), kept)
    } else {
        let declaration = Declaration { revision: 0, text: text.into(), system: Arc::new(given?) };
        (options.system_file.clone(), declaration)
    };
    // What is kept wins within one system only: this folder may be another's.
    if let Some(wanted) = name.filter(|name| *name != declaration.system.name) {
        let folder = options.data.clone();
        let found = declaration.system.name.to_string();
        return Err(OpenError::OtherSystem { folder, found, wanted }.into());
    }
    Ok(Loaded { path, declaration, given: given_file })
}

/// Finds the system file that the last node on data folder `data` followed, if there was one: that
/// of its last plan, which is read if `system` says of which system that must be, then the one kept
/// beside it.
///
/// # Errors
/// The one kept beside it can't be used.
pub(crate) fn kept(
    data: &Path,
    system: Option<&SystemName>,
) -> Result<Option<Declaration>, StartError> {
    let planned = system.and_then(|system| plan_file::read(&data::plan(data), system));
    if let Some(followed) = planned.as_ref().and_then(Plan::declaration) {
        return Ok(Some(followed.clone()));
    }
    let path = data::system_file(data);
    if !path.exists() {
        return Ok(None);
    }
    let text = read(&path)?;
    let system = parse(&path, &text)?;
    Ok(Some(Declaration { revision: 0, text: text.into(), system: Arc::new(system) }))
}

fn parse(path: &Path, text: &str) -> Result<System, StartError> {
    let parsed = evenkeel_system_file::parse(text).map_err(|diagnostics| StartError::File {
        path: path.to_path_buf(),
        text: text.to_owned(),
        diagnostics,
    })?;
    Ok(parsed.system)
}

fn read(path: &Path) -> Result<String, StartError> {
    std::fs::read_to_string(path)
        .map_err(|source| StartError::Read { path: path.to_path_buf(), source })
}

fn find_host<'a>(
    options: &Options,
    path: &Path,
    system: &'a System,
) -> Result<&'a Place, StartError> {
    let found = system.find_host(&options.host);
    // The folder's own system file knows no host that was added since, or this one is a twin's.
    if found.is_err()
        && let Some(owner) = data::owner(&options.data).filter(|owner| *owner != options.host)
        && let Ok(wanted) = HostName::parse(&options.host)
    {
        let folder = options.data.clone();
        return Err(OpenError::OtherHost { folder, found: owner, wanted }.into());
    }
    found.map_err(|NoHost { host, known }| StartError::NoHost {
        host,
        path: path.to_path_buf(),
        known,
    })
}

fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, StartError> {
    listener::bind(address).map_err(|source| StartError::Listen { address, purpose, source })
}

async fn open_shims(
    options: &Options,
    folder: &DataFolder,
    events: mpsc::Sender<ShimEvent>,
) -> Result<Shims, StartError> {
    let path = folder.shims();
    Shims::open(path.clone(), options.program.clone(), events)
        .await
        .map_err(|source| StartError::Shims { path, source })
}

/// Returns where the coordinator's voters are.
pub(crate) fn voters(system: &System) -> Vec<Voter> {
    let hosts = system.voters.iter().filter_map(|host| system.hosts.get(host));
    hosts.map(|host| place_of(system, host)).collect()
}

pub(crate) fn place_of(system: &System, host: &evenkeel_model::place::Host) -> Voter {
    Voter {
        host: host.name.clone(),
        peer: SocketAddr::new(host.address, system.ports.peer),
        api: SocketAddr::new(host.address, system.ports.api),
    }
}

fn coordinator_options(
    system: &System,
    place: &Place,
    folder: &DataFolder,
    trust: Option<Trust>,
) -> Result<CoordinatorOptions, StartError> {
    let peer_listener = if system.takes_part(&place.name) {
        Some(listen(SocketAddr::new(place.address, system.ports.peer), "the coordinator")?)
    } else {
        None
    };
    Ok(CoordinatorOptions {
        system: system.name.clone(),
        host: place.name.clone(),
        voters: voters(system),
        hosts: system.hosts.values().map(|host| place_of(system, host)).collect(),
        joins: system.learners.contains(&place.name),
        peer_listener,
        trust,
        log_folder: folder.log(),
        log_segment_bytes: SEGMENT_BYTES,
        log_bytes_max: LOG_BYTES_MAX,
        store_bytes_max: STORE_BYTES_MAX,
        seed: clock::now().as_nanos(),
    })
}

/// Serves the API and the control socket, and begins to look after the host's certificate.
fn serve(
    api: TcpListener,
    folder: &DataFolder,
    context: Context,
    protection: &Protection,
    trust: Option<Trust>,
    text: &Arc<str>,
) -> Result<(), StartError> {
    let address = api.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let file = folder.system_file();
    let membership = Membership::begin(protection, trust.as_ref(), &context, file, text);
    let mut public = context.store.router().merge(api::public(context.clone()));
    if let Some(membership) = &membership {
        public = public.merge(routes::public(membership.clone()));
    }
    listener::serve(api, public, trust).map_err(|source| StartError::Listen {
        address,
        purpose: "the API",
        source,
    })?;
    serve_locally(&folder.control_socket(), api::local(context).merge(routes::local(membership)))
}

fn serve_locally(path: &Path, router: Router) -> Result<(), StartError> {
    let failed = |source| StartError::Control { path: path.to_path_buf(), source };
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
        Ok(()) | Err(_) => {}
    }
    let listener = at_short_path(path, |path| UnixListener::bind(path)).map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the control socket has ended");
        }
    });
    Ok(())
}

fn settings(
    options: &Options,
    folder: &DataFolder,
    declaration: Declaration,
    place: &Place,
    protection: &Protection,
) -> Settings {
    let program = options.program.display().to_string();
    let routes = folder.routes().display().to_string();
    let command =
        [program.as_str(), "gateway", "--snapshot", &routes, "--host", place.name.as_str()];
    let trust = protection.folder().map(|folder| folder.path().display().to_string());
    let trust = trust.into_iter().flat_map(|folder| ["--trust".to_owned(), folder]);
    let now = clock::now().as_nanos();
    Settings {
        host: place.name.clone(),
        declaration,
        boot: now,
        seed: now ^ u64::from(std::process::id()),
        gateway_command: command.map(str::to_owned).into_iter().chain(trust).collect(),
        protected: protection.folder().is_some(),
        timings: Timings::STANDARD,
        control: controller::Settings::STANDARD,
        defect: None,
    }
}

fn restored(folder: &DataFolder, system: &System, shims: &Shims) -> Restored {
    let routes = match snapshot::read(&folder.routes()) {
        Ok(loaded) => Some(loaded.table).filter(|table| table.system == system.name),
        Err(_) => None,
    };
    let adopted = shims.list().into_iter().filter_map(|shim| {
        let pid = match shim.child {
            ChildState::Running { pid, .. } => Some(pid),
            ChildState::Idle | ChildState::Exited { .. } => None,
        };
        Some(Adopted { id: ProcessId::parse(&shim.id).ok()?, pid })
    });
    Restored {
        plan: plan_file::read(&folder.plan(), &system.name),
        routes,
        processes: adopted.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        system = "shop"
        survive = "process"
        [region.fra]
        zones = { a = { HOST = "127.0.0.1" } }
        [service.web]
        command = ["web", "${PORT}"]
        replicas = 2
        [gateway.public]
        listen = ":8080"
        routes = [{ path = "/", to = "web" }]
    "#;

    #[test]
    fn a_host_is_looked_for_in_the_file_in_force() {
        let data = std::env::temp_dir().join(format!("evenkeel-start-{}", std::process::id()));
        std::fs::create_dir_all(&data).unwrap();
        let given = data.join("given.toml");
        std::fs::write(&given, FILE.replace("HOST", "a1")).unwrap();
        std::fs::write(data.join("system.toml"), FILE.replace("HOST", "b1")).unwrap();
        let options = Options {
            system_file: given,
            host: "a1".to_owned(),
            data: data.clone(),
            protection: Wanted::Joined,
            log: LogWanted::Kept,
            program: PathBuf::new(),
        };
        let loaded = load(&options).unwrap();
        let refused =
            find_host(&options, &loaded.path, &loaded.declaration.system).unwrap_err().to_string();
        let path = data.join("system.toml").display().to_string();
        assert_eq!(refused, format!("there is no host `a1` in `{path}`, which has `b1`"));
        std::fs::remove_dir_all(&data).unwrap();
    }
}
