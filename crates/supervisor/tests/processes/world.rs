//! What the tests need around the shims: nodes, a server, and ways to look at processes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use evenkeel_supervisor::process::{ProcessStat, Scope, end_marked, list_marked};
use evenkeel_supervisor::shims::{ShimEvent, Shims};
use evenkeel_supervisor::spec::ProcessSpec;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, SockaddrIn, accept, getsockname, send};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn program() -> PathBuf {
    std::env::current_exe().expect("this program has a path")
}

/// The folder of one test. Dropping it ends whatever the test left.
pub(crate) struct World {
    folder: PathBuf,
}

impl World {
    pub(crate) fn new(folder: PathBuf) -> Self {
        std::fs::create_dir(&folder).expect("a new folder");
        Self { folder }
    }

    pub(crate) fn shims_folder(&self) -> PathBuf {
        self.folder.join("shims")
    }

    pub(crate) fn shim_folder(&self, id: &str) -> PathBuf {
        self.shims_folder().join(id)
    }

    /// Returns all processes of all shims of this test.
    pub(crate) fn processes(&self) -> Vec<u32> {
        list_marked(Scope::AllIn(&self.shims_folder()))
    }

    pub(crate) fn open_node(&self) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (sender, events) = mpsc::channel(64);
        let open = Shims::open(self.shims_folder(), program(), sender);
        let shims = runtime.block_on(open).expect("the shims' folder");
        Node { runtime, shims, events }
    }

    /// Starts a node in a process of its own, with the shims of `plan`, and returns it when they
    /// run, with their children's process ids.
    pub(crate) fn spawn_node(&self, plan: &[(&str, &str)]) -> (Child, Vec<u32>) {
        let mut node = self.begin_node(plan);
        let output = BufReader::new(node.stdout.take().expect("its output"));
        let lines = output.lines().take(plan.len()).map(|line| line.expect("a line"));
        let pids = lines.map(|line| line.parse().expect("a process id")).collect();
        (node, pids)
    }

    /// As [`Self::spawn_node`], but waits for nothing.
    pub(crate) fn begin_node(&self, plan: &[(&str, &str)]) -> Child {
        let mut node = Command::new(program())
            .arg("node")
            .arg(self.shims_folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a node");
        let mut input = node.stdin.take().expect("its input");
        for (id, script) in plan {
            writeln!(input, "{id} {script}").expect("it reads");
        }
        drop(input);
        node
    }

    pub(crate) fn show_logs(&self) {
        for entry in std::fs::read_dir(self.shims_folder()).into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(entry.path().join("log")).unwrap_or_default();
            println!("--- log of {}\n{log}", entry.file_name().display());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let left = end_marked(Scope::AllIn(&self.shims_folder()));
        assert!(left.is_empty() || std::thread::panicking(), "processes {left:?} are left");
        std::fs::remove_dir_all(&self.folder).expect("a folder that nobody uses");
    }
}

/// A node in this process. Dropping it is like its death: the shims stay.
pub(crate) struct Node {
    runtime: Runtime,
    pub(crate) shims: Shims,
    events: mpsc::Receiver<ShimEvent>,
}

impl Node {
    pub(crate) fn run<T>(&self, action: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, action).await })
            .expect("an answer in time")
    }

    pub(crate) fn start(&self, spec: ProcessSpec) -> u32 {
        self.run(self.shims.start(spec)).expect("it starts")
    }

    pub(crate) fn next_event(&mut self) -> ShimEvent {
        let next = async { tokio::time::timeout(PATIENCE, self.events.recv()).await };
        self.runtime.block_on(next).expect("an event in time").expect("the shims are open")
    }

    pub(crate) fn has_event(&mut self) -> bool {
        !self.events.is_empty()
    }

    pub(crate) fn wait_for_line(&self, id: &str, line: &str) {
        eventually(line, || self.shims.log_tail(id, 1000).iter().any(|other| other == line));
    }
}

/// Returns a spec that runs a shell script.
pub(crate) fn script(id: &str, text: &str) -> ProcessSpec {
    spec(id, &["/bin/sh", "-c", text])
}

pub(crate) fn spec(id: &str, command: &[&str]) -> ProcessSpec {
    ProcessSpec {
        id: id.to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        directory: None,
        environment: BTreeMap::new(),
        listen: Vec::new(),
        log_max_bytes: 1 << 20,
    }
}

/// Waits until `holds` does.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn lives(pid: u32) -> bool {
    ProcessStat::read(pid).is_ok_and(|stat| !stat.is_zombie)
}

pub(crate) fn send_signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("a process of ours");
}

/// Starts what its input says, tells the process ids, and waits to be killed.
pub(crate) fn be_node(folder: &Path) -> ExitCode {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("end with the test");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (sender, mut events) = mpsc::channel(64);
        let shims = Shims::open(folder.to_owned(), program(), sender).await.expect("a folder");
        for line in std::io::stdin().lines() {
            let line = line.expect("a line");
            let (id, text) = line.split_once(' ').expect("an id and a script");
            let pid = shims.start(script(id, text)).await.expect("it starts");
            println!("{pid}");
        }
        while events.recv().await.is_some() {}
    });
    ExitCode::FAILURE
}

/// Serves its own process id, once for each connection, on the socket that it is given.
pub(crate) fn be_server() -> ExitCode {
    let own = std::process::id().to_string();
    let count = std::env::var("LISTEN_FDS").unwrap_or_default();
    let owner = std::env::var("LISTEN_PID").unwrap_or_default();
    println!("given {count} {}", owner == own);
    let port = getsockname::<SockaddrIn>(3).expect("a socket at 3").port();
    println!("port {port}");
    loop {
        let connection = accept(3).expect("a connection");
        send(connection, own.as_bytes(), MsgFlags::MSG_NOSIGNAL).expect("somebody listens");
        nix::unistd::close(connection).expect("our descriptor");
    }
}
